//! A sandbox with the resident bridge, and the commands that run through it.

use std::{any::Any, sync::Arc, time::Duration};

use bollard::models::ContainerCreateBody;
use bytes::Bytes;
use errand_bridge::{
    Activity, Attachment, Bridges, Finding, Input, InputError, InputTaken, LaunchSettings, OutputPiece, Piece, Report,
    SandboxBridge,
};
use errand_runtime::{Runtime, Runtimes, SandboxRef};
use errand_task::{Ending, Gap, Nonce, ProcessIdentity, Program, ResourceUsage, TaskId, TaskSpec};

use crate::support::{
    docker::{self, Image},
    embedded::{self, Root},
    wait::{eventually, soon},
};

/// The root of the task directories of every bridge in these tests.
pub const ROOT: &str = "/tmp/errand";

/// The settings of every launch in these tests.
pub const SETTINGS: LaunchSettings = LaunchSettings {
    grace: Duration::from_secs(1),
    quiet_after: Duration::from_millis(400),
    look_every: Duration::from_millis(200),
};

/// The kinds of sandboxes.
#[derive(Debug, Clone, Copy)]
pub enum Where {
    /// A container of this image.
    Docker(Image),
    /// An embedded sandbox.
    Embedded(Root),
}

/// Every kind of sandbox.
pub const EVERYWHERE: [Where; 3] =
    [Where::Docker(Image::Busybox), Where::Docker(Image::Debian), Where::Embedded(Root::Host)];

impl From<Image> for Where {
    fn from(image: Image) -> Self {
        Self::Docker(image)
    }
}

/// A running sandbox and a bridge to it.
pub struct Place {
    pub runtime: Arc<dyn Runtime>,
    pub bridge: Arc<dyn SandboxBridge>,
    /// The runtime's id of the sandbox.
    pub sandbox: String,
    _keep: Box<dyn Any + Send + Sync>,
}

/// A launched command.
pub struct Launched {
    pub id: TaskId,
    pub nonce: Nonce,
    pub attachment: Attachment,
}

/// The reports about a command.
#[derive(Debug, Default)]
pub struct Ran {
    pub process: Option<ProcessIdentity>,
    pub pieces: Vec<OutputPiece>,
    /// The positions at which reports continued after skipped output.
    pub skips: Vec<u64>,
    pub activities: Vec<Activity>,
    pub ending: Option<Ending>,
    pub usage: Option<ResourceUsage>,
    pub bytes: Option<u64>,
    pub gap: Option<Gap>,
}

impl Ran {
    pub fn text(&self) -> String {
        self.pieces.iter().map(|piece| String::from_utf8_lossy(&piece.bytes)).collect()
    }
}

/// A shell command that may run for one minute.
pub fn text(command: &str) -> TaskSpec {
    TaskSpec::new(Program::Shell { text: command.to_owned(), shell: None }, Duration::from_secs(60))
}

impl Place {
    /// A sandbox of this kind; none, and the test is skipped, when it cannot be created here.
    pub async fn on(place: impl Into<Where>) -> Option<Self> {
        match place.into() {
            Where::Docker(image) => Self::tuned(image, |_| {}).await,
            Where::Embedded(root) => {
                let sandbox = embedded::sandbox(root).await?;
                Some(Self::of(sandbox.runtime.clone(), sandbox.id().to_owned(), sandbox))
            }
        }
    }

    /// A container of this image with a changed configuration.
    pub async fn tuned(image: Image, tune: impl FnOnce(&mut ContainerCreateBody)) -> Option<Self> {
        let docker = docker::engine(image).await?;
        let container = docker::container(&docker, image, tune).await;
        Some(Self::of(Arc::new(docker::runtime()), container.id.clone(), container))
    }

    fn of(runtime: Arc<dyn Runtime>, sandbox: String, keep: impl Any + Send + Sync) -> Self {
        let bridge = bridge(&runtime, &sandbox);
        Self { runtime, bridge, sandbox, _keep: Box::new(keep) }
    }

    /// A second bridge, like that of another server.
    pub fn another(&self) -> Arc<dyn SandboxBridge> {
        bridge(&self.runtime, &self.sandbox)
    }

    /// Runs a script in the sandbox without going through the bridge, and returns what the script prints.
    pub async fn sh(&self, script: &str) -> String {
        sh(&*self.runtime, &self.sandbox, script).await
    }

    pub async fn launch(&self, spec: &TaskSpec) -> Launched {
        let (id, nonce) = (TaskId::new(), Nonce::new());
        let attachment = self.bridge.launch(id, nonce, spec, SETTINGS, &[]).await.unwrap();
        Launched { id, nonce, attachment }
    }

