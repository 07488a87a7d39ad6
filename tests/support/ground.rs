//! The place where a server keeps its sandboxes, and access to them that bypasses the server.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bollard::{
    Docker,
    query_parameters::{
        ListContainersOptionsBuilder, RemoveContainerOptionsBuilder, RestartContainerOptionsBuilder,
        StopContainerOptionsBuilder,
    },
};
use errand_embedded::{EmbeddedOptions, EmbeddedRuntime};
use errand_runtime::{LABEL_BOT, Runtime as _};

use rustix::process::{Pid, Signal, kill_process};

use super::{
    docker::{self, Image, left_out, skip},
    wait::eventually,
};

/// The variable that selects the runtime under test: `docker`, which is the default, or `embedded`.
const VARIABLE: &str = "ERRAND_TEST_RUNTIME";

/// The place where a server keeps its sandboxes.
#[derive(Clone)]
pub enum Ground {
    /// On a Docker engine.
    Docker(Docker),
    /// In its own data directory.
    Embedded(Arc<EmbeddedRuntime>, PathBuf),
}

impl Ground {
    /// The place for a server with this data directory. None: the runtime is not available here, and the test is skipped.
    pub async fn of(image: Image, data: &Path) -> Option<Self> {
        match std::env::var(VARIABLE).as_deref() {
            Err(_) | Ok("" | "docker") => docker::engine(image).await.map(Self::Docker),
            Ok("embedded") => {
                let runtime = EmbeddedRuntime::new(EmbeddedOptions::new(data, errand::guest::program()));
                match runtime.ping().await {
                    Ok(()) => Some(Self::Embedded(Arc::new(runtime), data.to_owned())),
                    Err(error) => {
                        skip(&error.to_string());
                        None
                    }
                }
            }
            Ok(other) => panic!("{VARIABLE} is docker or embedded, not {other}"),
        }
    }

