//! `forkloop COUNT AT_A_TIME`: runs `sh -c true` so often, so many of them at any moment, and prints how many nanoseconds that took.
//!
//! The floor of everything that runs commands: fork, exec, wait, and nothing is kept. One thread and next to no memory, so that a fork
//! is as cheap as it gets. Built static by the benchmark and put into the sandbox, to use the same shell there.

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

/// `fork` and not `posix_spawn`: of a process this small it costs the same, and the parent does not wait for the child's exec.
fn start() -> io::Result<()> {
    let arguments = [SHELL, c"-c".as_ptr(), c"true".as_ptr(), ptr::null()];
    // SAFETY: there is one thread, so the child may do whatever it likes; the arguments are texts with an end, and a list with one.
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
