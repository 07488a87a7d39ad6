//! Counts how often the kernel has killed processes of this sandbox because memory ran out, from the sandbox's cgroup.
//!
//! The count is the sandbox's, not the task's: a difference says that a kill happened while the command ran, not which process was killed.
//! If no such file is visible, as in an embedded sandbox, the shim reports nothing and the server counts from outside.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::PathBuf,
    sync::Arc,
};

/// Where cgroups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";
/// The most bytes of such a file that are read.
const LIMIT: usize = 1024;

/// The sandbox's count. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct MemoryKills(Option<Arc<File>>);

impl MemoryKills {
    /// Finds the file that holds the count.
    pub(super) fn open() -> Self {
        let found = File::open(format!("{CGROUPS}/memory.events")).ok().or_else(|| {
            let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
            candidates(&membership).into_iter().find_map(|path| File::open(path).ok())
        });
        Self(found.map(Arc::new))
    }

    /// How many processes were killed so far; none if the file is not visible.
    pub(super) fn count(&self) -> Option<u64> {
        let mut text = [0; LIMIT];
        let read = self.0.as_ref()?.read_at(&mut text, 0).ok()?;
        parse(&text[..read])
    }

    /// How many processes were killed since the count was `before`; 0 if the file is not visible.
    pub(super) fn since(&self, before: Option<u64>) -> u64 {
        before.and_then(|before| self.count()?.checked_sub(before)).unwrap_or(0)
    }
}

/// Possible paths of the file, for both versions of cgroups, with and without a cgroup namespace.
fn candidates(membership: &str) -> Vec<PathBuf> {
    let own = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let file = match controllers {
            "" => format!("{CGROUPS}{path}/memory.events"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                format!("{CGROUPS}/memory{path}/memory.oom_control")
            }
            _ => return None,
        };
        (!path.split('/').any(|name| name == "..")).then(|| PathBuf::from(file))
    };
    let below = PathBuf::from(format!("{CGROUPS}/memory/memory.oom_control"));
    membership.lines().filter_map(own).chain([below]).collect()
}

/// The number after `oom_kill`, in the file of either version.
fn parse(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_read_for_both_cgroup_versions() {
        let unified = b"low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\n";
        let old = b"oom_kill_disable 0\nunder_oom 0\noom_kill 7\n";
        assert_eq!((parse(unified), parse(old)), (Some(2), Some(7)));
        for none in [&b""[..], b"oom_kill_disable 0\n", b"oom_kill x\n", b"oom_kill -1\n", b"\xff"] {
            assert_eq!(parse(none), None);
        }
    }

    #[test]
    fn memory_files_follow_the_process_cgroup() {
        let paths =
            |text: &str| candidates(text).into_iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
        let below = "/sys/fs/cgroup/memory/memory.oom_control";
        assert_eq!(paths("0::/docker/ab\n"), ["/sys/fs/cgroup/docker/ab/memory.events", below]);
        assert_eq!(
            paths("5:cpu,cpuacct:/x\n4:memory:/docker/ab\n"),
            ["/sys/fs/cgroup/memory/docker/ab/memory.oom_control", below]
        );
        assert_eq!(paths("0::/../other\n"), [below]);
    }

    #[test]
    fn missing_counters_report_no_kills() {
        let unseen = MemoryKills(None);
        assert_eq!((unseen.count(), unseen.since(None), unseen.since(Some(1))), (None, 0, 0));
    }
}
