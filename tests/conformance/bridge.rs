//! What every bridge must do, in every sandbox. Written against the contract alone; [`bridge_conformance`] makes one test of each case.

use std::{any::Any, sync::Arc, time::Duration};

use errand::{
    bridge::{Attachment, ExecBridge, Finding, LaunchSettings, Piece, ReadError, Report},
    runtime::Runtime,
    task::{Ending, Nonce, ProcessIdentity, Program, Signal, StartFailure, TaskId, TaskSpec, sentinel::Sentinel},
};
use tokio::time::{Instant, timeout};

/// Nothing here takes longer on a machine that works.
const DEADLINE: Duration = Duration::from_secs(60);

/// A bridge and a running sandbox.
pub struct Bench {
    pub bridge: Arc<dyn ExecBridge>,
    pub runtime: Arc<dyn Runtime>,
    pub sandbox: String,
    pub root: &'static str,
    pub _keep: Box<dyn Any + Send + Sync>,
}

/// What came of a command.
#[derive(Debug, Default)]
pub struct Ran {
    pub id: Option<TaskId>,
    pub process: Option<ProcessIdentity>,
    pub output: Vec<u8>,
    pub skipped: bool,
    pub ending: Option<Ending>,
    pub over: Option<(u64, bool)>,
}

impl Ran {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }
}

pub fn spec(program: Program) -> TaskSpec {
    TaskSpec {
        env: [("GREETING".to_owned(), "hello \"world\"\n$HOME".to_owned())].into(),
        ..TaskSpec::new(program, Duration::from_secs(60))
    }
}

/// How every command is launched here.
const SETTINGS: LaunchSettings = LaunchSettings {
    grace: Duration::from_secs(5),
    quiet_after: Duration::from_secs(1),
    look_every: Duration::from_secs(1),
};

/// How an attachment reports the end.
fn is_end(report: &Report) -> bool {
    matches!(report, Report::Ended { .. })
}

/// Which end a report is.
fn ending_of(report: Report) -> Option<Ending> {
    match report {
        Report::Ended { ending, .. } => Some(ending),
        _ => None,
    }
}

/// The bytes of a report of output, and their position.
fn bytes_of(report: Report) -> (u64, Vec<u8>) {
    match report {
        Report::Output(piece) => (piece.offset, piece.bytes.to_vec()),
        other => panic!("no output: {other:?}"),
    }
}

pub fn text(command: &str) -> TaskSpec {
    spec(Program::Shell { text: command.to_owned(), shell: None })
}

impl Bench {
    /// A script that signals whatever keeps a task: the process that is recorded as that, and those that name the task's directory.
    fn to_supervisors(&self, id: TaskId, signal: &str) -> String {
        let root = self.root;
        format!(
            "{{ cut -d' ' -f1 {root}/{id}/supervisor; grep -l /{id} /proc/[0-9]*/cmdline 2>/dev/null | cut -d/ -f3; }} | \
             while read -r p; do kill -{signal} $p; done"
        )
    }

    async fn launch(&self, spec: &TaskSpec) -> (TaskId, Nonce, Attachment) {
        let (id, nonce) = (TaskId::new(), Nonce::new());
        let attachment = self.bridge.launch(&self.sandbox, id, nonce, spec, SETTINGS).await.unwrap();
        (id, nonce, attachment)
    }

    /// Runs a command to its end.
    pub async fn run(&self, spec: &TaskSpec) -> Ran {
        let (id, _, attachment) = self.launch(spec).await;
        let mut ran = timeout(DEADLINE, read(attachment)).await.expect("the command ends in time");
        if ran.skipped {
            ran.output = self.log(id).await;
        }
        Ran { id: Some(id), ..ran }
    }

    async fn probe(&self, id: TaskId, nonce: Nonce) -> Finding {
        self.bridge.probe(&self.sandbox, &[(id, nonce)], false).await.unwrap().remove(0)
    }

