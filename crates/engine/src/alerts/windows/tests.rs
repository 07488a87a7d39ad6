//! A task with watches, and matches that come at given times.

use proptest::prelude::*;

use super::*;
use crate::{WatchSettings, supervisor::machine::tests::samples};
use errand_task::{Watch, WatchLines, WatchPattern};

const INTERVAL: Duration = Duration::from_secs(15);

/// The alerts of one task, carried out as the machine does.
struct Run {
    alerts: Alerts,
    task: Task,
    budgets: Budgets,
    start: Instant,
    now: Instant,
    position: u64,
    /// What was told, when, and how many matches had waited.
    told: Vec<(u64, News, u64)>,
    /// How many matches were told of.
    announced: u64,
}

impl Run {
    fn new() -> Self {
        let watch = |once| Watch { pattern: WatchPattern::Text("x".to_owned()), once };
        let watches = Watches::new(1, vec![watch(false), watch(true), watch(false)], 0);
        let now = Instant::now();
        Self {
            alerts: Alerts::default(),
            task: Task { watches, ..samples::task() },
            budgets: Budgets::new(WatchSettings::default()),
            start: now,
            now,
            position: 0,
            told: Vec::new(),
            announced: 0,
        }
    }

    /// Lets time pass, and tells what becomes due in it.
    fn until(&mut self, seconds: u64) {
        let end = self.start + Duration::from_secs(seconds);
        loop {
            match self.alerts.due() {
                Some(due) if due <= end => self.now = self.now.max(due),
                Some(_) | None => break,
            }
            self.tell();
        }
        self.now = self.now.max(end);
    }

    fn tell(&mut self) {
        while let Some(news) = self.alerts.next(&self.task, &self.budgets, self.now) {
            let (notice, held) = self.alerts.notice(news, &self.task.watches);
            self.announced += notice
                .map_or(0, |notice| notice.matches + notice.others.iter().map(|other| other.matches).sum::<u64>());
            self.alerts.apply(news, &mut self.task.watches);
            self.alerts.told(news, INTERVAL, self.now);
            self.told.push(((self.now - self.start).as_secs(), news, held));
        }
        assert!(self.alerts.due().is_none_or(|due| due > self.now), "a deadline that has passed stays due");
    }

    fn matches(&mut self, index: u32, count: u64) {
        let (offset, next) = (self.position, self.position + count);
        self.position = next;
        let lines = WatchLines { text: format!("line {offset}"), cut: false };
        let found = vec![WatchMatches { index, count, offset, next, lines }];
        self.alerts.add(found, 0, &self.task, &self.budgets, self.now);
        self.tell();
    }

    fn total(&self) -> u64 {
        self.task.watches.list.iter().map(|state| state.matches).sum()
    }
}

#[test]
fn first_match_is_told_at_once_and_others_wait() {
    let mut run = Run::new();
    run.until(100);
    run.matches(0, 2);
    run.until(104);
    run.matches(0, 1);
    run.matches(2, 5);
    run.until(200);
    run.matches(0, 1);
    assert_eq!(run.told, [(100, News::Matches, 0), (115, News::Matches, 6), (200, News::Matches, 0)]);
    let states = &run.task.watches.list;
    assert_eq!((states[0].matches, states[0].held_back), (4, 1));
    assert_eq!((states[2].matches, states[2].held_back, states[2].next), (5, 5, 8));
}

#[test]
fn three_bad_windows_turn_the_watch_off() {
    let mut run = Run::new();
    for second in 0..100 {
        run.until(second);
        run.matches(0, 1);
    }
    let told = [(0, News::Matches, 0), (15, News::Matches, 15), (30, News::Matches, 15), (45, News::Disabled, 15)];
    // At second 15 the window ends before the match of that second comes.
    assert_eq!(run.told.iter().map(|told| (told.0, told.1)).collect::<Vec<_>>(), told.map(|told| (told.0, told.1)));
    assert!(run.task.watches.list[0].disabled && !run.task.watches.list[2].disabled);
    assert_eq!(run.alerts.rest(), 0, "a watch that is off finds nothing");
}

