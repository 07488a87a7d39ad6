//! Fences a container's network: the container reaches the internet, but not this machine, other containers or private networks.
//!
//! The rules are in the container's own network namespace, where none of its processes may change them. They are lost when the container
//! stops. So every incarnation gets them before any command runs in it, also if someone else started the container.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use bollard::{
    errors::Error,
    models::{ContainerCreateBody, ContainerInspectResponse, HostConfig},
    query_parameters::{CreateContainerOptionsBuilder, LogsOptionsBuilder},
};
use futures_util::StreamExt as _;

use super::{DockerRuntime, error, fences::Fencing, guest};
use crate::{LABEL_SANDBOX, RuntimeError};

/// Names of the engine's default network. Other networks get no fence: the operator decides who may use them.
const BRIDGES: [&str; 2] = ["bridge", "default"];
/// The most lines that an error repeats.
const LINES: usize = 5;

/// A container that needs a fence in its present incarnation.
struct Wanted {
    id: String,
    life: String,
    image: String,
    /// The volume with the sandbox's guest.
    volume: String,
    program: String,
}

impl Wanted {
    /// None if the container never gets a fence.
    fn of(inspected: &ContainerInspectResponse) -> Option<Self> {
        let mode = inspected.host_config.as_ref()?.network_mode.as_deref()?;
        let networks = inspected.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
        let is_on_bridge =
            BRIDGES.contains(&mode) || networks.is_some_and(|networks| networks.contains_key(BRIDGES[0]));
        let labels = inspected.config.as_ref()?.labels.as_ref()?;
        if !is_on_bridge || !labels.contains_key(LABEL_SANDBOX) {
            return None;
        }
        let Some(volume) = guest::of(inspected) else {
            tracing::warn!(
                container = inspected.name,
                "this sandbox was made by an earlier version and reaches private networks until it is deleted and made anew"
            );
            return None;
        };
        let life = inspected.state.as_ref()?.started_at.clone()?;
        let program = guest::path_on(&volume);
        Some(Self { id: inspected.id.clone()?, life, image: inspected.image.clone()?, volume, program })
    }
}

impl DockerRuntime {
    /// Fences a running container that needs it, once in each incarnation.
    ///
    /// # Errors
    /// [`RuntimeError::Refused`] when the container cannot be fenced. No command may run in it then.
    pub(super) async fn guard(&self, runtime_id: &str) -> Result<(), RuntimeError> {
        if self.fences.known(runtime_id) == Some(Fencing::Never) {
            return Ok(());
        }
        let inspected = self.look(runtime_id).await?;
        self.fence(&inspected, runtime_id).await
    }

    /// Like [`DockerRuntime::guard`], for a container that was just inspected under this id or name.
    pub(super) async fn fence(&self, inspected: &ContainerInspectResponse, asked: &str) -> Result<(), RuntimeError> {
        let state = inspected.state.clone().unwrap_or_default();
        let Some(wanted) = Wanted::of(inspected) else {
            // Remembered by id only: a name can belong to another container later.
            if inspected.id.as_deref() == Some(asked) {
                self.fences.never(asked);
            }
            return Ok(());
        };
        let known = Fencing::Since(wanted.life.clone());
        if !state.running.unwrap_or(false) || self.fences.known(&wanted.id).as_ref() == Some(&known) {
            return Ok(());
        }
        let rules = self.rules();
        if !self.fences.recall(&wanted.id, &wanted.life, &rules) {
            self.put_up(&wanted, &rules).await?;
            self.fences.put_up(&wanted.id, &wanted.life, &rules);
        }
        Ok(())
    }
}

impl DockerRuntime {
    /// What a fence refuses and allows now, as arguments of the guest.
    fn rules(&self) -> Vec<String> {
        let refused = own_addresses().into_iter().map(|address| format!("refuse={address}"));
        refused.chain(self.allowed.iter().map(|range| format!("allow={range}"))).collect()
    }

    /// Sets up the fence from a second container that shares only the sandbox's network and alone has the capability for it.
    async fn put_up(&self, wanted: &Wanted, rules: &[String]) -> Result<(), RuntimeError> {
        let mut words = vec![wanted.program.clone(), "fence".to_owned()];
        words.extend_from_slice(rules);
        let name = format!("errand-fence-{}", wanted.id);
        let body = ContainerCreateBody {
            image: Some(wanted.image.clone()),
            entrypoint: Some(words),
            cmd: Some(Vec::new()),
            user: Some("0:0".to_owned()),
            working_dir: Some("/".to_owned()),
            host_config: Some(HostConfig {
                network_mode: Some(format!("container:{}", wanted.id)),
                mounts: Some(vec![guest::mount_of(&wanted.volume)]),
                readonly_rootfs: Some(true),
                cap_drop: Some(vec!["ALL".to_owned()]),
                cap_add: Some(vec!["NET_ADMIN".to_owned()]),
                security_opt: Some(vec!["no-new-privileges".to_owned()]),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        // A server that was killed at this point leaves its container behind: remove it and try again.
        let docker = self.docker()?;
        let made = match docker.create_container(Some(options.clone()), body.clone()).await {
            Err(Error::DockerResponseServerError { status_code: 409, .. }) => {
                self.remove_container(&name).await?;
                docker.create_container(Some(options), body).await
            }
            other => other,
        };
        made.map_err(|failure| error::about_creation(failure, &wanted.image))?;
        let ended = async {
            docker.start_container(&name, None).await?;
            docker.wait_container(&name, None).next().await.transpose()
        };
        let result = match ended.await {
            Ok(_) => Ok(()),
            Err(Error::DockerContainerWaitError { code, .. }) => {
                let said = self.said(&name).await;
                Err(RuntimeError::Refused {
                    detail: format!(
                        "the sandbox's network cannot be kept from private addresses, which takes a kernel with nf_tables \
                         ({}); the network mode \"none\" works without",
                        if said.is_empty() { format!("exit code {code}") } else { said }
                    ),
                })
            }
            Err(failure) => Err(error::about_container(failure, &wanted.id)),
        };
        self.remove_container(&name).await?;
        result
    }

    /// The first lines that a container has printed.
    async fn said(&self, container: &str) -> String {
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).build();
        let Ok(docker) = self.docker() else { return String::new() };
        let printed = docker.logs(container, Some(options)).take(LINES).filter_map(|line| async { line.ok() });
        printed.map(|line| line.to_string()).collect::<String>().await.trim().to_owned()
    }
}

/// Every address of this machine. A server in a container sees only the container's addresses.
fn own_addresses() -> BTreeSet<IpAddr> {
    let old = fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let new = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let lines: Vec<&str> = old.lines().map(str::trim).collect();
    let v4 = lines.windows(2).filter(|pair| pair[1] == "/32 host LOCAL").filter_map(|pair| {
        let address: Ipv4Addr = pair[0].strip_prefix("|-- ")?.parse().ok()?;
        Some(IpAddr::from(address))
    });
    let v6 = new.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = u128::from_str_radix(words.next()?, 16).ok()?;
        // A port of a bridge takes no traffic of its own, and each container adds one with an address.
        let is_port = Path::new("/sys/class/net").join(words.last()?).join("master").exists();
        (!is_port).then(|| IpAddr::from(Ipv6Addr::from(address)))
    });
    v4.chain(v6).filter(|address| !address.is_loopback()).collect()
}
