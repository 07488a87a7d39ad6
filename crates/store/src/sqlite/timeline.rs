//! How much of the time that the wall clock shows has really passed, as far as the server saw. Pure.
//!
//! If a leap of the clock were believed, everything would be old at once. So time that no server observed counts for little: between two
//! servers at most [`UNSEEN`], and within one server what its monotonic clock measured. Records stored before a leap are then removed once
//! they were kept for their full retention and no sooner, whether the clock was wrong or the machine was off. Setting the clock back ages
//! nothing, and cancels the leaps that it undoes.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// How much of the time between two servers is believed to have passed.
const UNSEEN: Duration = Duration::from_secs(24 * 3600);
/// How far the wall clock may differ from the monotonic clock before the difference counts as a leap.
const TOLERANCE: Duration = Duration::from_secs(600);
/// The most leaps remembered; the newest are kept.
const LEAPS: usize = 64;

/// What the server observed of the wall clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Timeline {
    /// The wall clock at the last observation.
    seen: SystemTime,
    /// The leaps, oldest first.
    leaps: Vec<Leap>,
}

/// A span that the clock skipped: it shows the time as passed, and as far as the server knows it has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Leap {
    from: SystemTime,
    to: SystemTime,
    /// How much of the span has really passed.
    passed: Duration,
}

/// What the clock did since the last observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It advanced normally.
    Usual,
    /// It leapt forward.
    Forward { from: SystemTime },
    /// It was set back.
    Back { from: SystemTime },
}

impl Timeline {
    /// Starts a timeline at `seen`.
    pub(super) fn new(seen: SystemTime) -> Self {
        Self { seen, leaps: Vec::new() }
    }

    /// Observes that the clock shows `now`, `passed` after the last observation; `passed` is none when unknown.
    pub(super) fn observe(&mut self, now: SystemTime, passed: Option<Duration>) -> Step {
        let from = std::mem::replace(&mut self.seen, now);
        let (passed, allowed) = match passed {
            Some(passed) => (passed, passed.saturating_add(TOLERANCE)),
            None => (UNSEEN, UNSEEN),
        };
        let step = match now.duration_since(from) {
            Ok(shown) if shown > allowed => {
                self.leaps.push(Leap { from, to: now, passed });
                Step::Forward { from }
            }
            Ok(_) => Step::Usual,
            Err(back) => {
                self.undo(now, passed);
                if back.duration() > TOLERANCE { Step::Back { from } } else { Step::Usual }
            }
        };
        let surplus = self.leaps.len().saturating_sub(LEAPS);
        self.leaps.drain(..surplus);
        step
    }

    /// Removes the leaps that end after `now`, because the clock was set back to before them. A leap that is undone in part keeps its
    /// remainder. `passed` is the time since the last observation.
    fn undo(&mut self, now: SystemTime, mut passed: Duration) {
        while let Some(leap) = self.leaps.pop_if(|leap| leap.to > now) {
            passed = passed.saturating_add(leap.passed);
            if now.duration_since(leap.from).is_ok_and(|shown| shown > passed.saturating_add(TOLERANCE)) {
                self.leaps.push(Leap { from: leap.from, to: now, passed });
            }
        }
    }

    /// How much time has really passed since the clock showed `moment`, as far as the server saw. The inverse of [`Timeline::before`].
    pub(super) fn since(&self, moment: SystemTime) -> Duration {
        let (mut passed, mut upper) = (Duration::ZERO, self.seen);
        for leap in self.leaps.iter().rev() {
            if moment >= leap.to {
                break;
            }
            passed += upper.duration_since(leap.to).unwrap_or_default();
            if moment >= leap.from {
                // The clock never showed it: it is taken for the end of the span.
                return passed;
            }
            passed += leap.passed;
            upper = leap.from;
        }
        passed + upper.duration_since(moment).unwrap_or_default()
    }

