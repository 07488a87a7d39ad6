//! Executing a program as a shell would: looked for along a search path, with a shell for what has no format that the kernel knows.

use std::{
    ffi::{CStr, CString},
    io,
};

use rustix::io::Errno;

/// Where programs are looked for when the environment does not say; that of execvp(3).
pub(crate) const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Runs what has no format that the kernel knows, as execvp(3) does.
const FALLBACK_SHELL: &CStr = c"/bin/sh";

/// Why a program was not executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The kernel's word about the program itself.
    Program(Errno),
    /// The program is there, and what it needs to run is not.
    Interpreter(Errno),
}

/// Becomes the program that `argv` names, or says why not. Without a slash in its name it is looked for along `path`.
pub(crate) fn exec(argv: &[CString], path: &str, env: &[CString]) -> Refusal {
    let Some(program) = argv.first() else { return Refusal::Program(Errno::NOENT) };
    if program.as_bytes().contains(&b'/') {
        return exec_file(program, argv, env);
    }
    let mut worst = Refusal::Program(Errno::NOENT);
    for entry in path.split(':') {
        let entry = if entry.is_empty() { "." } else { entry };
        let Ok(file) = CString::new([entry.as_bytes(), b"/", program.as_bytes()].concat()) else { continue };
        // Cheaper than to fail.
        if let Err(Errno::NOENT) = rustix::fs::access(file.as_c_str(), rustix::fs::Access::EXISTS) {
            continue;
        }
        match exec_file(&file, argv, env) {
            Refusal::Program(Errno::NOENT | Errno::NOTDIR) => {}
            // Perhaps a later entry has one that may be run.
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

/// Lets every signal come again.
pub(crate) fn unblock_signals() {
    // SAFETY: the set is made by sigemptyset before it is used.
    #[allow(unsafe_code)]
    unsafe {
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
}

/// Gives every signal its default meaning. What is ignored here would be ignored by every command.
pub(crate) fn default_signals() {
    // SAFETY: the default handlers are no code of ours.
    #[allow(unsafe_code)]
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
}
