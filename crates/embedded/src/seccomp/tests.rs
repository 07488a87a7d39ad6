//! The filter under the real kernel, installed by bubblewrap.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::{
    env, fs,
    io::{self, Write as _},
    process::{Command, Output},
};

use super::*;

/// Makes the call in each of its arguments, a number and up to four call arguments, and prints the errno of each; 0 for success.
const CALLS: &str = r"
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
for call in sys.argv[1:]:
    ctypes.set_errno(0)
    failed = libc.syscall(*(ctypes.c_long(int(word)) for word in call.split())) == -1
    print(ctypes.get_errno() if failed else 0)
";

/// Work that commands commonly do.
const WORK: &str = r#"
import ctypes, multiprocessing, os, subprocess, threading
libc = ctypes.CDLL(None)
assert libc.personality(0xffffffff) == 0 and libc.personality(0x40000) == 0
done = []
threads = [threading.Thread(target=done.append, args=(n,)) for n in range(16)]
[thread.start() for thread in threads]; [thread.join() for thread in threads]
assert len(done) == 16
assert subprocess.run("echo a | tr a b; (exit 3)", shell=True, capture_output=True).returncode == 3
process = multiprocessing.get_context("fork").Process(target=os._exit, args=(4,))
process.start(); process.join(); assert process.exitcode == 4
assert os.ttyname(os.openpty()[1]).startswith("/dev/pts/")
print("worked")
"#;

/// Calls getpid as a 32-bit program does.
#[cfg(target_arch = "x86_64")]
const FOREIGN: &str = r#"
import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
"#;

/// Runs a Python program in a sandbox, with or without the filter. None when the host lacks a requirement: the test is then skipped.
fn run(filtered: bool, program: &str, arguments: &[String]) -> Option<Output> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&super::program().unwrap()).unwrap();
    io::Seek::rewind(&mut file).unwrap();
    let mut command = Command::new("bwrap");
    command.args(["--dev-bind", "/", "/", "--unshare-pid"]);
    if filtered {
        command.args(["--seccomp", "0"]);
    }
    let output = command.args(["python3", "-c", program]).args(arguments).stdin(file).output();
    let missing = match output {
        Ok(output) if output.stderr.starts_with(b"bwrap:") => String::from_utf8_lossy(&output.stderr).into_owned(),
        Ok(output) => return Some(output),
        Err(error) => format!("bwrap: {error}"),
    };
    assert!(env::var_os("CI").is_none(), "CI must have what the tests need: {missing}");
    writeln!(io::stderr(), "SKIPPED: {missing}").unwrap();
    None
}

fn errors(filtered: bool, calls: &[(i64, &str)]) -> Option<Vec<i32>> {
    let arguments: Vec<String> = calls.iter().map(|(number, rest)| format!("{number} {rest}")).collect();
    let output = run(filtered, CALLS, &arguments)?;
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(printed.lines().map(|line| line.parse().unwrap()).collect())
}

#[test]
fn listed_calls_are_refused_even_to_root() {
    let calls: Vec<_> = REFUSED.iter().chain(REFUSED_HERE).map(|call| (*call, "-1 -1 -1 -1")).collect();
    let Some(errors) = errors(true, &calls) else { return };
    let refused: Vec<_> = calls.iter().zip(&errors).filter(|(_, error)| **error != EPERM).collect();
    assert!(refused.is_empty(), "these were not refused: {refused:?}");
}

#[test]
fn dangerous_arguments_are_refused() {
    // The second run shows that nothing but the filter refuses these calls.
    let calls = [
        (libc::SYS_unshare, "0x10000000"),
        (libc::SYS_ioctl, "0 0x5412 0"),
        (libc::SYS_ioctl, "0 0x541c 0"),
        // The kernel ignores the upper half, so the filter must ignore it too.
        (libc::SYS_ioctl, "0 0x100005412 0"),
        (libc::SYS_personality, "0x0400000"),
        (libc::SYS_keyctl, "0 -2 0"),
        (libc::SYS_name_to_handle_at, "-1 0 0 0"),
        (libc::SYS_open_tree, "-1 0 0"),
    ]
    .map(|(number, rest)| (number, rest.split(' ').map(decimal).collect::<Vec<_>>().join(" ")));
    let calls: Vec<_> = calls.iter().map(|(number, rest)| (*number, rest.as_str())).collect();
    let (Some(filtered), Some(free)) = (errors(true, &calls), errors(false, &calls)) else { return };
    assert_eq!(filtered, vec![EPERM; calls.len()]);
    assert!(!free.contains(&EPERM), "without the filter: {free:?}");
}

/// [`CALLS`] accepts only decimal numbers.
fn decimal(word: &str) -> String {
    match word.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).unwrap().to_string(),
        None => word.to_owned(),
    }
}

#[test]
fn clone_cannot_make_any_namespace() {
    let calls: Vec<_> = CLONE_NAMESPACES.iter().map(|flag| format!("{} 0 0 0", flag | libc::SIGCHLD)).collect();
    let calls: Vec<_> = calls.iter().map(|rest| (libc::SYS_clone, rest.as_str())).collect();
    let Some(errors) = errors(true, &calls) else { return };
    assert_eq!(errors, vec![EPERM; calls.len()]);
}

#[test]
fn calls_with_a_fallback_seem_absent() {
    let mut calls = vec![(libc::SYS_clone3, "0 0")];
    if cfg!(target_arch = "x86_64") {
        // getpid of the x32 ABI.
        calls.push((0x4000_0000 + libc::SYS_getpid, ""));
    }
    let Some(errors) = errors(true, &calls) else { return };
    assert_eq!(errors, vec![libc::ENOSYS; calls.len()]);
}

#[test]
fn ordinary_work_succeeds() {
    let Some(output) = run(true, WORK, &[]) else { return };
    assert_eq!(String::from_utf8_lossy(&output.stdout), "worked\n", "{}", String::from_utf8_lossy(&output.stderr));
}

#[cfg(target_arch = "x86_64")]
#[test]
fn calls_of_another_architecture_kill_the_process() {
    if !fs::read_to_string("/proc/cpuinfo").unwrap().contains(" lm ") {
        return;
    }
    let (Some(filtered), Some(free)) = (run(true, FOREIGN, &[]), run(false, FOREIGN, &[])) else { return };
    // bubblewrap reports a signal as a shell does. A kernel without 32-bit programs kills the process without the filter too.
    assert_eq!(filtered.status.code(), Some(128 + libc::SIGSYS), "without the filter: {:?}", free.status);
}

#[test]
fn filter_fits_the_kernels_limit() {
    let bytes = program().unwrap();
    assert_eq!(bytes.len() % 8, 0);
    assert!(bytes.len() / 8 < 1024, "{} instructions", bytes.len() / 8);
}