    async fn probe_until(&self, id: TaskId, nonce: Nonce, what: &str, done: impl Fn(&Finding) -> bool) -> Finding {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let finding = self.probe(id, nonce).await;
            if done(&finding) {
                return finding;
            }
            assert!(Instant::now() < deadline, "waited in vain for {what}: {finding:?}");
        }
    }

    /// Runs a script beside the bridge and returns what it prints.
    async fn sh(&self, script: &str) -> String {
        let argv = ["sh", "-c", script].map(str::to_owned);
        let said = self.runtime.exec(&self.sandbox, &argv).await.unwrap().collect(1 << 20).await.unwrap();
        String::from_utf8_lossy(&said.stdout).into_owned()
    }

    async fn log(&self, id: TaskId) -> Vec<u8> {
        let piece = Piece::From { offset: 0, limit: 1 << 30 };
        self.bridge.read(&self.sandbox, id, piece).await.unwrap().bytes().await.unwrap()
    }
}

/// Reads an attachment to its end.
pub async fn read(mut attachment: Attachment) -> Ran {
    let mut ran = Ran::default();
    loop {
        match attachment.next().await.unwrap() {
            Report::Started(process) => ran.process = Some(process),
            Report::Output(piece) => ran.output.extend_from_slice(&piece.bytes),
            Report::Skipped { .. } => ran.skipped = true,
            Report::Activity(_) => {}
            Report::Ended { ending, .. } => ran.ending = Some(ending),
            Report::Over { bytes, incomplete, .. } => ran.over = Some((bytes, incomplete)),
            Report::Claimed | Report::Broken => return ran,
        }
    }
}

/// Reads reports until one is as wanted.
async fn until(attachment: &mut Attachment, what: &str, wanted: impl Fn(&Report) -> bool) -> Report {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let report = tokio::time::timeout_at(deadline, attachment.next()).await;
        let report = report.unwrap_or_else(|_| panic!("waited in vain for {what}")).unwrap();
        if wanted(&report) {
            return report;
        }
        assert_ne!(report, Report::Broken, "the attachment broke off before {what}");
    }
}

pub async fn output_and_exit_code_are_those_of_the_command(bench: Bench) {
    let ran = bench.run(&text("echo out; echo err >&2; printf '%s' \"$GREETING\"; exit 3")).await;
    assert_eq!(ran.text(), "out\nerr\nhello \"world\"\n$HOME");
    assert_eq!(ran.ending, Some(Ending::Exited(3)));
    assert_eq!(ran.over, Some((ran.output.len() as u64, false)));
    assert!(ran.process.is_some());
    assert_eq!(bench.log(ran.id.unwrap()).await, ran.output);
}

pub async fn every_exit_code_and_signal_is_told_apart(bench: Bench) {
    let signal = |number| Some(Ending::Signaled(Signal::new(number).unwrap()));
    for (command, ending) in [
        ("exit 0", Some(Ending::Exited(0))),
        ("exit 255", Some(Ending::Exited(255))),
        ("exit 9", Some(Ending::Exited(9))),
        ("exit 130", Some(Ending::Exited(130))),
        ("exit 137", Some(Ending::Exited(137))),
        ("exit 141", Some(Ending::Exited(141))),
        ("kill -9 $$", signal(9)),
        ("kill -TERM $$; sleep 9", signal(15)),
        ("kill -INT $$; sleep 9", signal(2)),
        ("kill -PIPE $$; sleep 9", signal(13)),
        ("kill -SEGV $$; sleep 9", signal(11)),
    ] {
        assert_eq!(bench.run(&text(command)).await.ending, ending, "{command}");
    }
}

