//! A sandbox that tries to get out, another beside it, and something of the machine: what must not be harmed.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::Arc,
};

use errand_embedded::{EmbeddedOptions, EmbeddedRuntime, Machine, Verdict};
use errand_runtime::{Found, Runtime as _};
use errand_task::SandboxSpec;
use tempfile::TempDir;

use crate::support::{
    docker::skip,
    embedded::{self, Sandbox},
    wait::soon,
};

/// What nobody inside is to find or to change.
const SECRET: &str = "errand-test-secret-";
/// How sandboxes are made of which one tries to leave.
const DISK: u64 = 64 << 20;

/// The sandbox that tries, the one beside it, and what the machine has to lose.
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

/// The users that sandboxes are tried as: their own, and root as far as it is root inside.
pub const USERS: [Option<&str>; 2] = [None, Some("root")];

/// Two sandboxes; none when they cannot be made here, and the test is skipped.
pub async fn pair() -> Option<Pair> {
    tuned(|_| {}).await
}

/// The same, whose commands are another user's.
pub async fn pair_as(user: Option<&str>) -> Option<Pair> {
    tuned(|spec| spec.user = user.map(str::to_owned)).await
}

/// The same, made differently.
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

/// Whether this machine limits something, such as `memory-limit`. Where it does not, that is said: for root it is a failure in CI.
pub fn is_limited(what: &str) -> bool {
    let machine = Machine::look();
    let Some(part) = machine.parts().iter().find(|part| part.name == what) else { panic!("{what} is not looked at") };
    let Verdict::Degraded { why, .. } = &part.verdict else { return true };
    match is_root() {
        true => skip(why),
        false => say_skipped(why),
    }
    false
}

/// Whether this is root, who alone can `what`. To others it is said that the test is skipped: they lack nothing that they could have.
pub fn can_as_root(what: &str) -> bool {
    if !is_root() {
        say_skipped(&format!("only root can {what}"));
    }
    is_root()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Past the test harness, which hides what a test that passes prints.
fn say_skipped(why: &str) {
    writeln!(io::stderr(), "SKIPPED for an ordinary user: {why}").expect("stderr takes a line");
}

impl Pair {
    /// Tries something, as a shell script, and returns what it printed.
    pub async fn sh(&self, script: &str) -> String {
        soon("an attempt in a shell", self.inside.sh(script)).await
    }

    /// Tries something, as a program in Python.
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

    /// The text that no command inside is to come by.
    pub fn secret(&self) -> &str {
        &self.machine.secret
    }

    /// A file of the machine that holds it, and that every user of the machine may read and write.
    pub fn secret_file(&self) -> PathBuf {
        self.machine.file()
    }

    /// A process of the machine, of the user that runs this.
    pub fn process(&self) -> u32 {
        self.machine.process.id()
    }

    /// The number of a sandbox's init outside.
    pub fn init(&self) -> u32 {
        let text = fs::read(self.inside.directory().join("init.json")).unwrap();
        let said: serde_json::Value = serde_json::from_slice(&text).unwrap();
        said["child-pid"].as_u64().unwrap().try_into().unwrap()
    }

    /// The sandbox that tries answers, and everything else is as it was.
    pub async fn is_unharmed(&mut self) {
        assert_eq!(self.sh("echo here").await, "here\n", "the sandbox itself");
        self.others_are_unharmed().await;
    }

    /// All but the sandbox that tries is as it was.
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
        // Only the sandbox keeps anybody from it.
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
