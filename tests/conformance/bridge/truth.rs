//! A command is launched at most once, and only its true result is reported.

use std::time::Duration;

use errand_bridge::{Piece, Report};
use errand_task::{Ending, Nonce, ProcessIdentity, Signal, TaskId, sentinel::Sentinel};
use tokio::time::{Instant, timeout};

use super::bench::{Bench, DEADLINE, SETTINGS, read, text, until};

pub async fn task_is_launched_at_most_once(bench: Bench) {
    let (id, nonce) = (TaskId::new(), Nonce::new());
    let spec = text("echo once >>/tmp/count; sleep 0.2");
    let launches = (0..8)
        .map(|_| async { read(bench.bridge.launch(id, nonce, &spec, SETTINGS, &[]).await.unwrap()).await });
    let ran = futures_util::future::join_all(launches).await;
    assert_eq!(ran.iter().filter(|ran| ran.ending == Some(Ending::Exited(0))).count(), 1);
    assert_eq!(bench.sh("cat /tmp/count").await, "once\n");
}

pub async fn fenced_launch_never_happens(bench: Bench) {
    let (id, nonce) = (TaskId::new(), Nonce::new());
    let finding = bench.bridge.probe(&[(id, nonce)], true).await.unwrap().remove(0);
    assert!(!finding.directory && !finding.started, "{finding:?}");
    let spec = text("echo ran >/tmp/ran");
    let ran = read(bench.bridge.launch(id, nonce, &spec, SETTINGS, &[]).await.unwrap()).await;
    assert_eq!(ran.ending, None);
    assert_eq!(bench.sh("cat /tmp/ran 2>/dev/null").await, "");
}

pub async fn failed_fence_forbids_no_launch(bench: Bench) {
    let (id, nonce) = (TaskId::new(), Nonce::new());
    bench.sh(&format!("mkdir -p {}/{id}/fenced", bench.root)).await;
    // The probe fails, or answers that the result is unknown.
    if let Ok(findings) = bench.bridge.probe(&[(id, nonce)], true).await {
        assert!(findings[0].started, "{findings:?}");
    }
}

pub async fn signal_reaches_the_whole_tree(bench: Bench) {
    // A child in another session, a child with another parent, and one that ignores SIGTERM.
    let script = "setsid sh -c 'sleep 1001' & (sh -c 'sleep 1002 & sleep 1003' &) ; trap '' TERM; sh -c 'sleep 1004; :'; sleep 1005";
    let (id, nonce, mut attachment) = bench.launch(&text(script)).await;
    let started = until(&mut attachment, "the start", |report| matches!(report, Report::Started { .. })).await;
    let Report::Started { process, .. } = started else { unreachable!() };
    let deadline = Instant::now() + DEADLINE;
    // The command's shell, four sleeps, and the shell that waits for the last sleep; some shells stay beside their last command.
    while bench.bridge.signal(id, Some(process), None).await.unwrap() < 6 {
        assert!(Instant::now() < deadline, "all children are found");
    }
    bench.bridge.signal(id, Some(process), Some(Signal::TERM)).await.unwrap();
    assert!(bench.bridge.signal(id, Some(process), None).await.unwrap() > 0, "one ignores SIGTERM");
    assert_eq!(bench.bridge.signal(id, Some(process), Some(Signal::KILL)).await.unwrap(), 0);
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
    // Another task whose recorded process has the same pid and an earlier start.
    let stale = ProcessIdentity { pid: process.pid, start_ticks: process.start_ticks - 1 };
    assert_eq!(bench.bridge.signal(TaskId::new(), Some(stale), Some(Signal::KILL)).await.unwrap(), 0);
    assert!(bench.probe(id, nonce).await.alive);
}

pub async fn killed_supervisor_leaves_no_invented_result(bench: Bench) {
    let (id, nonce, attachment) = bench.launch(&text("sleep 60")).await;
    bench.probe_until(id, nonce, "the process", |finding| finding.alive && finding.supervised).await;
    bench.sh(&bench.to_supervisors(id, "KILL")).await;
    let ran = timeout(DEADLINE, read(attachment)).await.expect("the stream ends");
    assert_eq!(ran.ending, None);
    let finding = bench.probe(id, nonce).await;
    assert!(!finding.supervised && finding.sentinel == Sentinel::Absent, "{finding:?}");
}

pub async fn signal_to_the_supervisor_is_no_result(bench: Bench) {
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

pub async fn corrupt_or_foreign_exit_file_is_no_result(bench: Bench) {
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

pub async fn corrupt_task_files_block_no_answer(bench: Bench) {
    let files = "exit exit.part output.log processes streams gap gap.part fenced incomplete jobs";
    for impostor in ["mkfifo $f", "mkdir -p $f/d", "ln -s /dev/zero $f", "truncate -s 1024G $f"] {
        let script = format!(
            "cd {}/$ERRAND_TASK_ID; for f in {files}; do rm -rf $f; {impostor}; done; touch /tmp/spoilt; exec sleep 1006",
            bench.root
        );
        let (id, nonce, mut attachment) = bench.launch(&text(&script)).await;
        let started = until(&mut attachment, "the start", |report| matches!(report, Report::Started { .. })).await;
        let Report::Started { process, .. } = started else { unreachable!() };
        let deadline = Instant::now() + DEADLINE;
        while bench.sh("rm /tmp/spoilt 2>/dev/null && echo yes").await != "yes\n" {
            assert!(Instant::now() < deadline, "the files are spoilt: {impostor}");
        }
        // Shorter than the bridge's own timeout.
        let answers = timeout(Duration::from_secs(20), async {
            bench.bridge.probe(&[(id, nonce)], false).await.unwrap();
            let piece = Piece::From { offset: 0, limit: 1000 };
            if let Ok(log) = bench.bridge.read(id, piece).await {
                let _ = log.bytes().await;
            }
            drop(bench.bridge.attach(id, nonce, 0, &[]).await);
            bench.bridge.signal(id, Some(process), Some(Signal::KILL)).await.unwrap()
        });
        assert_eq!(answers.await.unwrap_or_else(|_| panic!("no answer: {impostor}")), 0, "{impostor}");
        let left = bench
            .sh("for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null; echo; done | grep -cx 'sleep 1006 '")
            .await;
        assert_eq!(left.trim(), "0", "{impostor}");
        assert_eq!(bench.run(&text("exit 3")).await.ending, Some(Ending::Exited(3)), "{impostor}");
    }
}

pub async fn removed_tasks_leave_no_file(bench: Bench) {
    let long = format!("true # {}", "x".repeat(200_000));
    let ids = [bench.run(&text("echo a")).await.id.unwrap(), bench.run(&text(&long)).await.id.unwrap()];
    bench.bridge.remove(&ids).await.unwrap();
    assert_eq!(bench.sh(&format!("ls {}", bench.root)).await, "");
}
