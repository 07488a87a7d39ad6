//! A sandbox that tries to escape, another sandbox beside it, and a file and a process of the machine: the latter must not be harmed.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::Arc,
};

use errand_embedded::{Availability, EmbeddedOptions, EmbeddedRuntime, HostCapabilities};
use errand_runtime::{Found, Runtime as _};
use errand_task::SandboxSpec;
use tempfile::TempDir;

use crate::support::{
    docker::skip,
    embedded::{self, Sandbox},
    wait::soon,
};

/// A text that no process inside may find or change.
const SECRET: &str = "errand-test-secret-";
/// The disk size of the sandboxes.
const DISK: u64 = 64 << 20;

/// The sandbox that tries to escape, the one beside it, and what must not be harmed on the machine.
pub struct Pair {
    pub inside: Sandbox,
    other: Found,
    machine: Bystander,
}

/// A file and a process of the machine.
struct Bystander {
    directory: TempDir,
    secret: String,
    process: Child,
}

/// The users that the attempts run as: the sandbox's own, and root, as far as root inside is root.
pub const USERS: [Option<&str>; 2] = [None, Some("root")];

/// Two sandboxes; none when they cannot be made here, and the test is skipped.
pub async fn pair() -> Option<Pair> {
    tuned(|_| {}).await
}

/// Like [`pair`], with commands that run as this user.
pub async fn pair_as(user: Option<&str>) -> Option<Pair> {
    tuned(|spec| spec.user = user.map(str::to_owned)).await
}

/// Like [`pair`], with a changed spec.
pub async fn tuned(tune: impl Fn(&mut SandboxSpec)) -> Option<Pair> {
    if !Path::new("/usr/bin/python3").exists() {
        skip("no /usr/bin/python3 for what is tried inside");
        return None;
    }
    let machine = embedded::machine().await?;
    let options =
        EmbeddedOptions { disk_bytes: DISK, ..EmbeddedOptions::new(machine.data_dir(), errand::guest::program()) };
    let runtime = Arc::new(EmbeddedRuntime::new(options));
    let mut request = embedded::request("host".to_owned());
    tune(&mut request.spec);
    let found = runtime.create(&request).await.expect("make a sandbox");
    let inside = Sandbox { machine, runtime, found };
    let other = inside.runtime.create(&embedded::request("host".to_owned())).await.expect("make another sandbox");
    let pair = Pair { inside, other, machine: Bystander::new() };
    let secret = &pair.machine.secret;
    pair.beside(&format!("echo {secret} >/workspace/kept; chmod 666 /workspace/kept; sleep 1000 >/dev/null 2>&1 &"))
        .await;
    Some(pair)
}

/// Whether this machine limits something, such as `memory-limit`. If not, prints that the test is skipped; as root in CI, that is a
/// failure.
pub fn is_limited(what: &str) -> bool {
    let host = HostCapabilities::detect();
    let Some(capability) = host.all().iter().find(|capability| capability.name == what) else {
        panic!("{what} is not probed")
    };
    let Availability::Degraded { why, .. } = &capability.availability else { return true };
    match is_root() {
        true => skip(why),
        false => say_skipped(why),
    }
    false
}

/// Whether the tests run as root; only root can `what`. Otherwise prints that the test is skipped. Even in CI that is no failure: an
/// ordinary user can never do it.
pub fn can_as_root(what: &str) -> bool {
    if !is_root() {
        say_skipped(&format!("only root can {what}"));
    }
    is_root()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Bypasses the test harness, which hides the output of passing tests.
fn say_skipped(why: &str) {
    writeln!(io::stderr(), "SKIPPED for an ordinary user: {why}").expect("stderr takes a line");
}

impl Pair {
    /// Runs an attempt, a shell script, and returns what it printed.
    pub async fn sh(&self, script: &str) -> String {
        soon("an attempt in a shell", self.inside.sh(script)).await
    }

    /// Runs an attempt, a Python program.
    pub async fn python(&self, script: &str) -> String {
        self.inside
            .runtime
            .put_file(self.inside.id(), "/workspace/attempt.py", script.as_bytes(), 0o755)
            .await
            .unwrap();
        self.sh("python3 /workspace/attempt.py").await
    }

    /// Runs a shell script in the other sandbox.
    pub async fn beside(&self, script: &str) -> String {
        let argv = ["sh", "-c", script].map(str::to_owned);
        let said = self.inside.runtime.exec(&self.other.runtime_id, &argv).await.unwrap().collect(1 << 20);
        let said = soon("a command in the other sandbox", said).await.unwrap();
        format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr))
    }

    /// The text that no command inside may obtain.
    pub fn secret(&self) -> &str {
        &self.machine.secret
    }

    /// A file of the machine that holds the secret, and that every user of the machine may read and write.
    pub fn secret_file(&self) -> PathBuf {
        self.machine.file()
    }

    /// The pid of a process on the machine, which runs as the user of these tests.
    pub fn process(&self) -> u32 {
        self.machine.process.id()
    }

    /// The pid of the sandbox's init outside.
    pub fn init(&self) -> u32 {
        let text = fs::read(self.inside.directory().join("init.json")).unwrap();
        let said: serde_json::Value = serde_json::from_slice(&text).unwrap();
        said["child-pid"].as_u64().unwrap().try_into().unwrap()
    }

    /// Asserts that the sandbox that tries to escape still answers, and that everything else is unchanged.
    pub async fn is_unharmed(&mut self) {
        assert_eq!(self.sh("echo here").await, "here\n", "the sandbox itself");
        self.others_are_unharmed().await;
    }

    /// Asserts that everything but the sandbox that tries to escape is unchanged.
    pub async fn others_are_unharmed(&mut self) {
        assert!(self.machine.process.try_wait().unwrap().is_none(), "a process of the machine has ended");
        assert_eq!(fs::read_to_string(self.machine.file()).unwrap(), self.machine.secret, "a file of the machine");
        assert_eq!(fs::read_dir(self.machine.directory.path()).unwrap().count(), 1, "what is beside that file");
        assert!(Command::new("true").status().unwrap().success(), "the machine starts processes");
        let script = "cat /workspace/kept; ls /workspace /tmp; grep -lx sleep /proc/[0-9]*/comm | wc -l; \
                      head -c 1M /dev/zero >/workspace/more && rm /workspace/more && echo written";
        let expected = format!("{}\n/tmp:\n\n/workspace:\nkept\n1\nwritten\n", self.machine.secret);
        assert_eq!(self.beside(script).await, expected, "the other sandbox");
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.inside.machine.remove(&self.other.name);
    }
}

impl Bystander {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        // Permissions must not be what keeps a process out: only the sandbox may.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let secret = format!("{SECRET}{}", uuid::Uuid::new_v4());
        let process = Command::new("sleep").arg("1000").env("ERRAND_TEST_SECRET", &secret).spawn().unwrap();
        let bystander = Self { directory, secret, process };
        fs::write(bystander.file(), &bystander.secret).unwrap();
        fs::set_permissions(bystander.file(), fs::Permissions::from_mode(0o666)).unwrap();
        bystander
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("secret")
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
