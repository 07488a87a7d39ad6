//! Limits and removal under the real kernel, which need root, and the obstacles that are reported.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::{
    env, fs,
    io::{self, Read as _, Write as _},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::Path,
    process::{Child, Command, Stdio},
};

use super::*;

const LIMITS: Limits = Limits { memory_bytes: 64 << 20, cpus: 0.5, pids: 16 };

/// The host's cgroups. None when some are unusable: the test then prints that it is skipped, and fails in CI.
fn usable() -> Option<Cgroups> {
    let cgroups = Cgroups::detect();
    if cgroups.unenforced.is_empty() {
        return Some(cgroups);
    }
    let missing: Vec<String> = cgroups.unenforced.iter().map(Unenforced::to_string).collect();
    let missing = format!("cgroups: {}", missing.join("; "));
    assert!(env::var_os("CI").is_none(), "CI must have what the tests need: {missing}");
    writeln!(io::stderr(), "SKIPPED: {missing}").unwrap();
    None
}

/// A cgroup that is removed when the test ends.
struct Group<'c> {
    cgroups: &'c Cgroups,
    name: String,
    cgroup: Cgroup,
}

impl<'c> Group<'c> {
    fn make(cgroups: &'c Cgroups, name: &str) -> Self {
        let name = format!("test-{name}-{}", uuid::Uuid::new_v4());
        let cgroup = cgroups.make(&name, &LIMITS).unwrap();
        assert_eq!(cgroup.unenforced, []);
        Self { cgroups, name, cgroup }
    }

    /// Runs a shell in the cgroup.
    fn shell(&self, script: &str) -> Child {
        let join: String = self.cgroup.procs.iter().map(|file| format!("echo $$ > '{}' && ", file.display())).collect();
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{join}{{ {script}\n}}")]).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn().unwrap()
    }

    fn directories(&self) -> Vec<PathBuf> {
        self.cgroups.hierarchies.iter().map(|hierarchy| hierarchy.of(&self.name)).collect()
    }

    /// A file of the cgroup, from the first hierarchy that has it.
    fn read(&self, file: &str) -> Option<String> {
        let texts = self.directories().into_iter().map(|directory| fs::read_to_string(directory.join(file)));
        texts.flatten().next().map(|text| text.trim().to_owned())
    }
}

impl Drop for Group<'_> {
    fn drop(&mut self) {
        self.cgroups.remove(&self.name).unwrap();
    }
}

#[test]
fn exceeding_the_memory_limit_kills_the_process() {
    let Some(cgroups) = usable() else { return };
    let group = Group::make(&cgroups, "memory");
    // tail holds a line without an end in memory.
    let mut child = group.shell("exec tail /dev/zero");
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    let mut within = group.shell("head -c 16000000 /dev/zero | tail -c 16000000 | wc -c");
    assert!(within.wait().unwrap().success());
}

#[test]
fn forks_beyond_the_limit_fail() {
    let Some(cgroups) = usable() else { return };
    let group = Group::make(&cgroups, "pids");
    // The background processes close stderr, so the read ends with the shell.
    let each = (0..20).map(|_| "sleep 1000 <&- >&- 2>&- & ").collect::<String>();
    let mut child = group.shell(&each);
    let mut message = String::new();
    child.stderr.take().unwrap().read_to_string(&mut message).unwrap();
    child.wait().unwrap();
    assert!(message.to_lowercase().contains("fork"), "{message}");
    assert!(cgroups.processes(&group.name).len() <= 16);
}

#[test]
fn cpu_limit_sets_the_quota() {
    let Some(cgroups) = usable() else { return };
    let group = Group::make(&cgroups, "cpu");
    let half = group.read("cpu.max").unwrap_or_else(|| {
        format!("{} {}", group.read("cpu.cfs_quota_us").unwrap(), group.read("cpu.cfs_period_us").unwrap())
    });
    assert_eq!(half, "50000 100000");
}

#[test]
fn existing_cgroup_takes_larger_and_smaller_limits() {
    let Some(cgroups) = usable() else { return };
    let group = Group::make(&cgroups, "again");
    for mebibytes in [128, 32] {
        let limits = Limits { memory_bytes: mebibytes << 20, ..LIMITS };
        assert_eq!(cgroups.make(&group.name, &limits).unwrap().unenforced, []);
        let memory = group.read("memory.max").or_else(|| group.read("memory.memsw.limit_in_bytes")).unwrap();
        assert_eq!(memory, limits.memory_bytes.to_string());
    }
}

