//! The child processes of a shim, and the resources they have used.

use std::{io, os::unix::process::ExitStatusExt as _, process::ExitStatus};

use errand_proto::bridge::Usage;

/// What was found out about the children.
#[derive(Debug)]
pub(super) struct Reaped {
    /// How the command's first process ended, if it was reaped now.
    pub(super) first: Option<ExitStatus>,
    /// True when there is no child process any more.
    pub(super) drained: bool,
}

/// Sums up what the children of one task have used. The kernel's count for all children of this process will not do: it includes earlier
/// tasks.
#[derive(Debug, Default)]
pub(super) struct Children {
    used: Usage,
}

impl Children {
    /// Reaps every child that has ended, without blocking. `first` is the process id of the command's first process.
    pub(super) fn reap_all(&mut self, first: u32) -> Reaped {
        let mut reaped = Reaped { first: None, drained: false };
        loop {
            let mut status = 0;
            // SAFETY: the structure is plain numbers, and both pointers are to local values.
            #[allow(unsafe_code)]
            let (pid, usage) = unsafe {
                let mut usage: libc::rusage = std::mem::zeroed();
                (libc::wait4(-1, &raw mut status, libc::WNOHANG, &raw mut usage), usage)
            };
            match pid {
                0 => return reaped,
                -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                -1 => return Reaped { drained: true, ..reaped },
                pid => {
                    self.count(&usage);
                    if u32::try_from(pid) == Ok(first) {
                        reaped.first = Some(ExitStatus::from_raw(status));
                    }
                }
            }
        }
    }

    /// What the ended children have used, including all processes that they have waited for.
    pub(super) fn used(&self) -> Usage {
        self.used
    }

    fn count(&mut self, usage: &libc::rusage) {
        let microseconds = |time: libc::timeval| {
            u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_usec).unwrap_or(0)
        };
        let scaled = |value: libc::c_long, unit: u64| u64::try_from(value).unwrap_or(0) * unit;
        self.used.user_cpu_us += microseconds(usage.ru_utime);
        self.used.system_cpu_us += microseconds(usage.ru_stime);
        // Kilobytes and blocks of 512 bytes, see getrusage(2).
        self.used.peak_memory_bytes = self.used.peak_memory_bytes.max(scaled(usage.ru_maxrss, 1024));
        self.used.read_bytes += scaled(usage.ru_inblock, 512);
        self.used.written_bytes += scaled(usage.ru_oublock, 512);
    }
}
