//! Limits how often a session is told of matches: [`windows`] for each task, [`budget`] for each session. Both are pure: they are told the time.
//!
//! Nothing here limits any other kind of notification.

mod budget;
mod windows;

pub(crate) use budget::{Budgets, Grant};
pub(crate) use windows::{Alerts, News};
