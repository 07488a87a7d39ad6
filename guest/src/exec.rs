//! Executes a program as a shell would: searches a path for it, and runs files of a format unknown to the kernel with a shell.

use std::{
    ffi::{CStr, CString},
    io,
};

use rustix::io::Errno;

/// The search path when the environment has none; the same as in execvp(3).
pub(crate) const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Runs files of a format that the kernel does not know, as execvp(3) does.
const FALLBACK_SHELL: &CStr = c"/bin/sh";

/// Why a program was not executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The kernel's error about the program itself.
    Program(Errno),
    /// The program exists, but something it needs to run (its interpreter or loader) does not.
    Interpreter(Errno),
}

/// Replaces this process with the program that `argv` names, or returns the reason why not. A name without a slash is searched for along
/// `path`.
pub(crate) fn exec(argv: &[CString], path: &str, env: &[CString]) -> Refusal {
    let Some(program) = argv.first() else { return Refusal::Program(Errno::NOENT) };
    if program.as_bytes().contains(&b'/') {
        return exec_file(program, argv, env);
    }
    let mut worst = Refusal::Program(Errno::NOENT);
    for entry in path.split(':') {
        let entry = if entry.is_empty() { "." } else { entry };
        let Ok(file) = CString::new([entry.as_bytes(), b"/", program.as_bytes()].concat()) else { continue };
        // An access check costs less than a failed exec.
        if let Err(Errno::NOENT) = rustix::fs::access(file.as_c_str(), rustix::fs::Access::EXISTS) {
            continue;
        }
        match exec_file(&file, argv, env) {
            Refusal::Program(Errno::NOENT | Errno::NOTDIR) => {}
            // A later directory may hold an executable file of this name.
            denied @ Refusal::Program(Errno::ACCESS) => worst = denied,
            other => return other,
        }
    }
    worst
}

fn exec_file(file: &CString, argv: &[CString], env: &[CString]) -> Refusal {
    match execve(file, argv, env) {
        Errno::NOEXEC => {
            let mut with_shell = vec![c"/bin/sh".to_owned(), file.clone()];
            with_shell.extend(argv.iter().skip(1).cloned());
            match execve(FALLBACK_SHELL, &with_shell, env) {
                Errno::NOENT => Refusal::Program(Errno::NOEXEC),
                errno => Refusal::Program(errno),
            }
        }
        Errno::NOENT if rustix::fs::access(file.as_c_str(), rustix::fs::Access::EXISTS).is_ok() => {
            Refusal::Interpreter(Errno::NOENT)
        }
        errno => Refusal::Program(errno),
    }
}

/// Replaces this process's program. Returns only when that fails, with the reason.
pub(crate) fn execve(file: &CStr, argv: &[CString], env: &[CString]) -> Errno {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: both lists end with a null pointer, and what they point to lives until the call returns.
    #[allow(unsafe_code)]
    unsafe {
        libc::execve(file.as_ptr(), argv.as_ptr(), env.as_ptr());
    }
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::NOENT)
}

/// Unblocks every signal.
pub(crate) fn unblock_signals() {
    // SAFETY: the set is made by sigemptyset before it is used.
    #[allow(unsafe_code)]
    unsafe {
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
}

/// Resets every signal to its default action. A signal ignored here would be ignored in every command.
pub(crate) fn default_signals() {
    // SAFETY: the default actions run no code of ours.
    #[allow(unsafe_code)]
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
}
