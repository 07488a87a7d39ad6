//! Where the cgroup hierarchies are mounted, and where in them this process is. Pure: the texts are handed in.

use std::{
    ffi::OsString,
    os::unix::ffi::OsStringExt as _,
    path::{Component, Path, PathBuf},
};

/// A hierarchy that is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// Which kind of tree it is.
    pub(super) version: Version,
    /// Directories from the mount point down to the cgroup that this process is in.
    pub(super) path: Vec<PathBuf>,
}

/// The two kinds of trees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Version {
    /// One of many trees, with these controllers.
    One(Vec<String>),
    /// The only tree, or one beside the others that has what they leave.
    Two,
}

/// The hierarchies in `mountinfo`, with the way to the place that `cgroup` names, both of `/proc/self`. The first mount of each counts.
pub(super) fn find(mountinfo: &str, cgroup: &str) -> Vec<Mount> {
    let mut found: Vec<Mount> = Vec::new();
    for (version, point, root) in mountinfo.lines().filter_map(mount) {
        if found.iter().any(|mount| mount.version == version) {
            continue;
        }
        let own = cgroup.lines().filter_map(|line| membership(line, &version)).next();
        let below = own.and_then(|own| own.strip_prefix(&root).ok()).filter(|below| is_plain(below));
        let mut path = vec![point];
        for name in below.unwrap_or(Path::new("")) {
            path.push(path[path.len() - 1].join(name));
        }
        found.push(Mount { version, path });
    }
    found
}

/// The kind of tree, the mount point, and the directory of the tree that is mounted there.
fn mount(line: &str) -> Option<(Version, PathBuf, PathBuf)> {
    let (place, kind) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (root, point) = (unescape(place.next()?), unescape(place.next()?));
    let mut kind = kind.split(' ');
    let version = match kind.next()? {
        "cgroup2" => Version::Two,
        "cgroup" => Version::One(kind.nth(1)?.split(',').map(str::to_owned).collect()),
        _ => return None,
    };
    Some((version, point, root))
}

/// Where this process is in the tree, if the line is about it.
fn membership<'l>(line: &'l str, version: &Version) -> Option<&'l Path> {
    let mut parts = line.splitn(3, ':');
    let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let matches = match version {
        Version::Two => number == "0" && controllers.is_empty(),
        // The options of the mount have others beside the controllers.
        Version::One(options) => {
            !controllers.is_empty() && controllers.split(',').all(|name| options.iter().any(|option| option == name))
        }
    };
    matches.then_some(Path::new(path))
}

/// A process outside of what is mounted has a path with dots.
fn is_plain(path: &Path) -> bool {
    path.components().all(|component| matches!(component, Component::Normal(_)))
}

/// Blanks and the like are written as a backslash with three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = (*first == b'\\')
            .then(|| after.get(..3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(mount: &Mount) -> Vec<&str> {
        mount.path.iter().filter_map(|path| path.to_str()).collect()
    }

    #[test]
    fn a_user_session_of_systemd_is_found_in_the_only_tree() {
        let mountinfo = "35 25 0:30 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n\
                         36 25 0:31 / /sys/fs/bpf rw shared:5 - bpf bpf rw,mode=700";
        let found = find(mountinfo, "0::/user.slice/user-1000.slice/a.scope\n");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].version, Version::Two);
        let expected = [
            "/sys/fs/cgroup",
            "/sys/fs/cgroup/user.slice",
            "/sys/fs/cgroup/user.slice/user-1000.slice",
            "/sys/fs/cgroup/user.slice/user-1000.slice/a.scope",
        ];
        assert_eq!(paths(&found[0]), expected);
    }

    #[test]
    fn each_of_many_trees_has_its_controllers_and_its_place() {
        let mountinfo = "40 30 0:33 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                         41 30 0:34 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                         42 30 0:35 / /sys/fs/cgroup/memory-again rw - cgroup cgroup rw,memory\n\
                         43 30 0:36 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
        let found = find(mountinfo, "4:memory:/a/b\n3:cpu,cpuacct:/c\n0::/\n");
        let places: Vec<_> = found.iter().map(|mount| paths(mount)[mount.path.len() - 1]).collect();
        assert_eq!(places, ["/sys/fs/cgroup/cpu,cpuacct/c", "/sys/fs/cgroup/memory/a/b", "/sys/fs/cgroup/unified"]);
    }

    #[test]
    fn a_container_that_sees_only_its_own_part_begins_there() {
        let mountinfo = "50 40 0:33 /docker/ab /sys/fs/cgroup/my\\040memory ro - cgroup cgroup rw,memory";
        let found = find(mountinfo, "4:memory:/docker/ab/inner\n");
        assert_eq!(paths(&found[0]), ["/sys/fs/cgroup/my memory", "/sys/fs/cgroup/my memory/inner"]);
        for outside in ["4:memory:/elsewhere\n", "4:memory:/docker/ab/../x\n", "4:memory:/../..\n", ""] {
            assert_eq!(paths(&find(mountinfo, outside)[0]), ["/sys/fs/cgroup/my memory"], "{outside:?}");
        }
    }
}
