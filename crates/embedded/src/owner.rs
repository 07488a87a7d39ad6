//! Who a sandbox belongs to outside: as root, each has an unprivileged user and group of its own, so that not even an error of ours lets
//! one touch another's files or the machine's.

use std::fs;

use super::{home::Home, record::Record};

/// Where the numbers begin: above what distributions and container engines give to anybody.
const FIRST: u32 = 1_879_048_192;
/// How many there are: enough to choose at random, so that two servers on a machine do not choose the same.
const COUNT: u32 = 1 << 24;
/// Where only few numbers exist, as in a container, those below the highest; the highest itself is often *nobody*.
const FEW: u32 = 4096;

/// A user that no sandbox has; none where there is only the user that the server has.
pub(super) fn choose(home: &Home) -> Option<u32> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let map = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    let (first, count) = range(&map("uid_map"), &map("gid_map"))?;
    let taken: Vec<u32> = home.all().iter().filter_map(|path| Record::read(path).ok().flatten()?.owner).collect();
    let start = u32::try_from(uuid::Uuid::new_v4().as_u128() % u128::from(count)).unwrap_or_default();
    (0..count).map(|step| first + (start + step) % count).find(|uid| !taken.contains(uid))
}

/// The numbers to choose from, as the first and how many, by what exists both as users and as groups.
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

/// The numbers that exist here, as the first and how many.
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
    fn numbers_are_chosen_among_those_that_exist() {
        let all = "         0          0 4294967295\n";
        assert_eq!(range(all, all), Some((FIRST, COUNT)));
        let container = "0 100000 65536\n";
        assert_eq!(range(container, container), Some((61438, FEW)));
        assert_eq!(range("0 1000 1\n", "0 1000 1\n"), None);
        assert_eq!(range(container, "0 1000 1\n"), None);
        assert_eq!(range("", ""), None);
    }
}
