//! Chooses the host user that owns a sandbox. A server that runs as root gives each sandbox an unprivileged user and group id of its own:
//! even after an error of ours, the kernel keeps the sandbox from files of the host and of other sandboxes.

use std::fs;

use super::{directories::SandboxDirectories, record::Record};

/// The first id: above the ranges that distributions and container engines use.
const FIRST: u32 = 1_879_048_192;
/// The number of ids. It is large enough for random choices, so that two servers on a host do not choose the same id.
const COUNT: u32 = 1 << 24;
/// The number of ids where [`FIRST`] does not exist, as in a container with few ids. They end below the highest id, often *nobody*.
const FEW: u32 = 4096;

/// A user id that no sandbox owns; none when the server is not root or too few ids exist: the server's own user then owns sandboxes.
pub(super) fn choose(directories: &SandboxDirectories) -> Option<u32> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let map = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    let (first, count) = range(&map("uid_map"), &map("gid_map"))?;
    let taken: Vec<u32> =
        directories.all().iter().filter_map(|path| Record::read(path).ok().flatten()?.owner).collect();
    let start = u32::try_from(uuid::Uuid::new_v4().as_u128() % u128::from(count)).unwrap_or_default();
    (0..count).map(|step| first + (start + step) % count).find(|uid| !taken.contains(uid))
}

/// The ids to choose from, as the first one and their number. Each exists both as a user id and as a group id.
fn range(uid_map: &str, gid_map: &str) -> Option<(u32, u32)> {
    let exists = |first: u32, count: u32| {
        [uid_map, gid_map].iter().all(|map| {
            parse(map).any(|(begin, length)| {
                begin <= u64::from(first) && u64::from(first) + u64::from(count) <= begin + length
            })
        })
    };
    if exists(FIRST, COUNT) {
        return Some((FIRST, COUNT));
    }
    let (begin, length) = parse(uid_map).max_by_key(|(_, length)| *length)?;
    let end = u32::try_from(begin + length).ok()?.checked_sub(2)?;
    let first = end.checked_sub(FEW)?;
    (first > 0 && exists(first, FEW)).then_some((first, FEW))
}

/// The ranges of existing ids in an id map of `/proc`, each as its first id and its length.
fn parse(map: &str) -> impl Iterator<Item = (u64, u64)> {
    map.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let first = fields.next()?.parse().ok()?;
        Some((first, fields.nth(1)?.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_ids_exist() {
        let all = "         0          0 4294967295\n";
        assert_eq!(range(all, all), Some((FIRST, COUNT)));
        let container = "0 100000 65536\n";
        assert_eq!(range(container, container), Some((61438, FEW)));
        assert_eq!(range("0 1000 1\n", "0 1000 1\n"), None);
        assert_eq!(range(container, "0 1000 1\n"), None);
        assert_eq!(range("", ""), None);
    }
}