pub async fn no_command_text_breaks_the_wrapper(bench: Bench) {
    let long = format!("echo begin; : '{}'; echo end", "x".repeat(1024 * 1024 - 64));
    for (command, ending, output) in [
        ("exit 7", Ending::Exited(7), ""),
        ("echo a # a comment", Ending::Exited(0), "a\n"),
        ("echo 'a)' \"(b\" \\)", Ending::Exited(0), "a) (b )\n"),
        ("cat <<END\nhere $((1 + 1))\nEND", Ending::Exited(0), "here 2\n"),
        ("cat <<'END'\n$x ) ' \"\nEND\n", Ending::Exited(0), "$x ) ' \"\n"),
        ("echo a \\", Ending::Exited(0), "a"),
        ("echo 77 >&3 2>/dev/null; echo on", Ending::Exited(0), "on\n"),
        ("exec 3>&-; echo on", Ending::Exited(0), "on\n"),
        ("exec 5>&- 9>&-; echo on", Ending::Exited(0), "on\n"),
        ("echo ended exited 1; echo over 0 0 >&2", Ending::Exited(0), "ended exited 1\nover 0 0\n"),
        ("echo a; exec >&- 2>&-; exit 5", Ending::Exited(5), "a\n"),
        ("printf 'a\\000b'", Ending::Exited(0), "a\0b"),
        ("printf 'no newline'", Ending::Exited(0), "no newline"),
        ("set -e; false; echo no", Ending::Exited(1), ""),
        ("trap 'echo bye; exit 4' EXIT; echo hi", Ending::Exited(4), "hi\nbye\n"),
        ("echo over >/dev/stderr; echo on >/dev/stdout", Ending::Exited(0), "over\non\n"),
        ("cat; echo eof", Ending::Exited(0), "eof\n"),
        (&long, Ending::Exited(0), "begin\nend\n"),
    ] {
        let ran = bench.run(&text(command)).await;
        let shown: String = command.chars().take(60).collect();
        assert_eq!(ran.ending, Some(ending), "{shown}: {}", ran.text());
        assert!(ran.text().contains(output), "{shown}: {:?}", ran.text());
        assert_eq!(bench.log(ran.id.unwrap()).await, ran.output, "{shown}");
    }
    // A syntax error is the shell's, and it is reported by the command's own exit code and output.
    for broken in ["echo 'unbalanced", "echo (", "if", "cat <<END\nno end"] {
        let ran = bench.run(&text(broken)).await;
        assert!(matches!(ran.ending, Some(Ending::Exited(_))), "{broken}: {:?}", ran.ending);
    }
}

pub async fn arguments_reach_the_program_unchanged(bench: Bench) {
    let argv = ["printf", "[%s]", "a b", "", "'\"$x\\", "-n", "#", "*"].map(str::to_owned).to_vec();
    let ran = bench.run(&spec(Program::Argv(argv))).await;
    assert_eq!(ran.text(), "[a b][]['\"$x\\][-n][#][*]");
    assert_eq!(ran.ending, Some(Ending::Exited(0)));
}

pub async fn failures_to_start_are_told_apart(bench: Bench) {
    bench.sh("mkdir -p /tmp/d; echo x >/tmp/plain; chmod 644 /tmp/plain").await;
    let argv = |program: &str| spec(Program::Argv(vec![program.to_owned()]));
    let shell = |shell: &str| spec(Program::Shell { text: "true".to_owned(), shell: Some(shell.to_owned()) });
    let workdir = |path: &str| TaskSpec { workdir: Some(path.to_owned()), ..text("true") };
    for (spec, expected) in [
        (argv("no-such-program"), (StartFailure::NotFound, Some(2))),
        (argv("/no/such/program"), (StartFailure::NotFound, Some(2))),
        (argv("/tmp/plain"), (StartFailure::NotExecutable, Some(13))),
        (argv("/tmp/d"), (StartFailure::NotExecutable, Some(13))),
        (shell("no-such-shell"), (StartFailure::NotFound, Some(2))),
        (workdir("/no/such/directory"), (StartFailure::NoSuchDirectory, Some(2))),
        (workdir("/tmp/plain"), (StartFailure::NoSuchDirectory, Some(20))),
    ] {
        match bench.run(&spec).await.ending {
            Some(Ending::FailedToStart { failure, errno, message }) => {
                assert_eq!((failure, errno), expected, "{spec:?}");
                assert!(message.contains(": "), "names what it is about: {message}");
            }
            other => panic!("{spec:?}: {other:?}"),
        }
    }
}

