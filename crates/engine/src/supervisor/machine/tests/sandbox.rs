//! A model of one sandbox with one task in it: what its processes do, and what it answers.

use std::time::{Duration, Instant};

use super::schedule::Command;
use errand_task::{Ending, Incarnation, Nonce, ProcessIdentity, Signal};

pub(super) const PROCESS: ProcessIdentity = ProcessIdentity { pid: 7, start_ticks: 70 };
/// How many bytes the command prints at once. Each of them is a match of the watch.
pub(super) const LINE: u64 = 10;
/// How long a sandbox takes to be started again.
const RESTART: Duration = Duration::from_millis(700);

/// What the guest reports to an attachment.
#[derive(Debug, Clone)]
pub(super) enum News {
    Started,
    Output(u64),
    /// The lines from the first position to the second match.
    Matched(u64, u64),
    Activity {
        busy: bool,
        waits: bool,
    },
    Ended(Ending),
    Over,
    Broken,
}

#[derive(Debug)]
pub(super) struct Process {
    began: Instant,
    outputs: Vec<Instant>,
    exits_at: Option<Instant>,
    ending: Ending,
    alive: bool,
}

#[derive(Debug)]
pub(super) struct Sandbox {
    pub(super) command: Command,
    pub(super) nonce: Nonce,
    pub(super) exists: bool,
    pub(super) running: bool,
    pub(super) starts_at: Option<Instant>,
    pub(super) incarnation: u32,
    pub(super) down_until: Instant,
    pub(super) deaf_until: Instant,
    pub(super) paused_until: Instant,
    pub(super) directory: bool,
    pub(super) fenced: bool,
    pub(super) process: Option<Process>,
    /// Whether the process that keeps the command lives.
    pub(super) shim: bool,
    pub(super) left: bool,
    pub(super) exit_file: Option<Ending>,
    /// Whether the command ever made an exit file of its own.
    pub(super) forged: bool,
    /// Whether the task directory was removed.
    pub(super) wiped: bool,
    /// When the shim wrote the exit file.
    pub(super) written_at: Option<Instant>,
    /// How the command really ended.
    pub(super) ended: Option<Ending>,
    pub(super) output: u64,
    /// When requests to launch the command take effect.
    pub(super) arriving: Vec<Instant>,
    pub(super) launches: u32,
    /// Whether what really happened can be known: nothing killed the shim or the sandbox, and the exit file is not forged.
    pub(super) knowable: bool,
}

impl Sandbox {
    pub(super) fn new(command: Command, nonce: Nonce, now: Instant) -> Self {
        Self {
            command,
            nonce,
            exists: true,
            running: true,
            starts_at: None,
            incarnation: 1,
            down_until: now,
            deaf_until: now,
            paused_until: now,
            directory: false,
            fenced: false,
            process: None,
            shim: false,
            left: false,
            exit_file: None,
            forged: false,
            wiped: false,
            written_at: None,
            ended: None,
            output: 0,
            arriving: Vec::new(),
            launches: 0,
            knowable: true,
        }
    }

    pub(super) fn is_down(&self, now: Instant) -> bool {
        now < self.down_until
    }

    /// Whether it answers questions about the task.
    pub(super) fn answers(&self, now: Instant) -> bool {
        self.exists && self.running && now >= self.deaf_until && now >= self.paused_until && !self.is_down(now)
    }

    pub(super) fn is_running(&self) -> bool {
        self.exists && self.running
    }

    pub(super) fn incarnation(&self) -> Incarnation {
        Incarnation(self.incarnation.to_string())
    }

    /// How old the command is, if it was started.
    pub(super) fn age(&self, now: Instant) -> Option<Duration> {
        self.process.as_ref().map(|process| now.saturating_duration_since(process.began))
    }

