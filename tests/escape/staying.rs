//! Staying alive when the sandbox is stopped or removed.

use std::fs;

use errand_runtime::Runtime as _;

use super::pair::pair;
use crate::support::wait::eventually;

/// Python that leaves daemons of every kind behind: each ignores every signal that can be ignored, has no parent, and reports that it runs.
const DAEMONS: &str = "
import os, signal, subprocess, sys, time
mark = sys.argv[1]
kinds = ['ignoring', 'stopped', 'forking', 'tracing', 'reopening']
for kind in kinds:
    if os.fork() > 0:
        continue
    os.setsid()
    if os.fork() > 0:
        os._exit(0)
    os.setsid()
    for number in range(1, 65):
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
    os.chdir('/')
    null = os.open('/dev/null', os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    open('/workspace/there-' + kind, 'w').close()
    if kind == 'stopped':
        os.kill(os.getpid(), signal.SIGSTOP)
    if kind == 'forking':
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        while True:
            if os.fork() > 0:
                os._exit(0)
            time.sleep(0.01)
    if kind == 'tracing':
        import ctypes
        traced = os.fork()
        if traced == 0:
            while True:
                time.sleep(1000)
        ctypes.CDLL(None).ptrace(16, traced, 0, 0)
    if kind == 'reopening':
        held = [open('/usr/bin/env', 'rb'), open('/proc/self/mem', 'rb'), os.open('/workspace', os.O_RDONLY)]
    while True:
        time.sleep(1000)
";
const KINDS: usize = 5;

/// The processes of this machine that have this text in their arguments.
fn processes(mark: &str) -> Vec<String> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let named = all.filter_map(|entry| {
        let arguments = fs::read(entry.path().join("cmdline")).ok()?;
        String::from_utf8_lossy(&arguments).contains(mark).then(|| entry.file_name().to_string_lossy().into_owned())
    });
    named.collect()
}

/// Starts the daemons of a sandbox, and waits until all of them run.
async fn haunted() -> Option<(super::pair::Pair, String)> {
    let pair = pair().await?;
    let mark = format!("daemon-{}", pair.secret());
    pair.inside.runtime.put_file(pair.inside.id(), "/workspace/daemons.py", DAEMONS.as_bytes(), 0o644).await.unwrap();
    assert_eq!(pair.sh(&format!("python3 /workspace/daemons.py {mark}")).await, "");
    eventually("all daemons are there", async || {
        (pair.sh("ls /workspace/there-* | wc -l").await.trim() == KINDS.to_string()).then_some(())
    })
    .await;
    assert!(processes(&mark).len() >= KINDS);
    Some((pair, mark))
}

#[tokio::test]
async fn no_daemon_outlives_a_removal() {
    let Some((mut pair, mark)) = haunted().await else { return };
    let init = pair.init();
    pair.inside.runtime.remove(pair.inside.id()).await.unwrap();
    assert_eq!(processes(&mark), [""; 0]);
    assert!(!fs::exists(format!("/proc/{init}")).unwrap());
    pair.others_are_unharmed().await;
}

#[tokio::test]
async fn no_daemon_outlives_a_stop() {
    let Some((mut pair, mark)) = haunted().await else { return };
    pair.inside.runtime.stop(pair.inside.id()).await.unwrap();
    assert_eq!(processes(&mark), [""; 0]);
    pair.inside.runtime.start(pair.inside.id()).await.unwrap();
    assert_eq!(processes(&mark), [""; 0]);
    pair.is_unharmed().await;
}

#[tokio::test]
async fn no_daemon_outlives_its_init() {
    let Some((mut pair, mark)) = haunted().await else { return };
    let init = rustix::process::Pid::from_raw(pair.init().try_into().unwrap()).unwrap();
    rustix::process::kill_process(init, rustix::process::Signal::KILL).unwrap();
    eventually("all are gone", async || processes(&mark).is_empty().then_some(())).await;
    pair.others_are_unharmed().await;
}