pub async fn workdir_and_shell_are_those_asked_for(bench: Bench) {
    bench.sh("mkdir -p '/tmp/a b'").await;
    let ran = bench.run(&TaskSpec { workdir: Some("/tmp/a b".to_owned()), ..text("pwd") }).await;
    assert_eq!(ran.text(), "/tmp/a b\n");
    let has_bash = bench.sh("command -v bash").await.contains("bash");
    let ran = bench.run(&text("echo \"${BASH_VERSION:+bash}\"")).await;
    assert_eq!(ran.text(), if has_bash { "bash\n" } else { "\n" });
    let sh = spec(Program::Shell { text: "echo \"${BASH_VERSION:+bash}\"".to_owned(), shell: Some("sh".to_owned()) });
    assert_eq!(bench.run(&sh).await.text(), "\n");
}

pub async fn a_task_is_launched_at_most_once(bench: Bench) {
    let (id, nonce) = (TaskId::new(), Nonce::new());
    let spec = text("echo once >>/tmp/count; sleep 0.2");
    let launches = (0..8)
        .map(|_| async { read(bench.bridge.launch(&bench.sandbox, id, nonce, &spec, SETTINGS).await.unwrap()).await });
    let ran = futures_util::future::join_all(launches).await;
    assert_eq!(ran.iter().filter(|ran| ran.ending == Some(Ending::Exited(0))).count(), 1);
    assert_eq!(bench.sh("cat /tmp/count").await, "once\n");
}

pub async fn a_fenced_launch_never_happens(bench: Bench) {
    let (id, nonce) = (TaskId::new(), Nonce::new());
    let finding = bench.bridge.probe(&bench.sandbox, &[(id, nonce)], true).await.unwrap().remove(0);
    assert!(!finding.directory && !finding.started, "{finding:?}");
    let spec = text("echo ran >/tmp/ran");
    let ran = read(bench.bridge.launch(&bench.sandbox, id, nonce, &spec, SETTINGS).await.unwrap()).await;
    assert_eq!(ran.ending, None);
    assert_eq!(bench.sh("cat /tmp/ran 2>/dev/null").await, "");
}

pub async fn a_dead_stream_disturbs_neither_command_nor_log(bench: Bench) {
    let script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i + 1)); done; sleep 0.5; echo last; exit 6";
    let (id, nonce, mut attachment) = bench.launch(&text(script)).await;
    until(&mut attachment, "the start", |report| matches!(report, Report::Started(_))).await;
    drop(attachment);
    let finding = bench.probe_until(id, nonce, "the exit file", |finding| finding.sentinel != Sentinel::Absent).await;
    assert_eq!(finding.sentinel, Sentinel::Complete(Ending::Exited(6)));
    let log = String::from_utf8(bench.log(id).await).unwrap();
    assert_eq!(log.lines().count(), 2001);
    assert!(log.ends_with("line 1999\nlast\n"));
}

pub async fn a_reader_that_does_not_read_does_not_hold_the_command_up(bench: Bench) {
    // More than all the pipes between the command and the reader hold.
    let (id, nonce, attachment) = bench.launch(&text("head -c 20000000 /dev/zero; exit 2")).await;
    let finding = bench.probe_until(id, nonce, "the exit file", |finding| finding.sentinel != Sentinel::Absent).await;
    assert_eq!(finding.sentinel, Sentinel::Complete(Ending::Exited(2)));
    bench.probe_until(id, nonce, "the whole log", |finding| finding.output_bytes == 20_000_000).await;
    let ran = timeout(DEADLINE, read(attachment)).await.expect("the stream ends");
    // A reader that is far behind may be told to read the log.
    let output = if ran.skipped { bench.log(id).await } else { ran.output };
    assert_eq!((output.len(), ran.over), (20_000_000, Some((20_000_000, false))));
}

