//! The process that a container lives by: it does nothing until it is told to end. The image's own shell could be one that a command has
//! replaced, and would run before there is a fence.

use rustix::event::pause;

/// Waits for the signal that ends it.
pub fn run() -> ! {
    // Not that of its file, by which connecting processes are found.
    let _ = rustix::thread::set_name(c"errand-idle");
    crate::exec::default_signals();
    crate::exec::unblock_signals();
    loop {
        pause();
    }
}
