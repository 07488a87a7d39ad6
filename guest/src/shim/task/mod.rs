//! A running command as its shim supervises it.
//!
//! | phase | from | what only this phase has |
//! |---|---|---|
//! | [`Running`] | the start of the command | the timeout, and the checks of a silent command |
//! | [`TimedOut`] | the expiry of the timeout | the next signal, and when to send it |
//! | [`Recorded`] | the record of the end | what bridge processes are told of the end |
//!
//! A phase owns its data, and each transition consumes the phase before it: an end is recorded once. The last phase lasts until no process
//! of the task is left.

mod capture;
mod control;
mod record;
mod recorded;
mod running;
mod timed_out;

use std::{
    os::fd::BorrowedFd,
    time::{Duration, Instant},
};

pub(super) use capture::{Capture, Output};
pub(super) use record::{EndRecord, finish};
pub(super) use running::Running;

use super::{children::Children, claim::resize, input::Input, link::Link, reuse::Budget, spare};
use crate::task_dir::TaskDir;
use control::ControlSocket;
use errand_proto::bridge::{
    Grew, InputRefusal, InputTaken, Process, Resized, ShimOrder, WriteInputRequest, shim_order::Kind as Order,
    shim_report::Kind,
};
use recorded::Recorded;
use timed_out::TimedOut;

/// A command that ends before this needs no socket for its shim, and its memory is not trimmed. A bridge process that connects earlier
/// tries again.
const LISTEN_AFTER: Duration = Duration::from_millis(50);

/// One task.
pub(super) struct Task {
    body: Body,
    phase: Phase,
}

/// What a task has in every phase.
struct Body {
    directory: TaskDir,
    process: Process,
    /// When the command was started.
    made: Instant,
    capture: Capture,
    input: Option<Input>,
    control: ControlSocket,
}

enum Phase {
    Running(Running),
    TimedOut(TimedOut),
    Recorded(Recorded),
}

impl Task {
    /// A task whose command was started at `made` as `process`.
    pub(super) fn new(
        directory: TaskDir,
        (process, made): (Process, Instant),
        capture: Capture,
        input: Option<Input>,
        running: Running,
    ) -> Self {
        // A caller that writes input connects at once.
        let listen_after = if input.is_some() { Duration::ZERO } else { LISTEN_AFTER };
        let control = ControlSocket::Later(made + listen_after);
        Self { body: Body { directory, process, made, capture, input, control }, phase: Phase::Running(running) }
    }

    /// True when the end is recorded and no process of the task is left.
    pub(super) fn is_over(&self) -> bool {
        matches!(&self.phase, Phase::Recorded(recorded) if recorded.is_drained())
    }

    /// Leaves only what later readers need. Returns the shim's budget if the shim may take another task.
    pub(super) fn leave(self) -> Option<Budget> {
        let Self { mut body, phase } = self;
        // A daemon may have written more after the command's end.
        body.capture.settle();
        body.control.close(&body.directory);
        match phase {
            Phase::Recorded(recorded) => recorded.into_budget(),
            Phase::Running(_) | Phase::TimedOut(_) => None,
        }
    }

