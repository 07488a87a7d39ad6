//! What a task keeps from others while it is launched or reconciled: a launch permit, and calls about its bot.

use std::time::{Duration, Instant};

use super::{Action, Machine, Moment};

/// How long a launch without a sign of life may keep its permit.
const PERMIT_LIMIT: Duration = Duration::from_secs(5);

/// The launch permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Permit {
    /// Not held, or released.
    None,
    /// Held, and the command is not being launched yet.
    Held,
    /// Held until the launched command shows a sign of life, but no longer than this.
    Until(Instant),
}

impl Permit {
    pub(super) fn due(self) -> Option<Instant> {
        match self {
            Self::None | Self::Held => None,
            Self::Until(at) => Some(at),
        }
    }
}

impl Machine {
    /// Limits how long a launch without a sign of life keeps its permit, counted from now.
    pub(super) fn limit_permit(&mut self, now: Moment) {
        if self.permit != Permit::None {
            self.permit = Permit::Until(now.at + PERMIT_LIMIT);
        }
    }

    pub(super) fn release_permit(&mut self) {
        if self.permit != Permit::None {
            self.permit = Permit::None;
            self.actions.push(Action::ReleasePermit);
        }
    }

    /// Releases the permit if its time is up. True when it was.
    pub(super) fn release_overdue_permit(&mut self, now: Moment) -> bool {
        let overdue = self.permit.due().is_some_and(|at| at <= now.at);
        if overdue {
            self.release_permit();
        }
        overdue
    }

    /// Lets calls about the bot proceed.
    pub(super) fn release_hold(&mut self) {
        if self.holds_calls {
            self.holds_calls = false;
            self.actions.push(Action::ReleaseHold);
        }
    }
}
