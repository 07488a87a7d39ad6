//! Runs the real binary against a bridge process that is about to exit.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    fs::FlockOperation,
    net::sockopt::socket_peercred,
    process::{Signal, kill_process},
};

#[test]
fn bridge_restarts_after_yielding_to_an_exiting_one() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join(".bridge");
    fs::create_dir(&directory).unwrap();
    let lock = File::create(directory.join("lock")).unwrap();
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).unwrap();
    let socket = directory.join("socket");
    let old = UnixListener::bind(&socket).unwrap();

    let mut connecting = Command::new(env!("CARGO_BIN_EXE_errand-bridge"))
        .args(["connect", root.path().to_str().unwrap(), "1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut asked, _) = old.accept().unwrap();
    asked.read_exact(&mut [0; 4]).unwrap();
    asked.write_all(b"r").unwrap();
    // The newly started bridge process still finds a listener here.
    drop(old.accept().unwrap());
    drop((old, lock));

    // The first message of a bridge process. If it never comes, the connecting process exits without output.
    let mut stdout = connecting.stdout.take().unwrap();
    stdout.read_exact(&mut [0]).expect("a bridge");
    let bridge = socket_peercred(UnixStream::connect(&socket).unwrap()).unwrap().pid;
    kill_process(bridge, Signal::KILL).unwrap();
    connecting.wait().unwrap();
}

/// A connecting process, and the connection that it made to a bridge process that never answers.
fn connecting(root: &std::path::Path) -> (Child, UnixStream) {
    let directory = root.join(".bridge");
    fs::create_dir(&directory).unwrap();
    let bridge = UnixListener::bind(directory.join("socket")).unwrap();
    let connecting = Command::new(env!("CARGO_BIN_EXE_errand-bridge"))
        .args(["connect", root.to_str().unwrap(), "1"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut asked, _) = bridge.accept().unwrap();
    asked.read_exact(&mut [0; 4]).unwrap();
    (connecting, asked)
}

/// Waits for the process to exit.
fn ended(connecting: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        if let Some(status) = connecting.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < deadline, "it waits without end");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn connection_ends_when_the_server_leaves() {
    let root = tempfile::tempdir().unwrap();
    let (mut connecting, mut bridge) = connecting(root.path());
    bridge.write_all(b"t").unwrap();
    // The server's end of the streams. The bridge process keeps its connection open, as a stopped one does.
    drop(connecting.stdin.take());
    assert!(ended(&mut connecting).success());
}

#[test]
fn silent_bridge_process_times_out() {
    let root = tempfile::tempdir().unwrap();
    let (mut connecting, _bridge) = connecting(root.path());
    assert!(!ended(&mut connecting).success());
    let mut said = String::new();
    connecting.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "", "words would say that no bridge can run there");
}

#[test]
fn bridge_process_that_accepts_nothing_times_out() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join(".bridge");
    fs::create_dir(&directory).unwrap();
    let socket = directory.join("socket");
    let bridge = UnixListener::bind(&socket).unwrap();
    // The queue has room for a single connection that waits to be accepted.
    rustix::net::listen(&bridge, 0).unwrap();
    let _waiting = UnixStream::connect(&socket).unwrap();
    let mut connecting = Command::new(env!("CARGO_BIN_EXE_errand-bridge"))
        .args(["connect", root.path().to_str().unwrap(), "1"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    assert!(!ended(&mut connecting).success());
    let mut said = String::new();
    connecting.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "", "words would say that no bridge can run there");
}
