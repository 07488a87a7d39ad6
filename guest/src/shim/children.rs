//! The child processes of a shim, and the resources they have used.

use std::{io, os::unix::process::ExitStatusExt as _, process::ExitStatus};

use errand_proto::bridge::Usage;

/// The result of a wait.
#[derive(Debug)]
pub(super) enum Waited {
    /// This process has ended.
    Ended(libc::pid_t, ExitStatus),
    /// No process has ended, and some are left.
    None,
    /// There is no child process.
    Childless,
}

/// Sums up what the children of one task have used. The kernel's count for all children of this process will not do: it includes earlier
/// tasks.
#[derive(Debug, Default)]
pub(super) struct Children {
    used: Usage,
}

impl Children {
    /// Reaps a child that has ended, without blocking.
    pub(super) fn reap(&mut self) -> Waited {
        loop {
            let mut status = 0;
            // SAFETY: the structure is plain numbers, and both pointers are to local values.
            #[allow(unsafe_code)]
            let (pid, usage) = unsafe {
                let mut usage: libc::rusage = std::mem::zeroed();
                (libc::wait4(-1, &raw mut status, libc::WNOHANG, &raw mut usage), usage)
            };
            return match pid {
                0 => Waited::None,
                -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => continue,
                -1 => Waited::Childless,
                pid => {
                    self.count(&usage);
                    Waited::Ended(pid, ExitStatus::from_raw(status))
                }
            };
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
