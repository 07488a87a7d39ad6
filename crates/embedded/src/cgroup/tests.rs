//! Under the real kernel: what is limited, and that nothing is left. As root; what an ordinary user is told needs none.

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

/// The machine's cgroups where this test may use all of them, or none: then it is skipped, and says so. In CI that is a failure.
fn usable() -> Option<Cgroups> {
    let cgroups = Cgroups::detect();
    if cgroups.unusable.is_empty() {
        return Some(cgroups);
    }
    let missing: Vec<String> = cgroups.unusable.iter().map(Limit::to_string).collect();
    let missing = format!("cgroups: {}", missing.join("; "));
    assert!(env::var_os("CI").is_none(), "CI must have what the tests need: {missing}");
    writeln!(io::stderr(), "SKIPPED: {missing}").unwrap();
    None
}

/// A cgroup that goes when the test ends.
struct Group<'c> {
    cgroups: &'c Cgroups,
    name: String,
    made: Made,
}

impl<'c> Group<'c> {
    fn make(cgroups: &'c Cgroups, name: &str) -> Self {
        let name = format!("test-{name}-{}", uuid::Uuid::new_v4());
        let made = cgroups.make(&name, &LIMITS).unwrap();
        assert_eq!(made.unenforced, []);
        Self { cgroups, name, made }
    }

    /// Runs a shell in the cgroup.
    fn shell(&self, script: &str) -> Child {
        let join: String = self.made.procs.iter().map(|file| format!("echo $$ > '{}' && ", file.display())).collect();
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{join}{{ {script}\n}}")]).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn().unwrap()
    }

    fn directories(&self) -> Vec<PathBuf> {
        self.cgroups.places.iter().map(|place| place.of(&self.name)).collect()
    }

