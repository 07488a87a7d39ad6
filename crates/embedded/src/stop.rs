//! Stops a sandbox: ends its init, with which the kernel ends every other process in it.

use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{
    processes::Process,
    record::{IncarnationId, Record},
    start::is_alive,
};
use errand_runtime::RuntimeError;

/// How long the init may take to end: it gives the processes of the sandbox 2 s after SIGTERM.
const GRACE: Duration = Duration::from_secs(3);
/// How long a killed process may take to end: the kernel first closes its files and frees its memory.
const KILL_LIMIT: Duration = Duration::from_secs(30);
/// How long the attempts go on in total. A sandbox that a server was starting when that server died may get its init during them.
const STOP_LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(2);

/// Ends every process of a sandbox, and returns once all have ended.
///
/// # Errors
/// [`RuntimeError::Unavailable`] when a process does not end.
pub(super) fn stop(directory: &Path, record: &Record) -> Result<(), RuntimeError> {
    let Some(incarnation) = IncarnationId::read(directory) else { return Ok(()) };
    let stuck = |what: &str| RuntimeError::Unavailable { detail: format!("the sandbox {:?} {what}", record.name) };
    let failed = |error: io::Error| stuck(&format!("cannot be awaited: {error}"));
    let deadline = Instant::now() + STOP_LIMIT;
    while is_alive(directory) {
        match Process::init(directory, &incarnation) {
            Some(init) => {
                init.signal(Signal::TERM);
                if !init.ended_within(GRACE).map_err(failed)? {
                    init.signal(Signal::KILL);
                    if !init.ended_within(KILL_LIMIT).map_err(failed)? {
                        return Err(stuck("has a process that does not end"));
                    }
                }
            }
            // The sandbox has no init yet: a server that has ended was starting it.
            None => Process::keepers(&incarnation).iter().for_each(|process| process.signal(Signal::KILL)),
        }
        if Instant::now() > deadline {
            return Err(stuck("does not end"));
        }
        std::thread::sleep(PAUSE);
    }
    // The processes that waited for the init end after it. The last one takes the sandbox's mounts with it.
    for process in Process::keepers(&incarnation) {
        if !process.ended_within(GRACE).map_err(failed)? {
            process.signal(Signal::KILL);
            if !process.ended_within(KILL_LIMIT).map_err(failed)? {
                return Err(stuck("has a process that does not end"));
            }
        }
    }
    Ok(())
}
