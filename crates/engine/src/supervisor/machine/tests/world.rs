//! Drives the machine through one schedule, as the carrier does, in a simulated world: one sandbox, one store, and servers that come and go.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::{
    announced::Seen,
    carrier::{Carrier, Server},
    rules::{Observed, may_launch_later},
    samples,
    sandbox::{LINE, News, PROCESS, Sandbox},
    schedule::{Disturbance, Random, Schedule},
};
use crate::{
    live::StopOrder,
    supervisor::machine::{Action, Entry, Input, Moment, PolicyOrder, Reported, Rules},
};
use errand_bridge::Activity;
use errand_task::{
    Incarnation, LossReason, Outcome, Program, Reads, Status, Task, TaskSpec, TaskState, Waiting, Watch, WatchLines,
    WatchMatches, WatchPattern, Watches,
};

pub(super) const RULES: Rules = Rules {
    stop_grace: Duration::from_secs(5),
    stall_after: Duration::from_secs(45),
    stall_check_interval: Duration::from_secs(5),
};
/// The shortest time between two notifications about matches.
pub(super) const INTERVAL: Duration = Duration::from_secs(15);
/// By then every schedule must have ended.
pub(super) const END_BY: Duration = Duration::from_secs(900);
/// How many things may happen in one schedule, and how many without time passing.
const STEPS: u32 = 20_000;
const STEPS_AT_ONCE: u32 = 500;

/// A run, while it goes on.
pub(super) struct World<'a> {
    pub(super) schedule: &'a Schedule,
    pub(super) random: Random,
    pub(super) start: Instant,
    pub(super) now: Instant,
    pub(super) wall: SystemTime,
    pub(super) disturbances: std::slice::Iter<'a, (Duration, Disturbance)>,
    pub(super) next: Option<&'a (Duration, Disturbance)>,
    pub(super) sandbox: Sandbox,
    /// The stored record.
    pub(super) stored: Task,
    pub(super) store_fails_until: Instant,
    pub(super) server: Server,
    /// The order that the server's callers gave.
    pub(super) order: Option<StopOrder>,
    /// The policy that the server's callers want.
    pub(super) policy: Option<PolicyOrder>,
    pub(super) least_grace: Duration,
    pub(super) output_end: u64,
    pub(super) launches: usize,
    pub(super) observed: Observed,
    /// What happened, if that is to be told.
    pub(super) trace: Option<Vec<String>>,
}

/// How a task ended.
pub(super) type Reached = (Status, Option<LossReason>);

pub(super) type Checked = Result<(), String>;

impl<'a> World<'a> {
    pub(super) fn new(schedule: &'a Schedule, start: Instant, traced: bool) -> Self {
        let wall = samples::wall();
        let task = task(schedule);
        let mut disturbances = schedule.disturbances.iter();
        let next = disturbances.next();
        let mut world = Self {
            schedule,
            random: Random::new(schedule.seed ^ 0x5EED),
            start,
            now: start,
            wall,
            disturbances,
            next,
            sandbox: Sandbox::new(schedule.command.clone(), task.nonce, start),
            stored: task.clone(),
            store_fails_until: start,
            server: Server::Done,
            order: None,
            policy: None,
            least_grace: Duration::MAX,
            output_end: 0,
            launches: 0,
            observed: Observed::default(),
            trace: traced.then(Vec::new),
        };
        let mut carrier = Carrier::new(task, 0, None);
        if schedule.command.reserved {
            carrier.machine.reserve(world.sandbox.incarnation());
            (carrier.permit, carrier.placed) = (true, Some(world.sandbox.incarnation()));
        }
        carrier.machine.enter(Entry::Launch, world.moment());
        world.server = Server::Here(Box::new(carrier));
        world
    }

    /// Runs to the end. Returns how the task ended; an error says which invariant was broken.
    pub(super) fn run(&mut self) -> Result<Reached, String> {
        let (mut steps, mut at_once) = (0, 0);
        loop {
            self.carry_out()?;
            if matches!(self.server, Server::Done) {
                break;
            }
            let passed = self.step()?;
            (steps, at_once) = (steps + 1, if passed { 0 } else { at_once + 1 });
            if steps > STEPS || at_once > STEPS_AT_ONCE {
                return Err(format!("{steps} steps, the last {at_once} of them without time passing"));
            }
            if self.now - self.start > END_BY {
                // A launch that is certainly refused again and again waits for a sandbox that answers.
                let waits = self.sandbox.launches == 0 && self.order.is_none();
                // A server that has not seen the command start takes its age from the clock, unless the sandbox tells it.
                let misled = self.observed.leapt && self.observed.server_changed;
                if !self.sandbox.answers(self.now) && (waits || misled) {
                    return Ok((self.stored.status(), None));
                }
                return Err(format!("the task has not ended after {END_BY:?}: {:?}", self.stored.state));
            }
        }
        let timeout = self.schedule.command.timeout;
        self.observed.finished(&self.stored, &self.sandbox, timeout, self.now)?;
        let launches = self.sandbox.launches;
        // What is still on its way arrives.
        self.sandbox.start();
        self.sandbox.advance(self.now + Duration::from_secs(120));
        if self.sandbox.launches > launches && !may_launch_later(&self.stored) {
            return Err("the command was launched after its task had ended".to_owned());
        }
        if self.sandbox.launches > 1 {
            return Err("the command ran twice".to_owned());
        }
        Ok(match self.stored.state.outcome() {
            Some(Outcome::Lost { reason, .. }) => (Status::Lost, Some(*reason)),
            Some(_) | None => (self.stored.status(), None),
        })
    }