pub async fn an_attachment_takes_up_at_any_byte(bench: Bench) {
    let script = "echo 0123456789; until [ -e /tmp/go ]; do sleep 0.1; done; echo more; exit 8";
    let (id, nonce, mut attachment) = bench.launch(&text(script)).await;
    until(&mut attachment, "output", |report| matches!(report, Report::Output(_))).await;
    drop(attachment);
    let mut attachment = bench.bridge.attach(&bench.sandbox, id, nonce, 5).await.unwrap();
    let report = until(&mut attachment, "the old output", |report| matches!(report, Report::Output(_))).await;
    assert_eq!(bytes_of(report), (5, b"56789\n".to_vec()));
    bench.sh("touch /tmp/go").await;
    let report = until(&mut attachment, "the end", |report| matches!(report, Report::Over { .. })).await;
    assert_eq!(report, Report::Over { bytes: 16, incomplete: false, gap: None });
    assert_eq!(bench.probe(id, nonce).await.sentinel, Sentinel::Complete(Ending::Exited(8)));
}

pub async fn output_is_seen_while_the_command_runs(bench: Bench) {
    let (_, _, mut attachment) =
        bench.launch(&text("echo first; until [ -e /tmp/seen ]; do sleep 0.1; done; echo second; sleep 60")).await;
    let report = until(&mut attachment, "the first line", |report| matches!(report, Report::Output(_))).await;
    assert_eq!(bytes_of(report), (0, b"first\n".to_vec()));
    attachment.follow().await.unwrap();
    bench.sh("touch /tmp/seen").await;
    let report = until(&mut attachment, "the second line", |report| matches!(report, Report::Output(_))).await;
    assert_eq!(bytes_of(report), (6, b"second\n".to_vec()));
}

pub async fn a_daemon_that_holds_the_output_does_not_delay_the_end(bench: Bench) {
    let script = "(until [ -e /tmp/later ]; do sleep 0.1; done; echo from the daemon) & echo done; exit 1";
    let (id, _, mut attachment) = bench.launch(&text(script)).await;
    let report = until(&mut attachment, "the end", is_end).await;
    assert_eq!(ending_of(report), Some(Ending::Exited(1)));
    bench.sh("touch /tmp/later").await;
    let deadline = Instant::now() + DEADLINE;
    while !bench.log(id).await.ends_with(b"from the daemon\n") {
        assert!(Instant::now() < deadline, "the daemon's output goes on into the log");
    }
}

pub async fn a_signal_reaches_the_whole_tree(bench: Bench) {
    // A child in another session, one that was given another parent, and one that ignores SIGTERM.
    let script = "setsid sh -c 'sleep 1001' & (sh -c 'sleep 1002 & sleep 1003' &) ; trap '' TERM; sh -c 'sleep 1004; :'; sleep 1005";
    let (id, nonce, mut attachment) = bench.launch(&text(script)).await;
    let started = until(&mut attachment, "the start", |report| matches!(report, Report::Started(_))).await;
    let Report::Started(process) = started else { unreachable!() };
    let deadline = Instant::now() + DEADLINE;
    // The command's shell, four sleeps and the shell that waits for the last of them; some shells stay beside their last command.
    while bench.bridge.signal(&bench.sandbox, id, Some(process), None).await.unwrap() < 6 {
        assert!(Instant::now() < deadline, "all children are found");
    }
    bench.bridge.signal(&bench.sandbox, id, Some(process), Some(Signal::TERM)).await.unwrap();
    assert!(bench.bridge.signal(&bench.sandbox, id, Some(process), None).await.unwrap() > 0, "one ignores SIGTERM");
    assert_eq!(bench.bridge.signal(&bench.sandbox, id, Some(process), Some(Signal::KILL)).await.unwrap(), 0);
    let left = bench
        .sh("for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null; echo; done | grep -c 'sleep 100[1-5]$'")
        .await;
    assert_eq!(left.trim(), "0");
    let finding = bench.probe_until(id, nonce, "the exit file", |finding| finding.sentinel != Sentinel::Absent).await;
    assert_eq!(finding.sentinel, Sentinel::Complete(Ending::Signaled(Signal::KILL)));
}

pub async fn a_recycled_pid_is_never_signalled(bench: Bench) {
    let (id, nonce, _attachment) = bench.launch(&text("sleep 60")).await;
    let found = bench.probe_until(id, nonce, "the process", |finding| finding.alive).await;
    let (process, _) = found.process.unwrap();
    // Another task whose recorded process has the same number and an older start.
    let stale = ProcessIdentity { pid: process.pid, start_ticks: process.start_ticks - 1 };
    assert_eq!(bench.bridge.signal(&bench.sandbox, TaskId::new(), Some(stale), Some(Signal::KILL)).await.unwrap(), 0);
    assert!(bench.probe(id, nonce).await.alive);
}