    /// Runs a command to its end.
    pub async fn run(&self, spec: &TaskSpec) -> Ran {
        self.launch(spec).await.ran().await
    }

    pub async fn attach(&self, launched: &Launched, from: u64) -> Launched {
        let attachment = self.bridge.attach(launched.id, launched.nonce, from, &[]).await.unwrap();
        Launched { attachment, ..*launched }
    }

    pub async fn find(&self, launched: &Launched) -> Finding {
        let asked = [(launched.id, launched.nonce)];
        self.bridge.probe(&asked, false).await.unwrap().remove(0)
    }

    pub async fn find_until(&self, launched: &Launched, what: &str, done: impl Fn(&Finding) -> bool) -> Finding {
        eventually(what, async || Some(self.find(launched).await).filter(&done)).await
    }

    pub async fn write(&self, launched: &Launched, data: &str, end: bool) -> Result<InputTaken, InputError> {
        let input = Input { offset: None, data: Bytes::copy_from_slice(data.as_bytes()), end };
        self.bridge.write_input(launched.id, input).await
    }

    pub async fn log(&self, launched: &Launched) -> Vec<OutputPiece> {
        let piece = Piece::From { offset: 0, limit: 1 << 40 };
        self.bridge.read(launched.id, piece).await.unwrap().collect().await.unwrap()
    }

    /// How many processes match this grep pattern with their program and arguments.
    pub async fn running(&self, pattern: &str) -> usize {
        let script = format!(
            "for f in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$f; echo; done 2>/dev/null | grep -c '^{pattern} $'"
        );
        self.sh(&script).await.trim().parse().unwrap()
    }

    /// The pids of the processes with this name, as the kernel truncates it.
    pub async fn named(&self, name: &str) -> Vec<u32> {
        let script = format!("grep -lx '{name}' /proc/[0-9]*/comm 2>/dev/null | cut -d/ -f3");
        self.sh(&script).await.lines().map(|pid| pid.parse().unwrap()).collect()
    }
}

/// A new bridge to a sandbox, as a server that has just started has it.
fn bridge(runtime: &Arc<dyn Runtime>, sandbox: &str) -> Arc<dyn SandboxBridge> {
    let bridges = Bridges::new(Runtimes::one(Arc::clone(runtime)), ROOT);
    bridges.bridge(&SandboxRef::new(runtime.name(), sandbox)).expect("the only runtime")
}

/// Runs a script in a sandbox and returns what it prints.
pub async fn sh(runtime: &dyn Runtime, sandbox: &str, script: &str) -> String {
    let argv = ["sh", "-c", script].map(str::to_owned);
    let said = runtime.exec(sandbox, &argv).await.unwrap().collect(1 << 20).await.unwrap();
    String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned()
}

impl Launched {
    /// The next report that satisfies `wanted`. Skips the reports before it.
    pub async fn until<T>(&mut self, what: &str, mut wanted: impl FnMut(Report) -> Option<T>) -> T {
        soon(what, async {
            loop {
                let report = self.attachment.next().await.unwrap();
                assert_ne!(report, Report::Broken, "the attachment broke before: {what}");
                if let Some(found) = wanted(report) {
                    return found;
                }
            }
        })
        .await
    }

    /// Waits until the output contains this text.
    pub async fn until_output(&mut self, wanted: &str) {
        let mut seen = String::new();
        self.until(wanted, |report| {
            if let Report::Output(piece) = report {
                seen.push_str(&String::from_utf8_lossy(&piece.bytes));
            }
            seen.contains(wanted).then_some(())
        })
        .await;
    }

    /// Reads until the end, or until the attachment breaks.
    pub async fn ran(mut self) -> Ran {
        let mut ran = Ran::default();
        soon("the end of the command", async {
            loop {
                match self.attachment.next().await.unwrap() {
                    Report::Started { process, .. } => ran.process = Some(process),
                    Report::Output(piece) => ran.pieces.push(piece),
                    Report::Skipped { to } => ran.skips.push(to),
                    Report::Activity(activity) => ran.activities.push(activity),
                    Report::Ended { ending, usage, .. } => (ran.ending, ran.usage) = (Some(ending), usage),
                    Report::Over { bytes, gap, .. } => (ran.bytes, ran.gap) = (Some(bytes), gap),
                    Report::Watching | Report::Matched { .. } => {}
                    Report::Claimed | Report::Broken => return,
                }
            }
        })
        .await;
        ran
    }
}
