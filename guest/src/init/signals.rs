//! The signals the init acts on: a child has exited, or the sandbox shall end.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use rustix::process::Signal;

/// A queue of arrived signals. No signal interrupts the init.
pub(super) struct Signals {
    descriptor: OwnedFd,
}

impl Signals {
    /// Blocks every signal and opens a descriptor for those the init acts on.
    ///
    /// # Errors
    /// When the kernel has no free descriptor.
    pub(super) fn listen() -> io::Result<Self> {
        crate::exec::default_signals();
        // SAFETY: the sets are initialised before they are used; the descriptor is new and has no other owner.
        #[allow(unsafe_code)]
        unsafe {
            let mut set = std::mem::zeroed();
            libc::sigfillset(&mut set);
            libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, libc::SIGCHLD);
            libc::sigaddset(&mut set, libc::SIGTERM);
            let descriptor = libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if descriptor < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Self { descriptor: OwnedFd::from_raw_fd(descriptor) })
        }
    }

    /// Reads the arrived signals. Returns true if one was SIGTERM from outside of the sandbox: no process inside may end it.
    pub(super) fn told_to_end(&self) -> bool {
        let mut told = false;
        loop {
            // SAFETY: all zeros is a valid value of this structure of numbers, and the kernel writes at most its size.
            #[allow(unsafe_code)]
            let signal = unsafe {
                let mut signal: libc::signalfd_siginfo = std::mem::zeroed();
                let size = size_of::<libc::signalfd_siginfo>();
                let read = libc::read(self.descriptor.as_raw_fd(), (&raw mut signal).cast(), size);
                if read != isize::try_from(size).unwrap_or(-1) {
                    return told;
                }
                signal
            };
            told |= is_from_outside(&signal);
        }
    }
}

/// Whether this is SIGTERM sent with `kill` or a similar call by a process outside of this pid namespace. The kernel reports such a sender
/// as pid 0.
///
/// Pid 0 alone proves nothing: `rt_sigqueueinfo` can carry any pid, and a signal that a file raises through `F_SETSIG` has none. But for
/// `rt_sigqueueinfo` the kernel accepts only negative codes, and a signal through `F_SETSIG` has a code of its own.
fn is_from_outside(signal: &libc::signalfd_siginfo) -> bool {
    i32::try_from(signal.ssi_signo) == Ok(libc::SIGTERM) && signal.ssi_code == libc::SI_USER && signal.ssi_pid == 0
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Sends a signal to every process of the sandbox but this one.
pub(super) fn send_to_all(signal: Signal) {
    // SAFETY: takes numbers. The first process of a pid namespace cannot signal any process outside of it.
    #[allow(unsafe_code)]
    unsafe {
        if libc::getpid() == 1 {
            libc::kill(-1, signal.as_raw());
        }
    }
}
