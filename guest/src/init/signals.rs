//! What the kernel tells the init: that a child has ended, and that the sandbox shall.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use rustix::process::Signal;

/// Signals as they come. None of them interrupts anything.
pub(super) struct Signals {
    descriptor: OwnedFd,
}

impl Signals {
    /// Blocks every signal, and listens for those that mean something.
    ///
    /// # Errors
    /// When the kernel has no descriptor left.
    pub(super) fn listen() -> io::Result<Self> {
        crate::exec::default_signals();
        // SAFETY: the sets are initialised before they are used; the descriptor is new and nobody else's.
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

    /// Takes the signals that have come. True when one was SIGTERM from outside of the sandbox: whoever is inside is not to end it.
    pub(super) fn told_to_end(&self) -> bool {
        let mut told = false;
        loop {
            // SAFETY: all zeros is a value of this structure of numbers, and the kernel writes no more than its size.
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

/// Whether this is SIGTERM by `kill` or its like from a process that this one cannot see, which then has no number.
///
/// The number alone proves nothing: `rt_sigqueueinfo` carries any, and a signal that `F_SETSIG` made of a file has none. But the first is
/// refused by the kernel for every code that is not negative, and the second has a code of its own.
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
    // SAFETY: takes numbers. The first process of a process namespace reaches no process outside of that.
    #[allow(unsafe_code)]
    unsafe {
        if libc::getpid() == 1 {
            libc::kill(-1, signal.as_raw());
        }
    }
}
