//! The real binary against a bridge that is about to go.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    process::{Command, Stdio},
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
