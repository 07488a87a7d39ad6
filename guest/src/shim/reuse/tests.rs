//! Runs real shims, each forked by a spawner of its own.

use std::{
    collections::HashMap,
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use super::*;
use crate::{spawner::Spawner, task_dir::TaskDir};
use errand_proto::{
    bridge::{
        Ended, ResourceLimits, ShellText, ShimOrder, ShimReport, TerminalSize, WriteInputRequest,
        launch_request::Program, shim_report::Kind,
    },
    frame::{self, Decoder},
};

/// A shim, and the connection on which it takes launches.
struct Shim {
    socket: UnixStream,
    decoder: Decoder,
    _spawner: Spawner,
}

impl Shim {
    fn start(root: &Path) -> Self {
        let spawner = Spawner::start(root, 0o022).expect("forked");
        let (ours, its) = UnixStream::pair().expect("a pair");
        spawner.spawn(&its.into()).expect("asked");
        ours.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
        Self { socket: ours, decoder: Decoder::default(), _spawner: spawner }
    }

    /// Requests a launch and waits until the command runs: orders that arrive before are dropped.
    fn launch(&mut self, request: LaunchRequest) {
        self.order(Order::Launch(request));
        while !matches!(self.next().expect("a start"), Kind::Started(_)) {}
    }

    fn order(&mut self, kind: Order) {
        self.socket.write_all(&frame::encode(&ShimOrder { kind: Some(kind) })).expect("written");
    }

    /// The next report; none when the shim has closed the connection.
    fn next(&mut self) -> Option<Kind> {
        loop {
            if let Some(report) = self.decoder.message::<ShimReport>().expect("a report") {
                return report.kind;
            }
            let mut buffer = [0; 4096];
            match self.socket.read(&mut buffer).expect("no report in time") {
                0 => return None,
                read => self.decoder.push(&buffer[..read]),
            }
        }
    }

    /// The end of the current task.
    fn end(&mut self) -> Ended {
        loop {
            match self.next().expect("an end") {
                Kind::Ended(ended) => return ended,
                Kind::Claimed(_) => panic!("another shim has claimed the task"),
                _ => {}
            }
        }
    }

    /// Whether the reports of the end say that the shim takes another task. They come together.
    fn is_free(&mut self) -> bool {
        assert!(matches!(self.next(), Some(Kind::Over(_))));
        let next = self.decoder.message::<ShimReport>().expect("a report");
        matches!(next, Some(ShimReport { kind: Some(Kind::Free(_)) }))
    }
}

/// A request for a task that is never silent for long: checks of silent commands would disturb other tests of this process.
fn request(id: &str, script: &str) -> LaunchRequest {
    let program = Some(Program::Shell(ShellText { text: script.to_owned(), shell: "sh".to_owned() }));
    LaunchRequest {
        task_id: id.to_owned(),
        nonce: "n".to_owned(),
        program,
        // A test that fails leaves no process behind for long.
        timeout_ms: 20_000,
        quiet_after_ms: 60_000,
        look_every_ms: 60_000,
        ..LaunchRequest::default()
    }
}

fn input(data: &'static [u8], end: bool) -> Order {
    Order::Input(WriteInputRequest { data: data.into(), end, ..WriteInputRequest::default() })
}

/// Tasks that use much of what a shim can do for them. None of them reads its input, so that some stays pending at the end.
fn first_tasks() -> [LaunchRequest; 2] {
    let work = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; head -c 3000000 /dev/zero; echo >&2; sleep 0.2";
    let is_root = rustix::process::getuid().is_root();
    let files = LaunchRequest {
        env: HashMap::from([("LEFT_BEHIND".to_owned(), "a".to_owned())]),
        workdir: "/tmp".to_owned(),
        stdin: true,
        separate_stderr: true,
        output_limit: 1_000_000,
        nice: 5,
        user: if is_root { "4711:4711".to_owned() } else { String::new() },
        limits: Some(ResourceLimits { open_files: Some(50), ..ResourceLimits::default() }),
        ..request("a", &format!("umask 077; {work}"))
    };
    let terminal = Some(TerminalSize { rows: 10, columns: 20 });
    let terminal = LaunchRequest { terminal, ..request("a", &format!("stty raw -echo; {work}")) };
    [files, terminal]
}

/// Everything about the second task that a first one could have changed.
const SECOND: &str = "cat; umask; pwd; ulimit -a; nice; id; env | cut -d= -f1 | sort; ls /proc/self/fd; \
    for each in /proc/$PPID/fd/*; do readlink \"$each\"; done | sed 's/\\[[0-9]*]//' | sort";

/// Runs the second task. Returns its output, without the name of the root, and its end.
fn run_second(shim: &mut Shim, root: &Path) -> (String, Ended) {
    shim.launch(LaunchRequest { stdin: true, ..request("b", SECOND) });
    shim.order(input(b"second\n", true));
    let ended = shim.end();
    let directory = TaskDir::new(root, "b").expect("an id");
    let output = fs::read_to_string(directory.file("output.log")).expect("a log");
    (output.replace(&root.display().to_string(), ""), ended)
}

#[test]
fn second_task_sees_nothing_of_first() {
    let fresh = tempfile::tempdir().expect("a directory");
    let (expected, _) = run_second(&mut Shim::start(fresh.path()), fresh.path());
    assert!(expected.starts_with("second\n0022\n"), "{expected}");
    for first in first_tasks() {
        let used = tempfile::tempdir().expect("a directory");
        let mut shim = Shim::start(used.path());
        shim.launch(first.clone());
        shim.order(input(&[b'x'; 200_000], false));
        let worked = shim.end();
        assert_eq!(worked.result, "exited 0", "{first:?}");
        assert!(shim.is_free(), "{first:?}");
        let (output, ended) = run_second(&mut shim, used.path());
        assert_eq!(output, expected, "{first:?}");
        assert_eq!(ended.result, "exited 0");
        let cpu = |ended: &Ended| ended.usage.map(|usage| usage.user_cpu_us).unwrap_or_default();
        assert!(cpu(&ended) < cpu(&worked) / 2, "{ended:?} after {worked:?}");
        let names = fs::read_dir(used.path().join("b")).expect("a directory").flatten();
        let names: Vec<_> = names.map(|entry| entry.file_name()).filter(|name| name != "control").collect();
        assert_eq!(names.len(), 3, "{names:?}");
    }
}

#[test]
fn shims_with_leftover_processes_take_no_task() {
    let root = tempfile::tempdir().expect("a directory");
    let mut shim = Shim::start(root.path());
    shim.launch(request("a", "sleep 600 >/dev/null 2>&1 & echo $!"));
    assert_eq!(shim.end().result, "exited 0");
    assert!(!shim.is_free());
    shim.order(Order::Launch(request("b", "true")));
    let log = fs::read_to_string(root.path().join("a/output.log")).expect("a log");
    let left = log.trim().parse().ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
    rustix::process::kill_process(left, rustix::process::Signal::KILL).expect("killed");
    assert_eq!(shim.next(), None);
    assert!(!root.path().join("b").exists());
}

#[test]
fn spent_budget_or_large_request_ends_reuse() {
    let mut budget = Budget(TASKS).spend(1);
    let mut tasks = 1;
    while let Some(left) = budget.for_another() {
        budget = left.spend(1);
        tasks += 1;
    }
    assert_eq!(tasks, TASKS);
    assert_eq!(Budget(TASKS).spend(LARGE).for_another(), Some(Budget(TASKS - 1)));
    assert_eq!(Budget(TASKS).spend(LARGE + 1).for_another(), None);
}