#[test]
fn removal_leaves_no_process_and_no_directory() {
    let Some(cgroups) = usable() else { return };
    let group = Group::make(&cgroups, "removal");
    let directories = group.directories();
    assert!(directories.iter().all(|directory| directory.is_dir()));
    let mut outer = group.shell("setsid sleep 1000 & echo there; exec sleep 1000");
    outer.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
    // Ignores signals that can be ignored, and forks without pause.
    let mut child = group.shell("trap '' TERM INT HUP; while :; do sleep 0.01 & done");
    assert!(cgroups.processes(&group.name).contains(&i32::try_from(outer.id()).unwrap()));
    cgroups.remove(&group.name).unwrap();
    assert!(cgroups.processes(&group.name).is_empty());
    assert!(!directories.iter().any(|directory| directory.exists()), "{directories:?}");
    // This one may have ended by itself at the process limit.
    child.wait().unwrap();
    assert_eq!(outer.wait().unwrap().signal(), Some(9));
    cgroups.remove(&group.name).unwrap();
}

#[test]
fn removal_includes_child_cgroups() {
    let Some(cgroups) = usable() else { return };
    let group = Group::make(&cgroups, "below");
    for directory in group.directories() {
        fs::create_dir_all(directory.join("a/b")).unwrap();
    }
    cgroups.remove(&group.name).unwrap();
    assert!(!group.directories().iter().any(|directory| directory.exists()));
}

#[test]
fn names_of_other_directories_are_refused() {
    let cgroups = Cgroups { hierarchies: Vec::new(), unenforced: Vec::new() };
    for name in ["", ".", "..", "a/b", "/", "a\0b", &"x".repeat(256)] {
        assert!(matches!(cgroups.make(name, &LIMITS), Err(CgroupError::InvalidName { .. })), "{name:?}");
        assert!(matches!(cgroups.remove(name), Err(CgroupError::InvalidName { .. })), "{name:?}");
        assert!(cgroups.processes(name).is_empty());
    }
}

#[test]
fn without_cgroups_no_limit_is_enforced() {
    let cgroups = Cgroups::choose(&[]);
    let cgroup = cgroups.make("a", &LIMITS).unwrap();
    assert!(cgroup.procs.is_empty());
    let obstacles: Vec<String> = cgroup.unenforced.iter().map(Unenforced::to_string).collect();
    let why = "no cgroup file system with this controller is mounted";
    assert_eq!(obstacles, ["memory", "cpu", "pids"].map(|name| format!("{name}: {why}")));
    assert_eq!(cgroups.obstacle(Resource::Memory), Some(&Obstacle::NotMounted));
    cgroups.remove("a").unwrap();
}

/// A directory that looks like a writable cgroup of the unified hierarchy.
fn fake_cgroup(directory: &Path, controllers: &str, procs: &str) {
    fs::create_dir_all(directory).unwrap();
    for (name, text) in [("cgroup.controllers", controllers), ("cgroup.procs", procs), ("cgroup.type", "domain\n")] {
        fs::write(directory.join(name), text).unwrap();
    }
    fs::write(directory.join("cgroup.subtree_control"), "").unwrap();
}

#[test]
fn delegated_part_is_used_from_its_top() {
    let directory = tempfile::tempdir().unwrap();
    let (slice, own) = (directory.path().join("slice"), directory.path().join("slice/own"));
    fake_cgroup(&slice, "memory pids\n", "");
    fake_cgroup(&own, "", "1\n");
    let mounted = Mount { version: Version::Two, path: vec![slice.clone(), own] };
    let cgroups = Cgroups::choose(&[mounted]);
    assert_eq!(cgroups.obstacle(Resource::Cpu), Some(&Obstacle::NotOffered { directory: slice.clone() }));
    let [hierarchy] = cgroups.hierarchies.as_slice() else { panic!("{cgroups:?}") };
    assert_eq!((&hierarchy.base, hierarchy.resources.as_slice()), (&slice, &[Resource::Memory, Resource::Pids][..]));
}

#[test]
fn foreign_processes_keep_controllers_disabled() {
    let directory = tempfile::tempdir().unwrap();
    fake_cgroup(directory.path(), "cpu memory pids\n", "1\n2\n");
    let mounted = Mount { version: Version::Two, path: vec![directory.path().to_owned()] };
    let cgroups = Cgroups::choose(&[mounted]);
    let obstacle = Obstacle::Occupied { directory: directory.path().to_owned() };
    assert_eq!(cgroups.unenforced, Resource::ALL.map(|resource| Unenforced { resource, obstacle: obstacle.clone() }));
}
