//! Composes the arguments of bubblewrap.

use std::{collections::BTreeMap, io};

use super::{layout::Layout, network::Network, record::Record};

/// The path of the init inside, which is the same for every version of the guest.
pub(super) const INIT: &str = "/run/errand/init";
/// The path of the same program under a name with its digest. The bridge process runs from this path, so that a later server can see whether
/// it is of the same version.
pub(super) fn guest_path(name: &str) -> String {
    format!("/run/errand/{name}")
}
/// The descriptor to which bubblewrap writes the init's process id. The launcher opens it and the next two.
const INFO: &str = "5";
/// The descriptor with the filter of system calls.
const FILTER: &str = "6";
/// The descriptor with the arguments.
pub(super) const ARGUMENTS: &str = "7";
/// The size of `/dev/shm`, in bytes: the default of container engines.
const SHARED_MEMORY: u64 = 64 << 20;
/// The variable `PATH` of commands.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The longest host name that the kernel accepts, in bytes.
const HOSTNAME_LIMIT: usize = 63;

/// All arguments except the init's command line, each ended by a NUL byte. `limits_tmpfs`: whether this bubblewrap can limit the size of a
/// tmpfs. `guest`: the guest's path in the sandbox.
///
/// # Errors
/// When an argument contains a NUL byte, or an image cannot be read.
pub(super) fn compose(
    record: &Record,
    layout: &Layout,
    network: &Network,
    limits_tmpfs: bool,
    guest: &str,
) -> io::Result<Vec<u8>> {
    let (uid, gid) = record.user;
    let mut all = Vec::new();
    let mut add = |words: &[&str]| all.extend(words.iter().map(|word| (*word).to_owned()));
    add(&["--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--as-pid-1"]);
    add(&["--uid", &uid.to_string(), "--gid", &gid.to_string(), "--hostname", &hostname(record.bot())]);
    if *network == Network::None {
        add(&["--unshare-net"]);
    }
    add(&["--cap-drop", "ALL", "--info-fd", INFO, "--seccomp", FILTER]);
    all.extend(record.root.arguments(&layout.root, &layout.etc)?);
    let mut add = |words: &[&str]| all.extend(words.iter().map(|word| (*word).to_owned()));
    // The sandbox's user made the namespaces, and could therefore change their settings in `/proc/sys` if they were writable.
    add(&["--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys", "--dev", "/dev"]);
    if limits_tmpfs {
        add(&["--perms", "1777", "--size", &SHARED_MEMORY.to_string()]);
    }
    add(&["--tmpfs", "/dev/shm"]);
    for (path, target) in [(&layout.tmp, "/tmp"), (&layout.workspace, "/workspace")] {
        add(&["--bind", &path.to_string_lossy(), target]);
    }
    let program = layout.guest.to_string_lossy();
    add(&["--dir", "/run", "--ro-bind", &program, INIT, "--ro-bind", &program, guest, "--remount-ro", "/dev"]);
    if !record.root.is_writable() {
        // Files in the directories between the mounts would occupy memory without a limit.
        add(&["--remount-ro", "/"]);
    }
    add(&["--chdir", "/workspace"]);
    let defaults = [("PATH", PATH), ("HOME", "/workspace"), ("LANG", "C.UTF-8")];
    let mut env: BTreeMap<String, String> =
        defaults.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    env.extend(record.root.env());
    env.extend(record.spec.env.clone());
    for (name, value) in &env {
        add(&["--setenv", name, value]);
    }
    if all.iter().any(|argument| argument.contains('\0')) {
        return Err(io::Error::other("an environment variable or a path contains a NUL byte"));
    }
    Ok(all.into_iter().flat_map(|argument| [argument.into_bytes(), vec![0]].concat()).collect())
}

/// The host name inside: the bot's name, with "-" for characters that a host name cannot contain.
pub(super) fn hostname(bot: &str) -> String {
    let name: String = bot
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' })
        .take(HOSTNAME_LIMIT)
        .collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "sandbox".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_name_is_made_of_the_bot() {
        assert_eq!(hostname("Bot_1"), "bot-1");
        assert_eq!(hostname("--"), "sandbox");
        assert_eq!(hostname(&"x".repeat(200)).len(), HOSTNAME_LIMIT);
    }
}
