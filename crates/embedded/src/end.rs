//! Ending the life of a sandbox.

use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{
    launch::is_alive,
    processes::Process,
    record::{Life, Record},
};
use errand_runtime::RuntimeError;

/// How long the init takes to end everything, at most: its processes get two seconds.
const GRACE: Duration = Duration::from_secs(3);
/// How long a killed process may take to be gone: the kernel may have files to close and memory to give back.
const KILL_LIMIT: Duration = Duration::from_secs(30);
/// How long a sandbox that is being made by a server that is gone may take until it has an init.
const MAKING: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(2);

/// Ends every process of a sandbox. When it returns, none is left.
///
/// # Errors
/// [`RuntimeError::Unavailable`] when processes cannot be ended.
pub(super) fn end(directory: &Path, record: &Record) -> Result<(), RuntimeError> {
    let Some(life) = Life::read(directory) else { return Ok(()) };
    let stuck = |what: &str| RuntimeError::Unavailable { detail: format!("the sandbox {:?} {what}", record.name) };
    let failed = |error: io::Error| stuck(&format!("cannot be waited for: {error}"));
    let deadline = Instant::now() + MAKING;
    while is_alive(directory) {
        match Process::init(directory, &life) {
            Some(init) => {
                init.signal(Signal::TERM);
                if !init.ended_within(GRACE).map_err(failed)? {
                    init.signal(Signal::KILL);
                    if !init.ended_within(KILL_LIMIT).map_err(failed)? {
                        return Err(stuck("has a process that does not end"));
                    }
                }
            }
            // It is being made by a server that is gone.
            None => Process::keepers(&life).iter().for_each(|process| process.signal(Signal::KILL)),
        }
        if Instant::now() > deadline {
            return Err(stuck("does not end"));
        }
        std::thread::sleep(PAUSE);
    }
    // Whoever waited for the init ends with it. What it had mounted goes with the last of them.
    for process in Process::keepers(&life) {
        if !process.ended_within(GRACE).map_err(failed)? {
            process.signal(Signal::KILL);
            if !process.ended_within(KILL_LIMIT).map_err(failed)? {
                return Err(stuck("has a process that does not end"));
            }
        }
    }
    Ok(())
}