    /// The runtime's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Docker(_) => "docker",
            Self::Embedded(..) => "embedded",
        }
    }

    /// The image that sandboxes are made of: an engine's image, or the programs of this machine.
    pub fn image(&self, image: Image) -> String {
        match self {
            Self::Docker(_) => image.name(),
            Self::Embedded(..) => "host".to_owned(),
        }
    }

    /// Whether sandboxes of this image have bash.
    pub fn has_bash(&self, image: Image) -> bool {
        matches!(self, Self::Embedded(..)) || image == Image::Debian
    }

    /// The user that commands run as by default.
    pub fn usual_uid(&self) -> &'static str {
        match self {
            Self::Docker(_) => "0",
            Self::Embedded(..) => "1000",
        }
    }

    /// The engine, for tests about containers; none for the embedded runtime, where the test does not apply.
    pub fn docker(&self) -> Option<Docker> {
        match self {
            Self::Docker(docker) => Some(docker.clone()),
            Self::Embedded(..) => {
                left_out("it is about containers of an engine");
                None
            }
        }
    }

    /// Runs a script in a sandbox.
    pub async fn exec(&self, sandbox: &str, script: &str) -> String {
        match self {
            Self::Docker(docker) => docker::exec(docker, sandbox, script).await,
            Self::Embedded(runtime, _) => {
                let argv = ["sh", "-c", script].map(str::to_owned);
                let said = runtime.exec(sandbox, &argv).await.unwrap().collect(1 << 20).await.unwrap();
                String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned()
            }
        }
    }

    /// Kills a sandbox, as a crash would, and starts it again.
    pub async fn restart(&self, sandbox: &str) {
        match self {
            Self::Docker(docker) => {
                let options = RestartContainerOptionsBuilder::default().t(0).build();
                docker.restart_container(sandbox, Some(options)).await.unwrap();
            }
            Self::Embedded(runtime, data) => {
                crash(runtime, data, sandbox).await;
                runtime.start(sandbox).await.unwrap();
            }
        }
    }

    /// Kills a sandbox, as a crash would.
    pub async fn stop(&self, sandbox: &str) {
        match self {
            Self::Docker(docker) => {
                let options = StopContainerOptionsBuilder::default().t(0).build();
                docker.stop_container(sandbox, Some(options)).await.unwrap();
            }
            Self::Embedded(runtime, data) => crash(runtime, data, sandbox).await,
        }
    }

    /// Makes the sandbox's own first process the one that the kernel kills when memory runs out.
    pub async fn expose(&self, sandbox: &str) {
        match self {
            Self::Docker(_) => {
                let said = self.exec(sandbox, "echo 1000 >/proc/1/oom_score_adj").await;
                assert_eq!(said, "");
            }
            Self::Embedded(_, data) => {
                for process in processes(data, sandbox) {
                    fs::write(format!("/proc/{}/oom_score_adj", process.as_raw_nonzero()), "1000").unwrap();
                }
            }
        }
    }

    /// Removes a sandbox.
    pub async fn remove(&self, sandbox: &str) {
        match self {
            Self::Docker(docker) => {
                let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
                docker.remove_container(sandbox, Some(options)).await.unwrap();
            }
            Self::Embedded(runtime, _) => runtime.remove(sandbox).await.unwrap(),
        }
    }

    /// A copy that another async runtime can use.
    pub fn again(self) -> Self {
        match self {
            Self::Docker(docker) => Self::Docker(docker::client().unwrap_or(docker)),
            embedded @ Self::Embedded(..) => embedded,
        }
    }

    /// Removes a sandbox when a test is over, in any state.
    pub async fn clear(&self, sandbox: &str) {
        let removal = async {
            match self {
                Self::Docker(docker) => {
                    let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
                    docker.remove_container(sandbox, Some(options)).await.map_err(|error| error.to_string())
                }
                Self::Embedded(runtime, _) => runtime.remove(sandbox).await.map_err(|error| error.to_string()),
            }
        };
        if !matches!(tokio::time::timeout(Duration::from_secs(30), removal).await, Ok(Ok(()))) {
            eprintln!("the sandbox {sandbox} was not removed, or is gone already");
        }
    }

    /// The sandboxes of a server, running or not: those of bots whose names have this prefix, and all in its data directory.
    pub async fn sandboxes(&self, prefix: &str, data: &Path) -> Vec<String> {
        match self {
            Self::Docker(docker) => containers(docker, prefix).await,
            Self::Embedded(..) => {
                let entries = fs::read_dir(data.join("sandboxes")).into_iter().flatten().flatten();
                let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
                names.filter(|name| !name.starts_with('.')).collect()
            }
        }
    }
}

/// The processes of this machine that make up a sandbox: its init and the process that waits for the init.
fn processes(data: &Path, sandbox: &str) -> Vec<Pid> {
    let name = sandbox.rsplit('@').next().unwrap();
    // Their arguments contain the name of the sandbox's current life.
    let life = fs::read_to_string(data.join("sandboxes").join(name).join("life")).unwrap();
    let carries = |entry: &fs::DirEntry| {
        let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&arguments).contains(life.trim())
    };
    let entries = fs::read_dir("/proc").unwrap().flatten().filter(carries);
    entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// Kills the processes of this machine that make up a sandbox.
async fn crash(runtime: &EmbeddedRuntime, data: &Path, sandbox: &str) {
    for process in processes(data, sandbox) {
        // The process may be gone already.
        let _ = kill_process(process, Signal::KILL);
    }
    eventually("the sandbox is stopped", async || (!runtime.inspect(sandbox).await.unwrap().running).then_some(()))
        .await;
}

async fn containers(docker: &Docker, prefix: &str) -> Vec<String> {
    let filters = [("label".to_owned(), vec![LABEL_BOT.to_owned()])].into();
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let listed = docker.list_containers(Some(options)).await.unwrap_or_default();
    let ours = listed.into_iter().filter(|container| {
        let bot = container.labels.as_ref().and_then(|labels| labels.get(LABEL_BOT));
        bot.is_some_and(|bot| bot.starts_with(prefix))
    });
    ours.filter_map(|container| container.id).collect()
}