    pub(super) fn runs(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.alive)
    }

    pub(super) fn is_supervised(&self) -> bool {
        self.shim
    }

    /// What the exit file tells of a command that is over.
    pub(super) fn told_ending(&self) -> Option<Ending> {
        self.exit_file.clone().filter(|_| !self.runs())
    }

    /// When something happens next in the sandbox.
    pub(super) fn due(&self) -> Option<Instant> {
        let process = self.process.as_ref().filter(|process| process.alive);
        let exit = process.and_then(|process| process.exits_at);
        let output = process.and_then(|process| process.outputs.first().copied());
        let timeout = process
            .filter(|_| self.command.guest && self.shim)
            .map(|process| (process.began + self.command.timeout).max(self.paused_until));
        self.arriving
            .iter()
            .copied()
            .min()
            .into_iter()
            .chain([exit, output, timeout, self.starts_at].into_iter().flatten())
            .min()
    }

    /// Lets happen what is due.
    pub(super) fn advance(&mut self, now: Instant) -> Vec<News> {
        let mut news = Vec::new();
        if self.starts_at.is_some_and(|at| at <= now) {
            self.starts_at = None;
            self.start();
        }
        if self.arriving.iter().any(|at| *at <= now) {
            self.arriving.retain(|at| *at > now);
            if self.launch(now) {
                news.push(News::Started);
            }
        }
        let timeout = self.command.timeout;
        let Some(process) = self.process.as_mut().filter(|process| process.alive) else { return news };
        while process.outputs.first().is_some_and(|at| *at <= now) {
            process.outputs.remove(0);
            self.output += LINE;
            news.push(News::Output(self.output));
            if self.shim {
                news.push(News::Matched(self.output - LINE, self.output));
            }
        }
        if process.exits_at.is_some_and(|at| at <= now) {
            let ending = process.ending.clone();
            self.end(ending, now, &mut news);
        } else if self.command.guest && self.shim && process.began + timeout <= now && self.paused_until <= now {
            self.end(Ending::TimedOut { after: timeout }, now, &mut news);
        }
        news
    }

    fn end(&mut self, ending: Ending, now: Instant, news: &mut Vec<News>) {
        if let Some(process) = &mut self.process {
            process.alive = false;
        }
        self.left = self.command.leaves;
        self.ended = Some(ending.clone());
        if self.shim {
            (self.shim, self.written_at) = (false, Some(now));
            self.exit_file = (!self.wiped).then(|| ending.clone());
            news.push(News::Ended(ending));
        }
        news.push(News::Over);
    }

    /// A request to launch the command takes effect. At most one ever does.
    fn launch(&mut self, now: Instant) -> bool {
        if self.directory || self.fenced || !self.is_running() {
            return false;
        }
        let life = self.command.runs.unwrap_or(Duration::from_secs(9));
        let outputs = (1..=self.command.outputs).map(|n| now + life * n as u32 / (self.command.outputs as u32 + 1));
        self.directory = true;
        self.launches += 1;
        self.shim = true;
        self.process = Some(Process {
            began: now,
            outputs: outputs.collect(),
            exits_at: self.command.runs.map(|runs| now + runs),
            ending: Ending::Exited(self.command.code),
            alive: true,
        });
        true
    }

    /// Sends a signal to the task's processes; returns how many there were, or remain after SIGKILL.
    pub(super) fn signal(&mut self, signal: Option<Signal>, now: Instant) -> (u32, Vec<News>) {
        let mut news = Vec::new();
        let count = u32::from(self.runs()) + u32::from(self.left);
        match signal {
            Some(Signal::KILL) => {
                if self.runs() {
                    self.end(Ending::Signaled(Signal::KILL), now, &mut news);
                }
                self.left = false;
            }
            Some(_) => {
                if let (Some(process), Some(after)) = (&mut self.process, self.command.on_term)
                    && process.alive
                {
                    let at = now + after;
                    if process.exits_at.is_none_or(|exits_at| at < exits_at) {
                        (process.exits_at, process.ending) = (Some(at), Ending::Signaled(Signal::TERM));
                    }
                }
            }
            None => {}
        }
        (count, news)
    }

    /// The command prints 15 more lines, one every 4 s.
    pub(super) fn chatter(&mut self, now: Instant) {
        if let Some(process) = &mut self.process {
            process.outputs.extend((0..15).map(|line| now + Duration::from_secs(4) * line));
            process.outputs.sort_unstable();
        }
    }

    pub(super) fn kill_shim(&mut self) -> Vec<News> {
        if !self.shim {
            return Vec::new();
        }
        (self.shim, self.knowable) = (false, false);
        vec![News::Over]
    }

    pub(super) fn forge_exit(&mut self) {
        if self.runs() && !self.wiped {
            (self.exit_file, self.forged) = (Some(Ending::Exited(0)), true);
        }
    }

    pub(super) fn wipe(&mut self) {
        if self.directory {
            (self.wiped, self.knowable, self.exit_file) = (true, false, None);
        }
    }

    pub(super) fn pause(&mut self, period: Duration, now: Instant) {
        self.paused_until = self.paused_until.max(now + period);
        if let Some(process) = &mut self.process {
            process.exits_at = process.exits_at.map(|at| at + period);
            process.outputs.iter_mut().for_each(|at| *at += period);
        }
    }

    /// Stops the sandbox, and with it every process. With `again`, it starts a moment later.
    pub(super) fn stop(&mut self, again: bool, now: Instant) -> Vec<News> {
        self.running = false;
        self.starts_at = again.then_some(now + RESTART);
        self.arriving.clear();
        self.knowable &= !self.shim;
        if let Some(process) = &mut self.process {
            process.alive = false;
        }
        (self.shim, self.left) = (false, false);
        vec![News::Broken]
    }

    /// Starts a stopped sandbox.
    pub(super) fn start(&mut self) {
        if self.exists && !self.running {
            self.running = true;
            self.incarnation += 1;
        }
    }
}
