//! Converts watches, and what came of them.

use super::count;
use errand_proto::v1::{self, output_watch::Kind};
use errand_task::{Watch, WatchNotice, WatchPattern, WatchState, Watches};

/// Converts the watches of a task.
pub(in crate::api) fn watches(watches: Watches) -> Vec<v1::OutputWatchState> {
    watches.list.into_iter().map(state).collect()
}

fn state(state: WatchState) -> v1::OutputWatchState {
    v1::OutputWatchState {
        watch: Some(watch(state.watch)),
        matches: count(state.matches),
        held_back: count(state.held_back),
        next_offset: count(state.next),
        disabled: state.disabled,
        unsearched_bytes: count(state.unsearched),
    }
}

fn watch(watch: Watch) -> v1::OutputWatch {
    let kind = match watch.pattern {
        WatchPattern::Text(text) => Kind::Substring(text),
        WatchPattern::Regex(pattern) => Kind::Regex(pattern),
    };
    v1::OutputWatch { kind: Some(kind), once: watch.once }
}

/// Converts what a notification says of matches.
pub(super) fn notice(notice: WatchNotice) -> v1::WatchMatch {
    let index = |index: u32| i32::try_from(index).unwrap_or(i32::MAX);
    let others =
        notice.others.iter().map(|other| v1::WatchCount { index: index(other.index), matches: count(other.matches) });
    v1::WatchMatch {
        index: index(notice.index),
        others: others.collect(),
        watch: Some(watch(notice.watch)),
        offset: count(notice.offset),
        lines: notice.lines.text,
        lines_cut: notice.lines.cut,
        matches: count(notice.matches),
    }
}