    /// When the next timer expires.
    pub(super) fn due(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Running(running) => self.body.control.due().into_iter().chain(running.due()).min(),
            Phase::TimedOut(timed_out) => Some(timed_out.due()),
            Phase::Recorded(_) => None,
        }
    }

    /// The socket at which bridge processes connect.
    pub(super) fn listener(&self) -> Option<BorrowedFd<'_>> {
        self.body.control.listener()
    }

    /// The streams that the command writes to, each with the index that [`Self::take_output`] expects.
    pub(super) fn outputs(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        self.body.capture.sources()
    }

    /// Where input goes, while that is open.
    pub(super) fn input(&self) -> Option<BorrowedFd<'_>> {
        self.body.input.as_ref()?.target()
    }

    /// Accepts a connection and reports the task's current state on it.
    pub(super) fn accept(&self) -> Option<Link> {
        let mut link = self.body.control.accept()?;
        link.pending.start = Some((self.body.process, self.body.made));
        link.tell_start();
        match &self.phase {
            Phase::Running(Running { unrecorded, .. }) | Phase::TimedOut(TimedOut { unrecorded, .. }) => {
                if let Some(activity) = unrecorded.look.last() {
                    link.say(Kind::Activity(activity));
                }
            }
            Phase::Recorded(recorded) => recorded.report_on(&mut link),
        }
        Some(link)
    }

    /// Executes an order of a bridge process.
    pub(super) fn obey(&mut self, link: &mut Link, order: ShimOrder) {
        match order.kind {
            Some(Order::Follow(follow)) => {
                link.pending.follows = Some(follow.known);
                tell_growth(link, self.body.capture.size());
            }
            Some(Order::Input(request)) => self.take_input(link, request),
            Some(Order::Resize(size)) => {
                let refusal = match self.body.capture.terminal() {
                    Some(Some(master)) if resize(master, size).is_ok() => InputRefusal::Unspecified,
                    Some(_) => InputRefusal::Closed,
                    None => InputRefusal::NotOpen,
                };
                link.say(Kind::Resized(Resized { refusal: refusal.into() }));
            }
            // After the end, nothing is searched any more.
            Some(Order::Watch(order)) if !matches!(self.phase, Phase::Recorded(_)) => link.watch(order.watches),
            Some(Order::MoreMatches(_)) => {
                if let Some(watcher) = &mut link.pending.watcher {
                    watcher.may_report();
                }
            }
            // A shim has one task at a time, and the meaning of a newer order is unknown.
            Some(Order::Watch(_) | Order::Launch(_)) | None => {}
        }
    }

    fn take_input(&mut self, link: &mut Link, request: WriteInputRequest) {
        self.sign_of_life();
        let Some(input) = &mut self.body.input else {
            let taken = InputTaken { refusal: InputRefusal::NotOpen.into(), ..InputTaken::default() };
            link.say(Kind::InputTaken(taken));
            return;
        };
        // A second order on the same connection: the sender no longer waits for the first.
        if link.pending.input.take().is_some() {
            link.say(Kind::InputTaken(input.answer(InputRefusal::Unspecified)));
            return;
        }
        write_input(input, link, request);
    }

    /// Continues with inputs that had no room.
    pub(super) fn feed(&mut self, links: &mut [Link]) {
        let Some(input) = &mut self.body.input else { return };
        for link in links {
            if let Some(request) = link.pending.input.take() {
                write_input(input, link, request);
            }
        }
    }

    /// Logs what the command has written to the streams at these indices.
    pub(super) fn take_output(&mut self, links: &mut [Link], ready: &[usize]) {
        if self.body.capture.take(ready, &mut tap(links)) {
            self.sign_of_life();
            for link in links {
                tell_growth(link, self.body.capture.size());
            }
        }
    }

    /// The size of the output so far in bytes.
    pub(super) fn output_size(&self) -> u64 {
        self.body.capture.size()
    }

    /// Searches output that was not searched when it was logged, and reports matches.
    pub(super) fn search(&mut self, links: &mut [Link]) {
        if matches!(self.phase, Phase::Recorded(_)) {
            return;
        }
        let (now, size) = (Instant::now(), self.body.capture.size());
        for link in links {
            if let Some(watcher) = &mut link.pending.watcher {
                watcher.catch_up(&self.body.directory, size);
                watcher.settle(size, now);
                link.tell_matches(now, false);
            }
        }
    }

    fn sign_of_life(&mut self) {
        match &mut self.phase {
            Phase::Running(Running { unrecorded, .. }) | Phase::TimedOut(TimedOut { unrecorded, .. }) => {
                unrecorded.look.sign_of_life();
            }
            Phase::Recorded(_) => {}
        }
    }

    /// Reaps the processes that have ended, and records the end of the task when that is one.
    pub(super) fn reap(self, links: &mut [Link]) -> Self {
        let Self { mut body, phase } = self;
        let phase = match phase {
            Phase::Running(running) => running.reap(&mut body, links),
            Phase::TimedOut(timed_out) => timed_out.reap(&mut body, links),
            Phase::Recorded(recorded) => Phase::Recorded(recorded.reap(body.process.pid)),
        };
        Self { body, phase }
    }

    /// Handles the timers that have expired: the timeout and its kills, and the check of a silent command.
    pub(super) fn on_time(self, links: &mut [Link]) -> Self {
        let Self { mut body, phase } = self;
        let now = Instant::now();
        for link in links.iter_mut().filter(|link| link.start_due().is_some_and(|due| due <= now)) {
            link.tell_start();
        }
        if body.control.due().is_some_and(|due| due <= now) {
            trim();
            body.control = ControlSocket::open(&body.directory);
            spare::make(body.directory.root());
        }
        let phase = match phase {
            Phase::Running(running) => running.on_time(now, links),
            Phase::TimedOut(timed_out) => Phase::TimedOut(timed_out.on_time(now)),
            Phase::Recorded(recorded) => Phase::Recorded(recorded),
        };
        Self { body, phase }
    }
}

impl Body {
    /// Takes what the command wrote before it ended. No process will read the input any more.
    fn close_streams(&mut self, links: &mut [Link]) {
        self.capture.take_rest(&mut tap(links));
        for link in links {
            tell_growth(link, self.capture.size());
            // Reported before the end: nothing is after it.
            if let Some(mut watcher) = link.pending.watcher.take() {
                watcher.finish(&self.directory, self.capture.size());
                link.pending.watcher = Some(watcher);
                link.tell_matches(Instant::now(), true);
                link.pending.watcher = None;
            }
        }
        self.capture.settle();
        if let Some(input) = &mut self.input {
            input.close();
        }
    }
}

/// Passes output that is being logged to the searches of all connections.
fn tap(links: &mut [Link]) -> impl FnMut(u64, &[u8]) {
    move |position, bytes| {
        for watcher in links.iter_mut().filter_map(|link| link.pending.watcher.as_mut()) {
            watcher.tap(position, bytes);
        }
    }
}

/// Writes input, or keeps it with its connection until there is room.
fn write_input(input: &mut Input, link: &mut Link, mut request: WriteInputRequest) {
    match input.write(&mut request) {
        Some(taken) => link.say(Kind::InputTaken(taken)),
        None => link.pending.input = Some(request),
    }
}

/// Reports on a connection that the log has `size` bytes, if the other side waits for more than it knows.
fn tell_growth(link: &mut Link, size: u64) {
    if link.pending.follows.is_some_and(|known| known < size) {
        link.pending.follows = None;
        link.say(Kind::Grew(Grew { bytes: size }));
    }
}

/// Gives back memory that only the launch needed.
fn trim() {
    // SAFETY: takes and returns nothing.
    #[cfg(target_env = "gnu")]
    #[allow(unsafe_code)]
    unsafe {
        libc::malloc_trim(0);
    }
}
