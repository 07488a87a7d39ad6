//! `forkloop COUNT AT_A_TIME`: runs `sh -c true` COUNT times, AT_A_TIME of them concurrently, and prints how many nanoseconds that took.
//!
//! The lower bound for every program that runs commands: fork, exec, wait, and no records. One thread and very little memory make a fork as
//! cheap as possible. The benchmark builds it statically and puts it into the sandbox, so that it uses the same shell.

use std::{env, error::Error, io, ptr, time::Instant};

const SHELL: *const libc::c_char = c"/bin/sh".as_ptr();

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (count, at_a_time) = (arguments.next().ok_or("COUNT")?.parse()?, arguments.next().ok_or("AT_A_TIME")?.parse()?);
    let begun = Instant::now();
    run(count, at_a_time)?;
    println!("{}", begun.elapsed().as_nanos());
    Ok(())
}

fn run(count: u64, at_a_time: u64) -> io::Result<()> {
    let (mut started, mut ended) = (0, 0);
    while ended < count {
        while started < count && started - ended < at_a_time {
            start()?;
            started += 1;
        }
        wait()?;
        ended += 1;
    }
    Ok(())
}

/// Uses `fork`, not `posix_spawn`: for a process this small both cost the same, and with `fork` the parent does not wait for the exec.
fn start() -> io::Result<()> {
    let arguments = [SHELL, c"-c".as_ptr(), c"true".as_ptr(), ptr::null()];
    // SAFETY: there is one thread, so the child may call any function; the arguments are NUL-terminated strings in a null-terminated list.
    unsafe {
        match libc::fork() {
            0 => {
                libc::execv(SHELL, arguments.as_ptr());
                libc::_exit(127)
            }
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}

fn wait() -> io::Result<()> {
    let mut status = 0;
    // SAFETY: the status is written to a variable of this function.
    match unsafe { libc::waitpid(-1, &mut status, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ if status == 0 => Ok(()),
        _ => Err(io::Error::other("a command failed")),
    }
}