    /// What the clock showed when `age` of real time ago. Never earlier than 1970.
    pub(super) fn before(&self, age: Duration) -> SystemTime {
        let (mut left, mut upper) = (age, self.seen);
        for leap in self.leaps.iter().rev() {
            // Between the end of the leap and `upper`, the clock ran normally.
            let since = upper.duration_since(leap.to).unwrap_or_default();
            if since >= left {
                break;
            }
            left -= since;
            upper = leap.from;
            if leap.passed >= left {
                return upper;
            }
            left -= leap.passed;
        }
        upper.checked_sub(left).unwrap_or(SystemTime::UNIX_EPOCH).max(SystemTime::UNIX_EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn day(days: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + DAY * (20_000 + days)
    }

    /// Advances the clock by `time`, observed every hour.
    fn go_on(timeline: &mut Timeline, time: Duration) {
        let end = timeline.seen + time;
        while timeline.seen < end {
            let now = timeline.seen + HOUR;
            assert_eq!(timeline.observe(now, Some(HOUR)), Step::Usual);
        }
    }

    #[test]
    fn steady_clock_is_believed() {
        let mut timeline = Timeline::new(day(0));
        go_on(&mut timeline, DAY * 10);
        assert_eq!(timeline.before(DAY), day(9));
        assert_eq!(timeline.before(DAY * 100), day(0) - DAY * 90);
        // Twelve hours without a server.
        assert_eq!(timeline.observe(day(10) + HOUR * 12, None), Step::Usual);
        assert_eq!(timeline.before(DAY), day(9) + HOUR * 12);
    }

    #[test]
    fn time_skipped_by_a_leap_never_counts() {
        for passed in [Some(HOUR), None] {
            let mut timeline = Timeline::new(day(100));
            assert_eq!(timeline.observe(day(200), passed), Step::Forward { from: day(100) });
            let credit = passed.unwrap_or(UNSEEN);
            assert_eq!(timeline.before(DAY * 7), day(100) - DAY * 7 + credit);
            go_on(&mut timeline, DAY * 3);
            // A record made after the leap is as old as the clock says.
            assert_eq!(timeline.before(DAY * 2), day(201));
            assert_eq!(timeline.before(DAY * 7), day(100) - DAY * 4 + credit);
            // A record made at any time before the leap is removed after its full retention.
            go_on(&mut timeline, DAY * 4);
            assert_eq!(timeline.before(DAY * 7), day(200));
        }
    }

    #[test]
    fn ages_are_the_inverse_of_moments() {
        let mut timeline = Timeline::new(day(0));
        go_on(&mut timeline, DAY);
        timeline.observe(day(300), Some(HOUR));
        go_on(&mut timeline, DAY);
        assert_eq!(timeline.since(day(300)), DAY);
        assert_eq!(timeline.since(day(200)), DAY, "within the leap");
        assert_eq!(timeline.since(day(0)), DAY * 2 + HOUR);
        assert_eq!(timeline.since(day(400)), Duration::ZERO);
        for hours in [0, 3, 24, 26, 40] {
            let moment = timeline.before(HOUR * hours);
            assert_eq!(timeline.since(moment), HOUR * hours, "{hours} hours");
        }
    }

    #[test]
    fn ages_advance_despite_frequent_downtime() {
        let mut timeline = Timeline::new(day(0));
        for week in 1..=10 {
            go_on(&mut timeline, HOUR * 8);
            timeline.observe(day(week * 7), None);
        }
        assert!(timeline.before(DAY * 7) > day(20), "{timeline:?}");
    }

    #[test]
    fn a_clock_set_back_makes_nothing_older() {
        let mut timeline = Timeline::new(day(100));
        assert_eq!(timeline.observe(day(50), Some(HOUR)), Step::Back { from: day(100) });
        assert_eq!(timeline.before(DAY), day(49));
        assert_eq!(timeline.observe(day(100) + HOUR, Some(HOUR)), Step::Forward { from: day(50) });
        assert_eq!(timeline.before(DAY), day(49) + HOUR);
    }

    #[test]
    fn undone_leap_is_forgotten() {
        let mut timeline = Timeline::new(day(100));
        timeline.observe(day(300), Some(HOUR));
        timeline.observe(day(100) + HOUR * 2, Some(HOUR));
        assert_eq!(timeline, Timeline::new(day(100) + HOUR * 2));
        // A leap that is undone in part keeps its remainder.
        timeline.observe(day(300), Some(HOUR));
        timeline.observe(day(110), Some(HOUR));
        assert_eq!(timeline.before(DAY), day(99) + HOUR * 4);
    }

    #[test]
    fn remembered_leaps_are_bounded() {
        let mut timeline = Timeline::new(day(0));
        for year in 1..1000 {
            timeline.observe(day(year * 365), None);
        }
        assert_eq!(timeline.leaps.len(), LEAPS);
        let text = serde_json::to_string(&timeline).unwrap_or_default();
        assert_eq!(serde_json::from_str::<Timeline>(&text).ok(), Some(timeline));
    }
}
