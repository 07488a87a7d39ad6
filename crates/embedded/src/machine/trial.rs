//! Trying what bubblewrap is allowed to do: a sandbox around `true`.

use std::{
    fs::{self, File},
    io::{Seek as _, Write as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
};

use rustix::fs::MemfdFlags;

use super::USUAL;
use crate::seccomp;

/// The oldest bubblewrap with everything that is asked of it.
pub(super) const LEAST: [u32; 3] = [0, 4, 0];
/// The first one with `--size`.
pub(super) const SIZES: [u32; 3] = [0, 7, 0];
/// Whom root tries it as: a kernel may refuse to others what it allows to root, and no sandbox is root's.
const NOBODY: u32 = 65_534;
/// The most of bubblewrap's words that are repeated.
const WORDS: usize = 300;

/// Something besides namespaces that may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hurdle {
    /// A fresh `/proc`.
    Proc,
    /// A filter of system calls.
    Filter,
}

/// Tries with one bubblewrap.
#[derive(Debug)]
pub(super) struct Trial<'p> {
    bwrap: &'p Path,
}

impl<'p> Trial<'p> {
    pub(super) fn new(bwrap: &'p Path) -> Self {
        Self { bwrap }
    }

    /// Makes a sandbox with these hurdles and ends it.
    ///
    /// # Errors
    /// What was said by whatever refused.
    pub(super) fn run(&self, hurdles: &[Hurdle]) -> Result<(), String> {
        let mut command = Command::new(self.bwrap);
        command.args(["--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net"]);
        command.args(["--unshare-cgroup-try", "--cap-drop", "ALL", "--ro-bind", "/", "/", "--dev", "/dev"]);
        command.stdin(Stdio::null());
        if hurdles.contains(&Hurdle::Proc) {
            command.args(["--proc", "/proc"]);
        }
        if hurdles.contains(&Hurdle::Filter) {
            // Its standard input is the one descriptor that can be handed over without more ado.
            command.args(["--seccomp", "0"]).stdin(filter()?);
        }
        if rustix::process::geteuid().is_root() && ["uid_map", "gid_map"].iter().all(|map| has_nobody(map)) {
            command.uid(NOBODY).gid(NOBODY);
        }
        // Whichever directory this process is in, that user need not be allowed there.
        let output = command.args(["--", "true"]).current_dir("/").env_clear().env("PATH", USUAL.join(":")).output();
        let output = output.map_err(|error| format!("{}: {error}", self.bwrap.display()))?;
        if output.status.success() {
            return Ok(());
        }
        let said: String = String::from_utf8_lossy(&output.stderr).trim().chars().take(WORDS).collect();
        Err(if said.is_empty() { output.status.to_string() } else { said.replace('\n', "; ") })
    }
}

/// Whether there is such a user, or group: in some containers there is nobody but root, and sandboxes are root's as well.
fn has_nobody(map: &str) -> bool {
    let text = fs::read_to_string(format!("/proc/self/{map}")).unwrap_or_default();
    text.lines().any(|line| {
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        matches!(numbers[..], [first, _, count] if (first..first + count).contains(&u64::from(NOBODY)))
    })
}

/// The filter that sandboxes get, to be read from its beginning.
fn filter() -> Result<File, String> {
    let program = seccomp::program().map_err(|error| error.to_string())?;
    let file = rustix::fs::memfd_create("errand-filter", MemfdFlags::CLOEXEC).map_err(|error| error.to_string())?;
    let mut file = File::from(file);
    file.write_all(&program).and_then(|()| file.rewind()).map_err(|error| error.to_string())?;
    Ok(file)
}

/// The version that a bubblewrap says it has.
pub(super) fn version(bwrap: &Path) -> Option<[u32; 3]> {
    let output = Command::new(bwrap).arg("--version").stdin(Stdio::null()).output().ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

/// The numbers of `bubblewrap 0.8.0`.
pub(super) fn parse_version(said: &str) -> Option<[u32; 3]> {
    let mut numbers = said.trim().strip_prefix("bubblewrap ")?.split('.').map(|number| number.parse().ok());
    let version = [numbers.next()??, numbers.next()??, numbers.next().unwrap_or(Some(0))?];
    Some(version)
}