    pub(super) fn moment(&self) -> Moment {
        Moment { at: self.now, wall: self.wall }
    }

    /// What a record that is stored now is judged by.
    pub(super) fn seen(&self) -> Seen {
        Seen { now: self.now, age: self.sandbox.age(self.now), output_end: self.output_end }
    }

    pub(super) fn tell(&mut self, what: impl FnOnce() -> String) {
        let at = self.now - self.start;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{at:>11.3?} {}", what()));
        }
    }

    /// Lets time pass until something happens, and that happen. True when time passed.
    fn step(&mut self) -> Result<bool, String> {
        let disturbed = self.next.map(|(at, _)| self.start + *at);
        let server = match &self.server {
            Server::Away(until) | Server::Broken(until) => Some(*until),
            Server::Here(carrier) => carrier.due(),
            Server::Done => None,
        };
        let Some(next) = [disturbed, self.sandbox.due(), server].into_iter().flatten().min() else {
            return Err("nothing will ever happen any more".to_owned());
        };
        let passed = next > self.now;
        if passed {
            self.pass(next - self.now)?;
        }
        if disturbed.is_some_and(|at| at <= self.now) {
            if let Some((_, disturbance)) = self.next.take() {
                self.next = self.disturbances.next();
                self.disturb(*disturbance);
            }
        } else if self.sandbox.due().is_some_and(|at| at <= self.now) {
            let news = self.sandbox.advance(self.now);
            self.report(news);
        } else {
            self.serve()?;
        }
        Ok(passed)
    }

    fn pass(&mut self, time: Duration) -> Checked {
        let deaf = self.sandbox.is_running() && !self.sandbox.answers(self.now);
        self.now += time;
        self.wall += time;
        if deaf {
            self.observed.deaf += time;
        }
        let time_is_up = self.sandbox.age(self.now).is_some_and(|age| {
            age > self.schedule.command.timeout
                + if self.schedule.command.guest { Duration::from_secs(10) } else { Duration::ZERO }
        });
        let stops = self.order.is_some() || matches!(self.stored.state, TaskState::Stopping { .. });
        // A stop acts although the store refuses.
        let calm = self.sandbox.answers(self.now) && !deaf;
        let storable = self.now >= self.store_fails_until;
        let announces = matches!(self.server, Server::Here(_)) && calm && storable && self.sandbox.runs();
        let seen = (self.seen(), self.observed.leapt);
        self.observed.announced.announcing(&self.stored, announces, seen)?;
        let Server::Here(carrier) = &self.server else { return self.observed.waiting(false, false, self.now) };
        self.observed.waiting(self.sandbox.runs() && (stops || time_is_up), calm, self.now)?;
        self.observed.permit(carrier.permit, carrier.silent, self.now)
    }

    /// The server does the next thing, in the order in which the carrier does.
    fn serve(&mut self) -> Checked {
        let now = self.moment();
        match &mut self.server {
            Server::Done => {}
            Server::Away(_) => self.recover(),
            Server::Broken(_) => self.revive(),
            Server::Here(carrier) => {
                if carrier.machine.due().is_some_and(|due| due <= now.at) {
                    carrier.machine.tick(now);
                } else if carrier.operation.as_ref().is_some_and(|(at, _)| *at <= now.at) {
                    if let Some((_, operation)) = carrier.operation.take() {
                        self.answer(operation)?;
                    }
                } else if carrier.signal.is_some_and(|(at, _)| at <= now.at) {
                    self.answer_signal();
                } else if let Some(index) = carrier.inbox.iter().position(|(at, _)| *at <= now.at) {
                    let (_, news) = carrier.inbox.remove(index);
                    carrier.silent = false;
                    self.observed.told_started |= matches!(news, News::Started);
                    if matches!(news, News::Output(_)) {
                        self.observed.announced.heard_output(now.at);
                    }
                    let report = reported(news, now.at, &self.sandbox, &mut self.output_end);
                    self.tell(|| format!("reported {report:?}"));
                    self.handle(Input::Reported(report));
                }
            }
        }
        Ok(())
    }

    pub(super) fn handle(&mut self, input: Input) {
        let now = self.moment();
        let guest = self.schedule.command.guest;
        if let Server::Here(carrier) = &mut self.server {
            carrier.machine.guest_enforces_timeout(guest);
            carrier.machine.handle(input, now);
        }
    }

    /// Hands news of the sandbox to the attachment, late and perhaps twice.
    pub(super) fn report(&mut self, news: Vec<News>) {
        let (lateness, twice) = (self.schedule.lateness, self.schedule.twice);
        let Server::Here(carrier) = &mut self.server else { return };
        if !carrier.attached {
            return;
        }
        for news in news {
            for _ in 0..if self.random.one_in(twice) { 2 } else { 1 } {
                let at = self.now + self.random.millis(lateness);
                carrier.inbox.push((at, news.clone()));
            }
        }
        carrier.inbox.sort_by_key(|(at, _)| *at);
    }

    fn carry_out(&mut self) -> Checked {
        let Server::Here(carrier) = &mut self.server else { return Ok(()) };
        let mut actions = Vec::new();
        carrier.machine.take_actions(&mut actions);
        for action in actions {
            self.tell(|| format!("  {action:?}").chars().take(160).collect());
            let latency = self.random.millis(self.schedule.lateness);
            let Server::Here(carrier) = &mut self.server else { return Ok(()) };
            match action {
                Action::Do(operation) => self.begin(operation, latency)?,
                Action::Signal { process, signal } => {
                    if carrier.signal.is_some() || process.is_some_and(|process| process != PROCESS) {
                        return Err("a signal was sent while another one was, or to another process".to_owned());
                    }
                    let arrives = self.sandbox.answers(self.now);
                    let limit = if arrives { latency } else { Duration::from_secs(12) };
                    carrier.signal = Some((self.now + limit, arrives.then_some(signal)));
                    self.observed.signalled(signal, self.least_grace.min(RULES.stop_grace), self.now)?;
                }
                Action::Detach => {
                    carrier.attached = false;
                    carrier.inbox.clear();
                }
                Action::ReleasePermit => carrier.permit = false,
                Action::ReleaseHold => carrier.hold = false,
                Action::SkipTo(end) => self.output_end = self.output_end.max(end),
                Action::PolicyStored(number) => {
                    let wanted = self.policy.filter(|order| order.number == number);
                    self.observed.announced.policy_stored(wanted.map(|order| order.policy), &self.stored)?;
                }
                Action::FollowOutput | Action::HoldBecause(_) | Action::LeaveQueue | Action::Publish { .. } => {}
            }
        }
        if let Server::Here(carrier) = &self.server
            && carrier.machine.is_over()
        {
            if carrier.permit || carrier.hold {
                return Err("the task is over and keeps its permit or its hold".to_owned());
            }
            self.server = Server::Done;
        }
        Ok(())
    }
}

