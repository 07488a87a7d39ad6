//! Finds the mounted cgroup hierarchies and this process's cgroup in each. Pure: callers read the files of `/proc`.

use std::{
    ffi::OsString,
    os::unix::ffi::OsStringExt as _,
    path::{Component, Path, PathBuf},
};

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// Its version, with the controllers in version 1.
    pub(super) version: Version,
    /// The directories from the mount point down to this process's cgroup.
    pub(super) path: Vec<PathBuf>,
}

/// The two versions of cgroups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Version {
    /// One of several hierarchies, with these mount options, among which are the names of its controllers.
    One(Vec<String>),
    /// The unified hierarchy. It has the controllers that no hierarchy of version 1 uses.
    Two,
}

/// The hierarchies in the texts of `/proc/self/mountinfo` and `/proc/self/cgroup`. Only the first mount of each hierarchy counts.
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

/// The version, the mount point, and the directory of the hierarchy that is mounted there.
fn mount(line: &str) -> Option<(Version, PathBuf, PathBuf)> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(3);
    let (root, point) = (unescape(mount.next()?), unescape(mount.next()?));
    let mut filesystem = filesystem.split(' ');
    let version = match filesystem.next()? {
        "cgroup2" => Version::Two,
        "cgroup" => Version::One(filesystem.nth(1)?.split(',').map(str::to_owned).collect()),
        _ => return None,
    };
    Some((version, point, root))
}

/// This process's cgroup, if the line is about a hierarchy of this version.
fn membership<'l>(line: &'l str, version: &Version) -> Option<&'l Path> {
    let mut parts = line.splitn(3, ':');
    let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let matches = match version {
        Version::Two => number == "0" && controllers.is_empty(),
        // The mount options contain more than the controllers.
        Version::One(options) => {
            !controllers.is_empty() && controllers.split(',').all(|name| options.iter().any(|option| option == name))
        }
    };
    matches.then_some(Path::new(path))
}

/// False for the path of a process outside of the mounted part, which contains `..`.
fn is_plain(path: &Path) -> bool {
    path.components().all(|component| matches!(component, Component::Normal(_)))
}

/// Decodes a path of `mountinfo`: the kernel writes spaces and some other characters as a backslash and three octal digits.
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
    fn systemd_session_is_found_in_the_unified_hierarchy() {
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
    fn each_hierarchy_of_version_1_is_found() {
        let mountinfo = "40 30 0:33 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                         41 30 0:34 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                         42 30 0:35 / /sys/fs/cgroup/memory-again rw - cgroup cgroup rw,memory\n\
                         43 30 0:36 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
        let found = find(mountinfo, "4:memory:/a/b\n3:cpu,cpuacct:/c\n0::/\n");
        let own: Vec<_> = found.iter().map(|mount| paths(mount)[mount.path.len() - 1]).collect();
        assert_eq!(own, ["/sys/fs/cgroup/cpu,cpuacct/c", "/sys/fs/cgroup/memory/a/b", "/sys/fs/cgroup/unified"]);
    }

    #[test]
    fn container_path_begins_at_its_mounted_part() {
        let mountinfo = "50 40 0:33 /docker/ab /sys/fs/cgroup/my\\040memory ro - cgroup cgroup rw,memory";
        let found = find(mountinfo, "4:memory:/docker/ab/inner\n");
        assert_eq!(paths(&found[0]), ["/sys/fs/cgroup/my memory", "/sys/fs/cgroup/my memory/inner"]);
        for outside in ["4:memory:/elsewhere\n", "4:memory:/docker/ab/../x\n", "4:memory:/../..\n", ""] {
            assert_eq!(paths(&find(mountinfo, outside)[0]), ["/sys/fs/cgroup/my memory"], "{outside:?}");
        }
    }
}
