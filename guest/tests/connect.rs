//! The real binary against a bridge that is about to go.

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
fn a_bridge_that_gave_way_to_one_that_goes_is_started_again() {
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
    // The bridge that was started instead still finds somebody here.
    drop(old.accept().unwrap());
    drop((old, lock));

    // The first that a bridge says. Without one the connection gives up, and says nothing.
    let mut stdout = connecting.stdout.take().unwrap();
    stdout.read_exact(&mut [0]).expect("a bridge");
    let bridge = socket_peercred(UnixStream::connect(&socket).unwrap()).unwrap().pid;
    kill_process(bridge, Signal::KILL).unwrap();
    connecting.wait().unwrap();
}

/// A process that connects, and the connection that a bridge without life takes from it.
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

/// Waits until it has ended.
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
fn a_connection_that_the_server_left_ends() {
    let root = tempfile::tempdir().unwrap();
    let (mut connecting, mut bridge) = connecting(root.path());
    bridge.write_all(b"t").unwrap();
    // The server's end of the streams. The bridge keeps its connection, as one that was stopped does.
    drop(connecting.stdin.take());
    assert!(ended(&mut connecting).success());
}

#[test]
fn a_bridge_that_never_answers_is_given_up() {
    let root = tempfile::tempdir().unwrap();
    let (mut connecting, _bridge) = connecting(root.path());
    assert!(!ended(&mut connecting).success());
    let mut said = String::new();
    connecting.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "", "words would say that no bridge can run there");
}

#[test]
fn a_bridge_that_accepts_nobody_is_given_up() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join(".bridge");
    fs::create_dir(&directory).unwrap();
    let socket = directory.join("socket");
    let bridge = UnixListener::bind(&socket).unwrap();
    // No room but for one that waits to be accepted.
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
