//! The same attempts in sandboxes of an unprivileged user.

use std::{
    fs,
    os::unix::fs::chown,
    process::{Command, Stdio},
};

use crate::support::docker::skip;

/// A user without any rights: *nobody*.
const NOBODY: u32 = 65534;
/// The name of these tests in this program.
const THESE: &str = "escape::ordinary";

#[test]
fn unprivileged_sandbox_prevents_escapes_too() {
    if !rustix::process::geteuid().is_root() {
        // Then all other tests already run as such a user.
        return;
    }
    if Command::new("setpriv").arg("--version").output().is_err() {
        return skip("no setpriv to become another user with");
    }
    // That user cannot reach the directory of this program.
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("escape");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    chown(directory.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let user = NOBODY.to_string();
    let output = Command::new("setpriv")
        .args(["--reuid", &user, "--regid", &user, "--clear-groups", "--bounding-set", "-all", "--inh-caps", "-all"])
        .arg(&program)
        .args(["escape::", "--skip", THESE])
        .env("TMPDIR", directory.path())
        .current_dir(directory.path())
        // The messages of skipped tests must be visible.
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "as an ordinary user:\n{said}");
    assert!(!said.contains("running 0 tests"), "{said}");
}
