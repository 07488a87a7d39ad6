//! What bubblewrap is told.

use std::{collections::BTreeMap, io};

use super::{network::Network, places::Places, record::Record};

/// The init inside, for whoever is there.
pub(super) const INIT: &str = "/run/errand/init";
/// The same file, by what it is made of: there it is the bridge, and a later server sees whether it is its own.
pub(super) fn guest_path(name: &str) -> String {
    format!("/run/errand/{name}")
}
/// Descriptors as the launcher places them.
const INFO: &str = "5";
const FILTER: &str = "6";
pub(super) const ARGUMENTS: &str = "7";
/// What may be in `/dev/shm`, in bytes: as much as container engines give.
const SHARED_MEMORY: u64 = 64 << 20;
/// Where programs are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The longest name of a machine that the kernel takes.
const HOSTNAME_LIMIT: usize = 63;

/// Everything but the init's own arguments, each ended by a NUL byte. `sizes`: whether this bubblewrap can limit what memory holds. `guest`:
/// the guest's path in the sandbox.
///
/// # Errors
/// When an argument holds such a byte itself, or an image cannot be read.
pub(super) fn compose(
    record: &Record,
    places: &Places,
    network: &Network,
    sizes: bool,
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
    all.extend(record.root.arguments(&places.root, &places.etc)?);
    let mut add = |words: &[&str]| all.extend(words.iter().map(|word| (*word).to_owned()));
    // The settings of namespaces are written by whoever made those, which is the sandbox's user. They are not the sandbox's to change.
    add(&["--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys", "--dev", "/dev"]);
    if sizes {
        add(&["--perms", "1777", "--size", &SHARED_MEMORY.to_string()]);
    }
    add(&["--tmpfs", "/dev/shm"]);
    for (path, target) in [(&places.tmp, "/tmp"), (&places.workspace, "/workspace")] {
        add(&["--bind", &path.to_string_lossy(), target]);
    }
    let program = places.program.to_string_lossy();
    add(&["--dir", "/run", "--ro-bind", &program, INIT, "--ro-bind", &program, guest, "--remount-ro", "/dev"]);
    if !record.root.is_writable() {
        // What lies between the others is memory that nothing else limits.
        add(&["--remount-ro", "/"]);
    }
    add(&["--chdir", "/workspace"]);
    let usual = [("PATH", PATH), ("HOME", "/workspace"), ("LANG", "C.UTF-8")];
    let mut env: BTreeMap<String, String> =
        usual.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    env.extend(record.root.env());
    env.extend(record.spec.env.clone());
    for (name, value) in &env {
        add(&["--setenv", name, value]);
    }
    if all.iter().any(|argument| argument.contains('\0')) {
        return Err(io::Error::other("a variable of the environment, or a path, holds a NUL byte"));
    }
    Ok(all.into_iter().flat_map(|argument| [argument.into_bytes(), vec![0]].concat()).collect())
}

/// What the sandbox calls its machine: after the bot, as far as that makes a name.
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
    fn machines_are_called_after_their_bots() {
        assert_eq!(hostname("Bot_1"), "bot-1");
        assert_eq!(hostname("--"), "sandbox");
        assert_eq!(hostname(&"x".repeat(200)).len(), HOSTNAME_LIMIT);
    }
}