#[test]
fn quiet_window_forgives_bad_ones() {
    let mut run = Run::new();
    for second in 0..600 {
        run.until(second);
        // Two windows with several matches, then a quiet one.
        if second % 60 < 30 && second % 3 == 0 {
            run.matches(0, 1);
        }
    }
    assert!(run.told.iter().all(|(_, news, _)| *news == News::Matches), "{:?}", run.told);
    assert_eq!(run.announced + run.alerts.rest(), run.position);
}

#[test]
fn once_is_told_once_whatever_is_claimed() {
    let mut run = Run::new();
    for second in 0..100 {
        run.until(second);
        run.matches(1, 1);
    }
    assert_eq!(run.told, [(0, News::Matches, 0)]);
}

#[test]
fn new_search_begins_after_what_waits() {
    let mut run = Run::new();
    run.matches(2, 1);
    run.matches(0, 3);
    run.matches(1, 1);
    let armed = run.alerts.armed(&run.task.watches);
    assert_eq!(armed.iter().map(|watch| (watch.index, watch.from)).collect::<Vec<_>>(), [(0, 4), (2, 1)]);
}

#[test]
fn store_failure_delays_and_loses_nothing() {
    let mut run = Run::new();
    let (start, found) =
        (run.now, WatchMatches { index: 0, count: 1, offset: 0, next: 1, lines: WatchLines::default() });
    run.alerts.add(vec![found], 0, &run.task, &run.budgets, start);
    for second in 0..5 {
        let now = start + Duration::from_secs(second);
        assert_eq!(run.alerts.next(&run.task, &run.budgets, now), Some(News::Matches));
        run.alerts.failed(now);
        assert_eq!(run.alerts.due(), Some(now + RETRY));
    }
    run.until(10);
    assert_eq!((run.told.len(), run.total()), (1, 1));
}

#[test]
fn pause_of_the_session_is_told_by_its_task() {
    let mut run = Run::new();
    for _ in 0..15 {
        run.budgets.ask(&run.task.owner, run.now);
    }
    run.matches(0, 3);
    run.until(10);
    run.matches(2, 4);
    assert_eq!(run.told, [(0, News::Suspended, 3)]);
    run.until(100);
    assert_eq!(run.told[1..], [(30, News::Restored { held: 7 }, 7), (30, News::Matches, 7)]);
    assert_eq!(run.total(), 7);
}

#[test]
fn untold_matches_are_counted_at_the_end() {
    let mut run = Run::new();
    run.matches(0, 1);
    run.matches(0, 2);
    let mut watches = run.task.watches.clone();
    assert_eq!(run.alerts.finish(&mut watches), 2);
    assert_eq!((watches.list[0].matches, watches.list[0].held_back), (3, 2));
}

proptest! {
    #[test]
    fn windows_hold_at_any_matches(steps in prop::collection::vec((0u64..9, 0u32..3, 1u64..50), 1..200)) {
        let mut run = Run::new();
        let mut second = 0;
        for (pause, index, count) in steps {
            second += pause;
            run.until(second);
            run.matches(index, count);
        }
        run.until(second + 1000);
        let at: Vec<u64> = run.told.iter().map(|told| told.0).collect();
        prop_assert!(at.windows(2).all(|pair| pair[1] - pair[0] >= 15), "{:?}", run.told);
        prop_assert_eq!(run.announced, run.total(), "each match is told of once");
        prop_assert_eq!(run.alerts.rest(), 0);
        prop_assert!(run.total() <= run.position);
        let disabled = run.told.iter().filter(|told| told.1 == News::Disabled).count();
        prop_assert!(disabled <= 3, "a watch is turned off once");
    }
}
