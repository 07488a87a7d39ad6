//! The system's clocks, shifted by a test.

use std::{
    sync::{Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use crate::{Clock, SystemClock};

/// A clock that a test moves.
#[derive(Debug)]
pub struct TestClock {
    system: SystemClock,
    /// How far the wall clock and the monotonic clock are ahead of the system's.
    ahead: Mutex<(Duration, Duration)>,
}

impl TestClock {
    /// Shows what the system's clocks show.
    #[allow(clippy::new_without_default, reason = "when it is made matters")]
    pub fn new() -> Self {
        Self { system: SystemClock::new(), ahead: Mutex::default() }
    }

    fn ahead(&self) -> MutexGuard<'_, (Duration, Duration)> {
        self.ahead.lock().unwrap()
    }

    /// Lets time pass on both clocks.
    pub fn pass(&self, time: Duration) {
        let mut ahead = self.ahead();
        ahead.0 += time;
        ahead.1 += time;
    }

    /// Moves the wall clock alone forward.
    pub fn leap(&self, time: Duration) {
        self.ahead().0 += time;
    }

    /// Moves the wall clock alone back, by at most what it is ahead.
    pub fn set_back(&self, time: Duration) {
        self.ahead().0 -= time;
    }
}

impl Clock for TestClock {
    fn wall(&self) -> SystemTime {
        self.system.wall() + self.ahead().0
    }

    fn monotonic(&self) -> Duration {
        self.system.monotonic() + self.ahead().1
    }
}
