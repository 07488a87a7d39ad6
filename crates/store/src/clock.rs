//! The clocks of this machine, for a store that has no clock of its own.

use std::{
    fmt::Debug,
    time::{Duration, Instant, SystemTime},
};

/// What a store reads the time from.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The wall clock. It may leap forward and back.
    fn wall(&self) -> SystemTime;

    /// Time since some moment of this process. It never leaps.
    fn monotonic(&self) -> Duration;
}

/// The clocks of the operating system.
#[derive(Debug)]
pub struct SystemClock {
    begun: Instant,
}

impl SystemClock {
    /// Starts the monotonic clock at zero.
    #[allow(clippy::new_without_default, reason = "when it is made matters")]
    pub fn new() -> Self {
        Self { begun: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn monotonic(&self) -> Duration {
        self.begun.elapsed()
    }
}
