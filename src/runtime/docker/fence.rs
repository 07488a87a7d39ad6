//! The fence around the network of a container: it reaches the world, and neither this machine, its neighbours nor private networks.
//!
//! The rules are in the container's own network, where nothing in it may change them, and go with each life. So each life gets them before
//! anything but the engine's and our own programs runs in it, whoever has started it.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use bollard::models::{ContainerInspectResponse, ExecConfig};

use super::{DockerRuntime, READ_BUFFER, guest};
use crate::runtime::{LABEL_SANDBOX, RuntimeError};

/// The engine's own network, by its names. Whoever asks for another one has been allowed to, and knows what is there.
const BRIDGES: [&str; 2] = ["bridge", "default"];
/// What is said when it is done.
const DONE: &[u8] = b"fenced\n";

/// What is known of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fencing {
    /// It gets no fence, in any life.
    Never,
    /// It has one in the life that began then.
    Since(String),
}

/// A container that is to have a fence in this life.
struct Wanted {
    id: String,
    life: String,
    program: String,
}

impl Wanted {
    /// None: it gets none in any life.
    fn of(inspected: &ContainerInspectResponse) -> Option<Self> {
        let mode = inspected.host_config.as_ref()?.network_mode.as_deref()?;
        let networks = inspected.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
        let is_on_bridge =
            BRIDGES.contains(&mode) || networks.is_some_and(|networks| networks.contains_key(BRIDGES[0]));
        let labels = inspected.config.as_ref()?.labels.as_ref()?;
        if !is_on_bridge || !labels.contains_key(LABEL_SANDBOX) {
            return None;
        }
        // One made by an earlier version has none, until it is made anew.
        let program = guest::of(inspected)?;
        Some(Self { id: inspected.id.clone()?, life: inspected.state.as_ref()?.started_at.clone()?, program })
    }
}

impl DockerRuntime {
    /// Sees to it that a container that is to have a fence has one in its present life. One that is not running gets none.
    ///
    /// # Errors
    /// [`RuntimeError::Refused`] when it cannot have one: then nothing is to be run in it.
    pub(super) async fn guard(&self, runtime_id: &str) -> Result<(), RuntimeError> {
        if self.fencing(runtime_id) == Some(Fencing::Never) {
            return Ok(());
        }
        let inspected = self.look(runtime_id).await?;
        self.fence(&inspected, runtime_id).await
    }

    /// The same for a container that was just looked at under this id or name.
    pub(super) async fn fence(&self, inspected: &ContainerInspectResponse, asked: &str) -> Result<(), RuntimeError> {
        let state = inspected.state.clone().unwrap_or_default();
        let Some(wanted) = Wanted::of(inspected) else {
            // By its id alone: a name can be another's later.
            if inspected.id.as_deref() == Some(asked) {
                self.set_fencing(asked, Fencing::Never);
            }
            return Ok(());
        };
        let known = Fencing::Since(wanted.life.clone());
        if !state.running.unwrap_or(false) || self.fencing(&wanted.id).as_ref() == Some(&known) {
            return Ok(());
        }
        let mut argv = vec![wanted.program, "fence".to_owned()];
        argv.extend(own_addresses().iter().map(|address| format!("refuse={address}")));
        argv.extend(self.allowed.iter().map(|range| format!("allow={range}")));
        let config = ExecConfig {
            // It changes the network of the container, and nothing else has the right to.
            privileged: Some(true),
            user: Some("0:0".to_owned()),
            working_dir: Some("/".to_owned()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(argv),
            ..ExecConfig::default()
        };
        let said = self.exec_with(&wanted.id, config).await?.collect(READ_BUFFER).await?;
        if &said.stdout[..] != DONE {
            let detail = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).trim().to_owned();
            return Err(RuntimeError::Refused {
                detail: format!(
                    "the sandbox's network cannot be kept from private addresses, which takes a kernel with nf_tables: {detail}; \
                     the network mode \"none\" works without"
                ),
            });
        }
        self.set_fencing(&wanted.id, known);
        Ok(())
    }
}

/// Every address of the machine that this server is on. One that lives in a container knows only that.
fn own_addresses() -> BTreeSet<IpAddr> {
    let old = fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let new = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let lines: Vec<&str> = old.lines().map(str::trim).collect();
    let v4 = lines.windows(2).filter(|pair| pair[1] == "/32 host LOCAL").filter_map(|pair| {
        let address: Ipv4Addr = pair[0].strip_prefix("|-- ")?.parse().ok()?;
        Some(IpAddr::from(address))
    });
    let v6 = new.lines().filter_map(|line| u128::from_str_radix(line.split_whitespace().next()?, 16).ok());
    let v6 = v6.map(|number| IpAddr::from(Ipv6Addr::from(number)));
    v4.chain(v6).filter(|address| !address.is_loopback()).collect()
}
