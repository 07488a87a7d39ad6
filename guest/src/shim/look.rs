//! Observes the processes of a silent command: whether they work, and whether one waits for input.

use std::{
    collections::BTreeMap,
    fs,
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt as _, MetadataExt as _},
    },
    time::{Duration, Instant},
};

use super::awaits::{self, Awaited};
use crate::process::{self, Stat};
use errand_proto::bridge::{Activity, Waiting};

/// An idle silent command without input is checked less and less often, down to once in this many intervals: its state can change only to
/// working.
const LONGEST: u32 = 12;
/// The share of CPU time between two checks from which a command counts as working. A program that only polls now and then uses less.
const WORK: f64 = 0.1;
/// Clock ticks in a second as user space sees them (USER_HZ), the same on every Linux architecture in use.
const TICKS_PER_SECOND: f64 = 100.0;

/// The source from which a process would read its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// No source that any process writes to.
    Nothing,
    /// The pipe with this inode.
    Pipe(u64),
    /// The terminal with this device number.
    Terminal(u64),
}

impl Source {
    /// The pipe that this descriptor is an end of.
    pub(super) fn pipe(end: impl AsFd) -> Self {
        rustix::fs::fstat(end).map_or(Self::Nothing, |stat| Self::Pipe(stat.st_ino))
    }

    /// The terminal that this descriptor is an end of.
    pub(super) fn terminal(end: impl AsFd) -> Self {
        rustix::fs::fstat(end).map_or(Self::Nothing, |stat| Self::Terminal(stat.st_rdev))
    }

    /// Whether this descriptor of a process is the source.
    fn is(self, stat: &Stat, descriptor: u64) -> bool {
        let Ok(file) = fs::metadata(format!("/proc/{}/fd/{descriptor}", stat.pid)) else { return false };
        match self {
            Self::Nothing => false,
            Self::Pipe(inode) => file.file_type().is_fifo() && file.ino() == inode,
            // `/dev/tty` is the controlling terminal of the process.
            Self::Terminal(device) => {
                let through_tty = file.rdev() == rustix::fs::makedev(5, 0) && stat.terminal != 0;
                file.file_type().is_char_device() && (file.rdev() == device || through_tty)
            }
        }
    }
}

/// Observes the processes of one task.
pub(super) struct Look {
    source: Source,
    quiet_after: Duration,
    every: Duration,
    silent_since: Instant,
    next: Instant,
    /// The interval between this check and the next.
    pause: Duration,
    before: Option<(Instant, BTreeMap<u32, Sample>)>,
    told: Option<Activity>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    start_ticks: u64,
    cpu_ticks: u64,
    /// Bytes read and written, if input is waited for and the kernel shows them.
    io: Option<u64>,
}

impl Look {
    /// Checks after `quiet_after` of silence, then every `every`.
    pub(super) fn new(source: Source, quiet_after: Duration, every: Duration) -> Self {
        let now = Instant::now();
        let every = every.max(Duration::from_millis(10));
        let mut look =
            Self { source, quiet_after, every, silent_since: now, next: now, pause: every, before: None, told: None };
        look.sign_of_life();
        look
    }

    /// Records that there was output or input.
    pub(super) fn sign_of_life(&mut self) {
        self.silent_since = Instant::now();
        // One check comes before the silence counts: each result compares two checks.
        self.next = self.silent_since + self.quiet_after.saturating_sub(self.every);
        self.pause = self.every;
        self.before = None;
        self.told = None;
    }

    /// When the next check is due.
    pub(super) fn due(&self) -> Instant {
        self.next
    }

    /// Checks the processes if a check is due. Returns the activity if it has changed.
    pub(super) fn look(&mut self, shim: u32) -> Option<Activity> {
        let now = Instant::now();
        if now < self.next {
            return None;
        }
        let processes = process::descendants(shim);
        let waiting = processes.iter().find_map(|process| self.waits(process));
        let sample: BTreeMap<u32, Sample> =
            processes.iter().map(|stat| (stat.pid, sample(stat, waiting.is_some()))).collect();
        let before = self.before.replace((now, sample.clone()));
        self.next = now + self.pause;
        let (looked_at, before) = before?;
        let silent = now - self.silent_since;
        if silent < self.quiet_after {
            return None;
        }
        let busy = processes.iter().any(|stat| stat.state == b'D') || has_worked(&before, &sample, now - looked_at);
        let idle = !busy && self.source == Source::Nothing;
        self.pause = if idle { (self.pause * 2).min(self.every * LONGEST) } else { self.every };
        self.next = now + self.pause;
        if self.told.as_ref().is_some_and(|told| told.busy == busy && told.waiting == waiting) {
            return None;
        }
        let silent_ms = u64::try_from(silent.as_millis()).unwrap_or(u64::MAX);
        Some(self.told.insert(Activity { silent_ms, busy, waiting }).clone())
    }

