//! Finds out by experiment what the kernel, or a container around this process, lets bubblewrap do.

use std::{
    fs::{self, File},
    io::{Seek as _, Write as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
};

use rustix::fs::MemfdFlags;

use super::{
    Availability, HostCapability,
    programs::DIRECTORIES,
    remedy::{self, Distribution},
};
use crate::seccomp;

/// The capabilities that [`kernel`] probes.
pub(super) const KERNEL: [&str; 3] = ["user-namespaces", "proc", "seccomp"];
/// What their details say when they work.
const WORKING: [&str; 3] = ["can be made", "can be mounted", "filters can be installed"];
/// A server that runs as root probes with this user id and group id: sandboxes do not run as root, and a kernel may allow more to root.
const NOBODY: u32 = 65_534;
/// The most characters of bubblewrap's error message that are shown.
const MESSAGE_LIMIT: usize = 300;

/// A feature that the probe can request in addition to namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Feature {
    /// A new mount of `/proc`.
    Proc,
    /// A filter of system calls.
    Filter,
}

/// Probes the kernel. One probe tests all features at once; only when it fails, further ones find out which feature fails.
pub(super) fn kernel(bwrap: &Path, distribution: &Distribution) -> Vec<HostCapability> {
    if run(bwrap, &[Feature::Proc, Feature::Filter]).is_ok() {
        return KERNEL
            .into_iter()
            .zip(WORKING)
            .map(|(name, detail)| HostCapability { name, availability: Availability::ok(detail) })
            .collect();
    }
    let probe = |index: usize, features: &[Feature], why: &str, remedy: String| {
        let availability = match run(bwrap, features) {
            Ok(()) => Availability::ok(WORKING[index]),
            Err(message) => Availability::missing(format!("{why}: {message}"), remedy),
        };
        HostCapability { name: KERNEL[index], availability }
    };
    let namespaces = probe(0, &[], "the kernel makes none for ordinary users", remedy::namespaces(distribution));
    if matches!(namespaces.availability, Availability::Missing { .. }) {
        let untried = [KERNEL[1], KERNEL[2]].map(|name| HostCapability {
            name,
            availability: Availability::missing(
                "cannot be tried without user namespaces",
                remedy::namespaces(distribution),
            ),
        });
        return [namespaces].into_iter().chain(untried).collect();
    }
    let proc = "a container masks parts of /proc, so the kernel refuses a new mount of it";
    let filter = "the kernel refuses the filter of system calls";
    vec![
        namespaces,
        probe(1, &[Feature::Proc], proc, remedy::MASKED_PROC.to_owned()),
        probe(2, &[Feature::Filter], filter, remedy::NO_FILTER.to_owned()),
    ]
}

/// Runs `true` in a sandbox with these features.
///
/// # Errors
/// The error message of bubblewrap, or why it was not started.
fn run(bwrap: &Path, features: &[Feature]) -> Result<(), String> {
    let mut command = Command::new(bwrap);
    command.args(["--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net"]);
    command.args(["--unshare-cgroup-try", "--cap-drop", "ALL", "--ro-bind", "/", "/", "--dev", "/dev"]);
    command.stdin(Stdio::null());
    if features.contains(&Feature::Proc) {
        command.args(["--proc", "/proc"]);
    }
    if features.contains(&Feature::Filter) {
        // Standard input is the one descriptor that `Command` passes on without unsafe code.
        command.args(["--seccomp", "0"]).stdin(filter()?);
    }
    if rustix::process::geteuid().is_root() && ["uid_map", "gid_map"].iter().all(|map| maps_nobody(map)) {
        command.uid(NOBODY).gid(NOBODY);
    }
    // The user NOBODY may be unable to enter this process's working directory.
    let output = command.args(["--", "true"]).current_dir("/").env_clear().env("PATH", DIRECTORIES.join(":")).output();
    let output = output.map_err(|error| format!("{}: {error}", bwrap.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let message: String = String::from_utf8_lossy(&output.stderr).trim().chars().take(MESSAGE_LIMIT).collect();
    Err(if message.is_empty() { output.status.to_string() } else { message.replace('\n', "; ") })
}

/// Whether the id [`NOBODY`] exists in this user namespace. Some containers have root only; there, sandboxes run as root too.
fn maps_nobody(map: &str) -> bool {
    let text = fs::read_to_string(format!("/proc/self/{map}")).unwrap_or_default();
    text.lines().any(|line| {
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        matches!(numbers[..], [first, _, count] if (first..first + count).contains(&u64::from(NOBODY)))
    })
}

/// The filter that sandboxes get, as a file at its start.
fn filter() -> Result<File, String> {
    let program = seccomp::program().map_err(|error| error.to_string())?;
    let file = rustix::fs::memfd_create("errand-filter", MemfdFlags::CLOEXEC).map_err(|error| error.to_string())?;
    let mut file = File::from(file);
    file.write_all(&program).and_then(|()| file.rewind()).map_err(|error| error.to_string())?;
    Ok(file)
}