pub async fn a_killed_supervisor_is_noticed_and_no_result_is_invented(bench: Bench) {
    let (id, nonce, attachment) = bench.launch(&text("sleep 60")).await;
    bench.probe_until(id, nonce, "the process", |finding| finding.alive && finding.supervised).await;
    bench.sh(&bench.to_supervisors(id, "KILL")).await;
    let ran = timeout(DEADLINE, read(attachment)).await.expect("the stream ends");
    assert_eq!(ran.ending, None);
    let finding = bench.probe(id, nonce).await;
    assert!(!finding.supervised && finding.sentinel == Sentinel::Absent, "{finding:?}");
}

pub async fn a_signal_to_the_supervisor_is_no_result(bench: Bench) {
    let (id, nonce, _attachment) = bench.launch(&text("until [ -e /tmp/end ]; do sleep 0.1; done; exit 7")).await;
    bench.probe_until(id, nonce, "the process", |finding| finding.alive && finding.supervised).await;
    for signal in ["TERM", "HUP", "INT", "QUIT", "USR1", "USR2", "ALRM", "PIPE"] {
        bench.sh(&bench.to_supervisors(id, signal)).await;
        let finding = bench.probe(id, nonce).await;
        assert!(finding.alive && finding.supervised && finding.sentinel == Sentinel::Absent, "{signal}: {finding:?}");
    }
    bench.sh("touch /tmp/end").await;
    let finding = bench.probe_until(id, nonce, "the exit file", |finding| finding.sentinel != Sentinel::Absent).await;
    assert_eq!(finding.sentinel, Sentinel::Complete(Ending::Exited(7)));
}

pub async fn a_command_that_kills_by_its_own_words_spares_its_supervisor(bench: Bench) {
    let script = "for p in /proc/[0-9]*; do p=${p#/proc/}; if [ $p != $$ ] && grep -q need[l]e /proc/$p/cmdline; then kill -9 $p; fi; done; \
                  : needle; exit 5";
    let (id, nonce, _attachment) = bench.launch(&text(script)).await;
    let finding = bench.probe_until(id, nonce, "the exit file", |finding| finding.sentinel != Sentinel::Absent).await;
    assert_eq!(finding.sentinel, Sentinel::Complete(Ending::Exited(5)));
}

pub async fn the_command_finds_the_sandbox_as_it_would_alone(bench: Bench) {
    let alone = bench.sh("umask; ulimit -n; trap; env | cut -d= -f1 | grep -v -e PWD -e SHLVL -e _ | sort").await;
    let spec = TaskSpec { env: Default::default(), ..spec(Program::Argv(
        ["sh", "-c", "umask; ulimit -n; trap; env | cut -d= -f1 | grep -v -e PWD -e SHLVL -e _ | sort; ls /proc/self/fd | sort -n | tr '\\n' ' '; env | grep ERRAND | cut -d= -f1"].map(str::to_owned).to_vec())) };
    let ran = bench.run(&spec).await;
    assert_eq!(ran.text(), format!("{alone}0 1 2 3 ERRAND_TASK_ID\n"), "3 is the directory being listed");
}

pub async fn an_exit_file_that_is_garbage_or_foreign_is_no_result(bench: Bench) {
    let ran = bench.run(&text("true")).await;
    let id = ran.id.unwrap();
    let exit = format!("{}/{id}/exit", bench.root);
    assert_eq!(bench.probe(id, Nonce::new()).await.sentinel, Sentinel::Foreign);
    for (garbage, expected) in [
        (": >", Sentinel::Corrupt),
        ("printf 'errand 1' >", Sentinel::Corrupt),
        ("head -c 100000 /dev/zero >", Sentinel::Corrupt),
        ("printf 'a\\nb\\n' >", Sentinel::Corrupt),
        ("rm -f", Sentinel::Absent),
    ] {
        bench.sh(&format!("{garbage} {exit}")).await;
        assert_eq!(bench.probe(id, Nonce::new()).await.sentinel, expected, "{garbage}");
    }
}