    /// The last activity, if it still holds.
    pub(super) fn last(&self) -> Option<Activity> {
        self.told.clone()
    }

    /// Whether a process is blocked until there is input for the command. A process that a network socket can wake as well is a server and
    /// does not count: it does not wait for a person to type.
    fn waits(&self, stat: &Stat) -> Option<Waiting> {
        if self.source == Source::Nothing || stat.state != b'S' {
            return None;
        }
        let is_input = |descriptor| self.source.is(stat, descriptor);
        let awaited = Awaited::by(stat.pid);
        let reads = awaited.descriptors.iter().copied().any(is_input) && !awaited.has_network(stat.pid);
        let by_ring = || awaited.by_ring && awaits::has_nothing_else(stat.pid, is_input);
        if !(reads || by_ring()) {
            return None;
        }
        let command = fs::read_to_string(format!("/proc/{}/comm", stat.pid)).unwrap_or_default().trim_end().to_owned();
        Some(Waiting { pid: stat.pid, command, terminal: matches!(self.source, Source::Terminal(_)) })
    }
}

fn sample(stat: &Stat, with_io: bool) -> Sample {
    let io = with_io.then(|| fs::read_to_string(format!("/proc/{}/io", stat.pid)).ok()).flatten().map(|text| {
        let number = |line: &str| line.split_once(": ")?.1.parse::<u64>().ok();
        text.lines().filter(|line| line.starts_with("rchar") || line.starts_with("wchar")).filter_map(number).sum()
    });
    Sample { start_ticks: stat.start_ticks, cpu_ticks: stat.cpu_ticks, io }
}

fn has_worked(before: &BTreeMap<u32, Sample>, now: &BTreeMap<u32, Sample>, span: Duration) -> bool {
    let mut ticks = 0;
    for (pid, now) in now {
        let before = before.get(pid).filter(|before| before.start_ticks == now.start_ticks);
        if let (Some(before), Some(now)) = (before.and_then(|before| before.io), now.io)
            && before != now
        {
            return true;
        }
        // A process that is new since the last check has used all of its time since then.
        ticks += now.cpu_ticks.saturating_sub(before.map_or(0, |before| before.cpu_ticks));
    }
    ticks as f64 >= (span.as_secs_f64() * TICKS_PER_SECOND * WORK).max(1.0)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// Checks until the wanted activity is reported, as the shim does.
    fn said(look: &mut Look, wanted: impl Fn(&Activity) -> bool) -> Activity {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            assert!(Instant::now() < deadline, "nothing was said");
            if let Some(activity) = look.look(std::process::id())
                && wanted(&activity)
            {
                return activity;
            }
            std::thread::park_timeout(look.due().saturating_duration_since(Instant::now()));
        }
    }

    fn child(script: &str, stdin: Stdio) -> Child {
        Command::new("sh").args(["-c", script]).stdin(stdin).stdout(Stdio::null()).spawn().expect("sh")
    }

    // All in one test: each check sees every child of this process.
    #[test]
    fn reading_working_and_sleeping_processes_are_distinguished() {
        let quick = (Duration::from_millis(100), Duration::from_millis(50));

        let mut reader = child("cat", Stdio::piped());
        let pipe = reader.stdin.as_ref().expect("a pipe");
        let activity = said(&mut Look::new(Source::pipe(pipe), quick.0, quick.1), |activity| !activity.busy);
        let waiting = activity.waiting.expect("a process that waits");
        assert_eq!((waiting.command.as_str(), waiting.terminal), ("cat", false));
        reader.kill().expect("killed");
        reader.wait().expect("reaped");

        let mut sleeper = child("exec sleep 60", Stdio::piped());
        let pipe = sleeper.stdin.as_ref().expect("a pipe");
        let activity = said(&mut Look::new(Source::pipe(pipe), quick.0, quick.1), |activity| !activity.busy);
        assert_eq!(activity.waiting, None);
        sleeper.kill().expect("killed");
        sleeper.wait().expect("reaped");

        let mut worker = child("while :; do :; done", Stdio::null());
        let activity = said(&mut Look::new(Source::Nothing, quick.0, quick.1), |activity| activity.busy);
        assert_eq!(activity.waiting, None);
        worker.kill().expect("killed");
        worker.wait().expect("reaped");
    }
}
