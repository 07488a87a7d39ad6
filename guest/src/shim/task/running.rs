//! The phase of a task whose command runs and has time left.

use std::{
    os::unix::process::ExitStatusExt as _,
    process::ExitStatus,
    time::{Duration, Instant},
};

use super::{
    Body, Children, Phase,
    record::{EndRecord, Finished},
    recorded::Recorded,
    timed_out::TimedOut,
};
use crate::shim::{link::Link, look::Look, reuse::Budget};
use errand_proto::bridge::{Ended, shim_report::Kind};

/// What a task has until its end is recorded.
pub(super) struct Unrecorded {
    record: EndRecord,
    pub(super) children: Children,
    pub(super) look: Look,
    /// How long a command that has timed out may clean up before it is killed.
    pub(super) grace: Duration,
    budget: Budget,
}

impl Unrecorded {
    /// Records the end and reports it. `drained`: no process of the task is left.
    pub(super) fn end(self, body: &mut Body, links: &mut [Link], result: String, drained: bool) -> Recorded {
        body.close_streams(links);
        let Finished { usage, clean } = self.record.finish(&body.directory, &result, self.children.used(), drained);
        let budget = if clean { self.budget.for_another() } else { None };
        let ended = Ended { result, usage: Some(usage) };
        let over = body.capture.over();
        for link in links {
            link.say_end(ended.clone(), over, budget.is_some());
        }
        Recorded::new(ended, over, drained, budget)
    }
}

/// The phase.
pub(in crate::shim) struct Running {
    pub(super) unrecorded: Unrecorded,
    timeout: Option<Timeout>,
}

/// A time limit of the command.
struct Timeout {
    expires: Instant,
    /// How long it was in all.
    after: Duration,
}

impl Running {
    /// Supervises a command that was started at `made`. `budget` is what the shim has left for later tasks.
    pub(in crate::shim) fn new(
        record: EndRecord,
        look: Look,
        made: Instant,
        (timeout, grace): (Option<Duration>, Duration),
        budget: Budget,
    ) -> Self {
        let timeout = timeout.map(|after| Timeout { expires: made + after, after });
        Self { unrecorded: Unrecorded { record, children: Children::default(), look, grace, budget }, timeout }
    }

    /// When the next timer of this phase expires.
    pub(super) fn due(&self) -> Option<Instant> {
        let expires = self.timeout.as_ref().map(|timeout| timeout.expires);
        expires.into_iter().chain([self.unrecorded.look.due()]).min()
    }

    /// Reaps processes. The command ends with its first process; later ones are daemons.
    pub(super) fn reap(mut self, body: &mut Body, links: &mut [Link]) -> Phase {
        let reaped = self.unrecorded.children.reap_all(body.process.pid);
        match reaped.first.and_then(result) {
            Some(result) => Phase::Recorded(self.unrecorded.end(body, links, result, reaped.drained)),
            None => Phase::Running(self),
        }
    }

    /// Ends this phase if the timeout has expired; else checks a silent command.
    pub(super) fn on_time(mut self, now: Instant, links: &mut [Link]) -> Phase {
        if let Some(timeout) = self.timeout.as_ref().filter(|timeout| timeout.expires <= now) {
            return Phase::TimedOut(TimedOut::begin(self.unrecorded, timeout.after, now));
        }
        if let Some(activity) = self.unrecorded.look.look(std::process::id()) {
            for link in links {
                link.say(Kind::Activity(activity.clone()));
            }
        }
        Phase::Running(self)
    }
}

/// The result in the format of the exit file.
fn result(status: ExitStatus) -> Option<String> {
    match (status.code(), status.signal()) {
        (Some(code), _) => Some(format!("exited {code}")),
        (None, Some(signal)) => Some(format!("signaled {signal}")),
        (None, None) => None,
    }
}
