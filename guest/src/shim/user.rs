//! Finds the user a command runs as in the sandbox's own `/etc/passwd` and `/etc/group`.

use std::fs;

pub(super) use errand_task::passwd::Identity;

/// Finds `USER[:GROUP]`, each a name or a number; none when a name is not listed.
pub(super) fn find(wanted: &str) -> Option<Identity> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    errand_task::passwd::find(wanted, &read("/etc/passwd"), &read("/etc/group"))
}