pub async fn a_removed_log_is_reported_and_the_result_still_comes(bench: Bench) {
    let (id, nonce, mut attachment) =
        bench.launch(&text("echo a; until [ -e /tmp/gone ]; do sleep 0.1; done; exit 5")).await;
    until(&mut attachment, "output", |report| matches!(report, Report::Output(_))).await;
    bench.sh(&format!("rm -rf {}/{id}; touch /tmp/gone", bench.root)).await;
    let report = until(&mut attachment, "the end", is_end).await;
    assert_eq!(ending_of(report), Some(Ending::Exited(5)));
    let piece = Piece::Tail { limit: 10 };
    assert!(matches!(bench.bridge.read(&bench.sandbox, id, piece).await, Err(ReadError::Gone)));
    assert!(!bench.probe(id, nonce).await.directory);
}

pub async fn pieces_of_a_log_are_read_by_range_and_tail(bench: Bench) {
    let id = bench.run(&text("printf 0123456789")).await.id.unwrap();
    for (piece, start, expected) in [
        (Piece::From { offset: 0, limit: 4 }, 0, "0123"),
        (Piece::From { offset: 8, limit: 100 }, 8, "89"),
        (Piece::From { offset: 10, limit: 4 }, 10, ""),
        (Piece::From { offset: 99, limit: 4 }, 99, ""),
        (Piece::Tail { limit: 3 }, 7, "789"),
        (Piece::Tail { limit: 100 }, 0, "0123456789"),
    ] {
        let reader = bench.bridge.read(&bench.sandbox, id, piece).await.unwrap();
        assert_eq!((reader.size, reader.start), (10, start), "{piece:?}");
        assert_eq!(reader.bytes().await.unwrap(), expected.as_bytes(), "{piece:?}");
    }
}

pub async fn removed_tasks_leave_no_file(bench: Bench) {
    let long = format!("true # {}", "x".repeat(200_000));
    let ids = [bench.run(&text("echo a")).await.id.unwrap(), bench.run(&text(&long)).await.id.unwrap()];
    bench.bridge.remove(&bench.sandbox, &ids).await.unwrap();
    assert_eq!(bench.sh(&format!("ls {}", bench.root)).await, "");
}

/// One test for each case, in a module for each way to make a bench.
#[macro_export]
macro_rules! bridge_conformance {
    ($($name:ident: $make:expr;)+) => {
        $(mod $name {
            use super::*;
            $crate::bridge_conformance! { @cases $make;
                output_and_exit_code_are_those_of_the_command every_exit_code_and_signal_is_told_apart
                no_command_text_breaks_the_wrapper arguments_reach_the_program_unchanged failures_to_start_are_told_apart
                workdir_and_shell_are_those_asked_for a_task_is_launched_at_most_once a_fenced_launch_never_happens
                a_dead_stream_disturbs_neither_command_nor_log a_reader_that_does_not_read_does_not_hold_the_command_up
                an_attachment_takes_up_at_any_byte output_is_seen_while_the_command_runs
                a_daemon_that_holds_the_output_does_not_delay_the_end a_signal_reaches_the_whole_tree
                a_recycled_pid_is_never_signalled a_killed_supervisor_is_noticed_and_no_result_is_invented
                a_signal_to_the_supervisor_is_no_result a_command_that_kills_by_its_own_words_spares_its_supervisor
                the_command_finds_the_sandbox_as_it_would_alone
                an_exit_file_that_is_garbage_or_foreign_is_no_result a_removed_log_is_reported_and_the_result_still_comes
                pieces_of_a_log_are_read_by_range_and_tail removed_tasks_leave_no_file
            }
        })+
    };
    (@cases $make:expr; $($case:ident)+) => {
        $(#[tokio::test]
        async fn $case() {
            if let Some(bench) = $make.await {
                $crate::conformance::bridge::$case(bench).await;
            }
        })+
    };
}