fn reported(news: News, now: Instant, sandbox: &Sandbox, output_end: &mut u64) -> Reported {
    match news {
        News::Started => Reported::Started { process: PROCESS, age: sandbox.age(now).unwrap_or_default() },
        News::Output(end) => {
            *output_end = (*output_end).max(end);
            Reported::Output { end: *output_end }
        }
        News::Activity { busy, waits } => {
            let waiting = waits.then(|| Waiting { pid: 7, command: "x".to_owned(), reads: Reads::Stdin });
            Reported::Activity(Activity { silent_for: Duration::ZERO, busy, waiting })
        }
        News::Matched(offset, next) => {
            let (count, lines) = ((next - offset) / LINE, WatchLines::default());
            let matches = vec![WatchMatches { index: 0, count, offset, next, lines }];
            Reported::Matched { matches, unsearched: 0 }
        }
        News::Ended(ending) => Reported::Ended { ending, usage: None, oom_kills: 0 },
        News::Over => Reported::Over { bytes: sandbox.output, incomplete: false, gap: None },
        News::Broken => Reported::Broken,
    }
}

fn task(schedule: &Schedule) -> Task {
    let command = &schedule.command;
    let starting = TaskState::Starting { incarnation: Incarnation("1".to_owned()) };
    let spec = Arc::new(TaskSpec::new(Program::Argv(vec!["x".to_owned()]), command.timeout));
    let state = if command.reserved { starting } else { TaskState::Queued };
    let watch = Watch { pattern: WatchPattern::Text("line".to_owned()), once: false };
    let watches = Watches::new(0, vec![watch], 0);
    Task { spec, state, watches, notify: command.notify, ..samples::task() }
}
