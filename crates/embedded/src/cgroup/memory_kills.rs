//! How many processes of a sandbox the kernel has killed because the sandbox reached its memory limit.

use std::{fs, path::PathBuf};

use super::check_name;

/// Reads the kernel's counters of memory kills.
#[derive(Debug)]
pub(crate) struct MemoryKills {
    /// The cgroup that contains those of all sandboxes.
    pub(super) parent: PathBuf,
    /// The file with the counter.
    pub(super) file: &'static str,
}

impl MemoryKills {
    /// The kills since the sandbox's cgroup was made; none when it has no cgroup.
    pub(crate) fn count(&self, name: &str) -> Option<u64> {
        check_name(name).ok()?;
        let text = fs::read_to_string(self.parent.join(name).join(self.file)).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

    use super::*;

    #[test]
    fn both_cgroup_versions_report_memory_kills() {
        for (file, text) in [
            ("memory.events", "low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\n"),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
        ] {
            let parent = tempfile::tempdir().unwrap();
            fs::create_dir(parent.path().join("one")).unwrap();
            fs::write(parent.path().join("one").join(file), text).unwrap();
            let kills = MemoryKills { parent: parent.path().to_owned(), file };
            assert_eq!(["one", "two", ".."].map(|name| kills.count(name)), [Some(2), None, None]);
        }
    }
}
