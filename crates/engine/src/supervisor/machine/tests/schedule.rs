//! What happens in one run of the simulated world: the command, and what disturbs its supervision when. Generated from a seed.

use std::{fmt, time::Duration};

use errand_task::{CompletionNotice, NotifyPolicy};

/// A small generator of pseudo-random numbers (SplitMix64), so that a seed means the same run everywhere.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// True in one of `n` cases.
    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(super) fn millis(&mut self, below: u64) -> Duration {
        Duration::from_millis(self.below(below))
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// What comes of one request to launch the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Launch {
    /// It is launched, and the answer says so.
    Fine,
    /// The answer says that it certainly was not launched, and it was not.
    Unavailable,
    /// The answer says that it was refused for good, and it was.
    Refused,
    /// The answer says that it is not known whether it was launched; it is launched after this time, if at all.
    Uncertain(Option<Duration>),
    /// No answer comes; it is launched after this time, if at all.
    Unanswered(Option<Duration>),
    /// The answer says that an attachment is there; the command is launched after this time, if at all.
    Silent(Option<Duration>),
}

/// The command.
#[derive(Debug, Clone)]
pub(super) struct Command {
    /// How long it runs by itself; none: for ever.
    pub(super) runs: Option<Duration>,
    pub(super) code: u8,
    pub(super) timeout: Duration,
    /// How long it takes to exit after SIGTERM; none: it ignores SIGTERM.
    pub(super) on_term: Option<Duration>,
    /// Whether it leaves a process behind that only SIGKILL ends.
    pub(super) leaves: bool,
    pub(super) outputs: u64,
    /// Whether the guest enforces the timeout.
    pub(super) guest: bool,
    /// What comes of the requests to launch it; the last entry holds for all further ones.
    pub(super) launches: Vec<Launch>,
    /// Whether the task was accepted as *starting*, with a reserved permit.
    pub(super) reserved: bool,
    /// What is announced of it at first.
    pub(super) notify: NotifyPolicy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disturbance {
    /// A caller asks for a stop with this grace.
    Stop(Duration),
    /// The connection to the sandbox breaks off.
    Cut,
    /// The attachment reports nothing any more, and does not break off.
    Mute,
    /// The store refuses everything for this long.
    StoreFails(Duration),
    /// The runtime does not answer for this long.
    RuntimeDown(Duration),
    /// The sandbox runs and does not answer for this long.
    Deaf(Duration),
    /// The sandbox is paused for this long.
    Paused(Duration),
    RestartSandbox,
    StopSandbox,
    RemoveSandbox,
    /// The process that keeps the command is killed.
    KillShim,
    /// The guest claims that the command is busy, or waits for input.
    Activity {
        busy: bool,
        waits: bool,
    },
    /// The command prints many lines.
    Chatter,
    /// A caller replaces the watches.
    SetWatches,
    /// The task directory is removed.
    WipeFiles,
    /// The command writes its own exit file, which says exit code 0.
    ForgeExit,
    /// The server ends, after its commits, and the next one starts after this time.
    Leave(Duration),
    /// The server is killed and the next one starts after this time.
    Crash(Duration),
    /// The supervisor panics.
    Panic,
    /// Another writer changes the record.
    Conflict,
    /// A caller changes what is announced.
    Policy(NotifyPolicy),
    /// The machine's clock is set forward or back by these seconds.
    Leap(i64),
}

/// One run.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    pub(super) seed: u64,
    pub(super) command: Command,
    /// How late an answer or a report may come, in milliseconds. Reports overtake one another within this time.
    pub(super) lateness: u64,
    /// One in so many reports comes twice.
    pub(super) twice: u64,
    /// What happens, and how long after the start.
    pub(super) disturbances: Vec<(Duration, Disturbance)>,
}

