//! What a server holds of the task: the machine, and what the carrier of the machine holds.

use std::{sync::Arc, time::Instant};

use super::{sandbox::News, schedule::Launch, world::RULES};
use crate::{
    WatchSettings,
    alerts::Budgets,
    live::StopOrder,
    supervisor::machine::{Machine, Operation},
};
use errand_task::{Incarnation, Signal, Task};

/// The server, as far as it concerns the task.
pub(super) enum Server {
    /// There is none, or it is reconciling the task, until then.
    Away(Instant),
    /// The supervisor broke down and is replaced then.
    Broken(Instant),
    Here(Box<Carrier>),
    /// The task is over.
    Done,
}

/// What the carrier holds.
pub(super) struct Carrier {
    pub(super) machine: Machine,
    pub(super) operation: Option<(Instant, Operation)>,
    /// The signal that is being sent; none if it is lost.
    pub(super) signal: Option<(Instant, Option<Signal>)>,
    pub(super) attached: bool,
    pub(super) inbox: Vec<(Instant, News)>,
    pub(super) permit: bool,
    pub(super) hold: bool,
    /// Whether a launch was begun and nothing was heard of it.
    pub(super) silent: bool,
    /// The life in which the sandbox was found for the launch.
    pub(super) placed: Option<Incarnation>,
    /// What comes of the launch that was asked for.
    pub(super) fate: Launch,
}

impl Carrier {
    pub(super) fn new(task: Task, output_end: u64, order: Option<StopOrder>) -> Self {
        Self {
            machine: Machine::new(task, RULES, Arc::new(Budgets::new(WatchSettings::default())), output_end, order),
            operation: None,
            signal: None,
            attached: false,
            inbox: Vec::new(),
            permit: false,
            hold: false,
            silent: false,
            placed: None,
            fate: Launch::Fine,
        }
    }

    /// When the carrier has something to do next. Reports wait while an operation runs.
    pub(super) fn due(&self) -> Option<Instant> {
        let operation = self.operation.as_ref().map(|(at, _)| *at);
        let signal = self.signal.map(|(at, _)| at);
        let report = self.inbox.first().filter(|_| self.operation.is_none()).map(|(at, _)| *at);
        [self.machine.due(), operation, signal, report].into_iter().flatten().min()
    }
}