    /// A file of its cgroup in whichever tree has it.
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
fn memory_kills_are_read_from_both_kinds_of_files() {
    for (file, text) in [
        ("memory.events", "low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\n"),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
    ] {
        let parent = tempfile::tempdir().unwrap();
        fs::create_dir(parent.path().join("one")).unwrap();
        fs::write(parent.path().join("one").join(file), text).unwrap();
        let count = KillCount { parent: parent.path().to_owned(), file };
        assert_eq!(["one", "two", ".."].map(|name| count.of(name)), [Some(2), None, None]);
    }
}

#[test]
fn a_process_that_takes_more_memory_than_it_may_is_killed() {
    let Some(cgroups) = usable() else { return };
    let group = Group::make(&cgroups, "memory");
    // The shell itself takes the memory: tail keeps all of a line that does not end.
    let mut child = group.shell("exec tail /dev/zero");
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    let mut within = group.shell("head -c 16000000 /dev/zero | tail -c 16000000 | wc -c");
    assert!(within.wait().unwrap().success());
}

#[test]
fn more_processes_than_allowed_are_not_made() {
    let Some(cgroups) = usable() else { return };
    let group = Group::make(&cgroups, "pids");
    // None of them holds what the shell complains on, so that its end is that of the shell.
    let each = (0..20).map(|_| "sleep 1000 <&- >&- 2>&- & ").collect::<String>();
    let mut child = group.shell(&each);
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    child.wait().unwrap();
    assert!(said.to_lowercase().contains("fork"), "{said}");
    assert!(cgroups.processes(&group.name).len() <= 16);
}

#[test]
fn time_of_processors_is_limited_to_the_share() {
    let Some(cgroups) = usable() else { return };
    let group = Group::make(&cgroups, "cpu");
    let half = group.read("cpu.max").unwrap_or_else(|| {
        format!("{} {}", group.read("cpu.cfs_quota_us").unwrap(), group.read("cpu.cfs_period_us").unwrap())
    });
    assert_eq!(half, "50000 100000");
}

#[test]
fn a_group_is_taken_up_with_other_limits_larger_or_smaller() {
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
    let mut above = group.shell("setsid sleep 1000 & echo there; exec sleep 1000");
    above.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
    // They ignore what can be ignored, and make others as fast as they can.
    let mut child = group.shell("trap '' TERM INT HUP; while :; do sleep 0.01 & done");
    assert!(cgroups.processes(&group.name).contains(&i32::try_from(above.id()).unwrap()));
    cgroups.remove(&group.name).unwrap();
    assert!(cgroups.processes(&group.name).is_empty());
    assert!(!directories.iter().any(|directory| directory.exists()), "{directories:?}");
    // The one that multiplies may have ended by itself, at its limit.
    child.wait().unwrap();
    assert_eq!(above.wait().unwrap().signal(), Some(9));
    cgroups.remove(&group.name).unwrap();
}

#[test]
fn groups_below_it_go_as_well() {
    let Some(cgroups) = usable() else { return };
    let group = Group::make(&cgroups, "below");
    for directory in group.directories() {
        fs::create_dir_all(directory.join("a/b")).unwrap();
    }
    cgroups.remove(&group.name).unwrap();
    assert!(!group.directories().iter().any(|directory| directory.exists()));
}

#[test]
fn a_name_that_leads_elsewhere_is_refused() {
    let cgroups = Cgroups { places: Vec::new(), unusable: Vec::new() };
    for name in ["", ".", "..", "a/b", "/", "a\0b", &"x".repeat(256)] {
        assert!(matches!(cgroups.make(name, &LIMITS), Err(CgroupError::Name { .. })), "{name:?}");
        assert!(matches!(cgroups.remove(name), Err(CgroupError::Name { .. })), "{name:?}");
        assert!(cgroups.processes(name).is_empty());
    }
}

#[test]
fn without_cgroups_everything_is_said_to_be_unlimited() {
    let cgroups = Cgroups::among(&[]);
    let made = cgroups.make("a", &LIMITS).unwrap();
    assert!(made.procs.is_empty());
    let said: Vec<String> = made.unenforced.iter().map(Limit::to_string).collect();
    let why = "no cgroup file system with it is mounted";
    assert_eq!(said, ["memory", "cpu", "pids"].map(|name| format!("{name}: {why}")));
    assert_eq!(cgroups.hindrance(Resource::Memory), Some(&Hindrance::NotMounted));
    cgroups.remove("a").unwrap();
}

/// A directory that looks like a part of the tree of today, of this user.
fn tree_of_files(directory: &Path, controllers: &str, procs: &str) {
    fs::create_dir_all(directory).unwrap();
    for (name, text) in [("cgroup.controllers", controllers), ("cgroup.procs", procs), ("cgroup.type", "domain\n")] {
        fs::write(directory.join(name), text).unwrap();
    }
    fs::write(directory.join("cgroup.subtree_control"), "").unwrap();
}

#[test]
fn a_part_that_was_handed_over_is_used_from_its_top_and_lacks_what_it_lacks() {
    let directory = tempfile::tempdir().unwrap();
    let (slice, own) = (directory.path().join("slice"), directory.path().join("slice/own"));
    tree_of_files(&slice, "memory pids\n", "");
    tree_of_files(&own, "", "1\n");
    let mounted = Mount { version: Version::Two, path: vec![slice.clone(), own] };
    let cgroups = Cgroups::among(&[mounted]);
    assert_eq!(cgroups.hindrance(Resource::Cpu), Some(&Hindrance::NotOffered { directory: slice.clone() }));
    let [place] = cgroups.places.as_slice() else { panic!("{cgroups:?}") };
    assert_eq!((&place.base, place.resources.as_slice()), (&slice, &[Resource::Memory, Resource::Pids][..]));
}

#[test]
fn others_in_the_same_group_keep_its_controllers_from_being_passed_on() {
    let directory = tempfile::tempdir().unwrap();
    tree_of_files(directory.path(), "cpu memory pids\n", "1\n2\n");
    let mounted = Mount { version: Version::Two, path: vec![directory.path().to_owned()] };
    let cgroups = Cgroups::among(&[mounted]);
    let why = Hindrance::Occupied { directory: directory.path().to_owned() };
    assert_eq!(cgroups.unusable, Resource::ALL.map(|resource| Limit { resource, why: why.clone() }));
}
