//! The real Docker engine that tests run against, and containers that are removed when a test ends.

use std::{env, io::Write as _, thread, time::Duration};

use bollard::{
    API_DEFAULT_VERSION, Docker,
    exec::StartExecResults,
    models::{ContainerCreateBody, ExecConfig, HostConfig},
    query_parameters::{CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder},
};
use errand_runtime::{DockerRuntime, LABEL_ADOPT_TENANT};
use errand_task::TaskId;
use futures_util::StreamExt as _;

/// The images that everything is tested on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Image {
    /// Only busybox: POSIX sh, no bash.
    Busybox,
    /// Debian: bash and the GNU tools.
    Debian,
}

impl Image {
    /// The image's name on the engine: `ERRAND_TEST_IMAGE_BUSYBOX` and `ERRAND_TEST_IMAGE_DEBIAN`, or the public images.
    pub fn name(self) -> String {
        let (variable, default) = match self {
            Self::Busybox => ("ERRAND_TEST_IMAGE_BUSYBOX", "busybox:stable"),
            Self::Debian => ("ERRAND_TEST_IMAGE_DEBIAN", "debian:bookworm-slim"),
        };
        env::var(variable).unwrap_or_else(|_| default.to_owned())
    }
}

/// The engine's address.
pub fn host() -> Option<String> {
    env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty())
}

/// A client of the engine; none when it cannot be created.
pub fn client() -> Option<Docker> {
    let host = host().unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned());
    Docker::connect_with_unix(&host, 60, API_DEFAULT_VERSION).ok()
}

/// Reports that a test is skipped, and why. In CI a skip fails the test.
pub fn skip(missing: &str) {
    assert!(env::var_os("CI").is_none(), "CI must have what the tests need: {missing}");
    // Bypasses the test harness, which hides the output of passing tests.
    writeln!(std::io::stderr(), "SKIPPED: {missing}").expect("stderr takes a line");
}

/// Reports that a test does not apply to the runtime under test.
pub fn left_out(why: &str) {
    writeln!(std::io::stderr(), "LEFT OUT: {why}").expect("stderr takes a line");
}

/// The engine with the test image on it. None: the engine or the image is missing, and the test reports a skip; in CI that is a failure.
pub async fn engine(image: Image) -> Option<Docker> {
    let missing = match client() {
        None => "no Docker engine".to_owned(),
        Some(docker) if docker.ping().await.is_err() => "no Docker engine answers".to_owned(),
        Some(docker) => match docker.inspect_image(&image.name()).await {
            Ok(_) => return Some(docker),
            Err(_) => format!("the engine has no image {} (docker pull {0})", image.name()),
        },
    };
    skip(&missing);
    None
}

/// The runtime under test.
pub fn runtime() -> DockerRuntime {
    DockerRuntime::new(host().as_deref(), errand::guest::program())
}

/// A running container that Errand did not create. Removed when dropped.
pub struct Container {
    /// The container's full id.
    pub id: String,
    /// The container's name.
    pub name: String,
}

/// The configuration of a test container: an init that reaps zombies, and no network, which no test needs.
pub fn host_config() -> HostConfig {
    HostConfig { init: Some(true), network_mode: Some("none".to_owned()), ..HostConfig::default() }
}

/// Starts a container that does nothing, has an init that reaps zombies, and may be adopted by bots without a token. `tune` changes the
/// configuration.
pub async fn container(docker: &Docker, image: Image, tune: impl FnOnce(&mut ContainerCreateBody)) -> Container {
    let name = format!("errand-test-{}", TaskId::new());
    let mut body = ContainerCreateBody {
        image: Some(image.name()),
        entrypoint: Some(["sh", "-c", "while :; do sleep 86400; done"].map(str::to_owned).to_vec()),
        host_config: Some(host_config()),
        labels: Some([(LABEL_ADOPT_TENANT.to_owned(), "local".to_owned())].into()),
        ..ContainerCreateBody::default()
    };
    tune(&mut body);
    let options = CreateContainerOptionsBuilder::default().name(&name).build();
    let created = docker.create_container(Some(options), body).await.expect("create a container");
    let container = Container { id: created.id, name };
    docker.start_container(&container.id, None).await.expect("start a container");
    container
}

/// Removes a container by name or id, in any state.
pub fn remove(container: &str) {
    let container = container.to_owned();
    // A destructor cannot block on the async runtime that it runs on.
    let removal = thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
            if let Some(docker) = client() {
                let removal = docker.remove_container(&container, Some(options));
                if !matches!(tokio::time::timeout(Duration::from_secs(30), removal).await, Ok(Ok(()))) {
                    eprintln!("container {container} was not removed, or is gone already");
                }
            }
        });
    });
    if removal.join().is_err() {
        eprintln!("a container was not removed");
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        remove(&self.id);
    }
}

/// Runs a shell script in a container without going through the server, and returns what the script printed.
pub async fn exec(docker: &Docker, container: &str, script: &str) -> String {
    let config = ExecConfig {
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(["sh", "-c", script].map(str::to_owned).to_vec()),
        ..ExecConfig::default()
    };
    let created = docker.create_exec(container, config).await.expect("prepare a process");
    let StartExecResults::Attached { mut output, .. } = docker.start_exec(&created.id, None).await.expect("start it")
    else {
        panic!("not attached to a process")
    };
    let mut said = Vec::new();
    while let Some(chunk) = output.next().await {
        said.extend_from_slice(&chunk.expect("what a process prints").into_bytes());
    }
    String::from_utf8_lossy(&said).into_owned()
}
