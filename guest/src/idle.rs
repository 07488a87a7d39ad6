//! The first process of a container: it sleeps until it is told to exit. The image's own shell would not do: a command may have replaced
//! it, and it would run before the fence is in place.

use rustix::event::pause;

/// Waits for the signal that ends it.
pub fn run() -> ! {
    // A name of its own: connecting processes are found by the name of the executable.
    let _ = rustix::thread::set_name(c"errand-idle");
    crate::exec::default_signals();
    crate::exec::unblock_signals();
    loop {
        pause();
    }
}