impl Schedule {
    pub(super) fn generate(seed: u64) -> Self {
        let random = &mut Random::new(seed);
        let mut command = Command::generate(random);
        let lateness = random.pick(&[2, 2, 30, 300, 3000]);
        let mut disturbances: Vec<_> = (0..random.pick(&[0, 1, 2, 3, 5, 8]))
            .map(|_| {
                let range = random.pick(&[50, 1_500, 10_000, 60_000]);
                (random.millis(range), Disturbance::generate(random))
            })
            .collect();
        let twice = random.pick(&[2, 10, 1000]);
        // Drawn apart, so that what else happens under a seed stays the same.
        let random = &mut Random::new(seed ^ 0xBEA7);
        if !random.one_in(3) {
            command.notify = policy(random);
        }
        disturbances.extend((0..random.pick(&[0, 0, 1, 3])).map(|_| {
            let range = random.pick(&[50, 1_500, 60_000]);
            (random.millis(range), Disturbance::Policy(policy(random)))
        }));
        // From numbers of their own: the rest of a seed's schedule stays as it was without them.
        let random = &mut Random::new(seed ^ 0x3A7C);
        for _ in 0..random.pick(&[0, 0, 1, 2]) {
            let range = random.pick(&[1_500, 60_000]);
            let what = if random.one_in(4) { Disturbance::SetWatches } else { Disturbance::Chatter };
            disturbances.push((random.millis(range), what));
        }
        disturbances.sort_by_key(|(at, _)| *at);
        Self { seed, command, lateness, twice, disturbances }
    }
}

impl Command {
    fn generate(random: &mut Random) -> Self {
        let late = |random: &mut Random| (!random.one_in(3)).then(|| random.millis(45_000));
        let one = |random: &mut Random| match random.below(12) {
            0 => Launch::Unavailable,
            1 => Launch::Refused,
            2 => Launch::Uncertain(late(random)),
            3 => Launch::Unanswered(late(random)),
            4 => Launch::Silent(late(random)),
            _ => Launch::Fine,
        };
        Self {
            runs: (!random.one_in(3)).then(|| {
                let range = random.pick(&[5, 100, 3_000, 100_000]);
                random.millis(range)
            }),
            code: random.pick(&[0, 3]),
            timeout: Duration::from_secs(random.pick(&[1, 10, 60])),
            on_term: (!random.one_in(2)).then(|| random.millis(2_000)),
            leaves: random.one_in(5),
            outputs: random.below(4),
            guest: random.one_in(2),
            launches: vec![one(random), one(random), Launch::Fine],
            reserved: random.one_in(2),
            notify: NotifyPolicy::default(),
        }
    }
}

/// A policy. The intervals are shorter than callers may ask for.
fn policy(random: &mut Random) -> NotifyPolicy {
    let (always, never) = (CompletionNotice::Always, CompletionNotice::Never);
    let seconds = |seconds: Option<u64>| seconds.map(Duration::from_secs);
    NotifyPolicy {
        completion: random.pick(&[always, always, CompletionNotice::UnlessSucceeded, never]),
        heartbeat_every: seconds(random.pick(&[None, Some(7), Some(20)])),
        idle_after: seconds(random.pick(&[None, Some(1), Some(15), Some(44)])),
        ..NotifyPolicy::default()
    }
}

impl Disturbance {
    fn generate(random: &mut Random) -> Self {
        let range = random.pick(&[500, 5_000, 80_000]);
        let period = random.millis(range);
        match random.below(26) {
            0..=4 => Self::Stop(random.pick(&[Duration::ZERO, Duration::from_secs(1), Duration::from_secs(5)])),
            5..=6 => Self::Cut,
            7..=8 => Self::StoreFails(period),
            9 => Self::RuntimeDown(period),
            10 => Self::Deaf(period),
            11 => Self::Deaf(random.pick(&[period, Duration::from_secs(3600)])),
            12 => Self::Paused(period),
            13 => Self::RestartSandbox,
            14 => Self::StopSandbox,
            15 => Self::RemoveSandbox,
            16 => Self::KillShim,
            17 => Self::ForgeExit,
            18 => Self::Leave(period),
            19 => Self::Crash(period),
            20 if random.one_in(2) => Self::Panic,
            20 => Self::Conflict,
            21 => Self::WipeFiles,
            22..=23 => Self::Activity { busy: random.one_in(3), waits: random.one_in(2) },
            24 => Self::Mute,
            _ => Self::Leap(random.pick(&[-86_400, -40, 40, 86_400])),
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {:?}", self.seed, self.command)?;
        writeln!(f, "  answers and reports up to {} ms late, 1 in {} twice", self.lateness, self.twice)?;
        for (at, disturbance) in &self.disturbances {
            writeln!(f, "  {at:>9.3?} {disturbance:?}")?;
        }
        Ok(())
    }
}
