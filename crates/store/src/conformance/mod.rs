//! The tests of the contract, for every store. [`store_conformance`](crate::store_conformance) makes a test of each case.
//!
//! Each case opens a [`Place`] of its own, so that cases share nothing.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, async_fn_in_trait, reason = "these are tests")]

use std::{sync::Arc, time::Duration};

use crate::TaskStore;

pub mod clock;
pub mod fixtures;
pub mod notifications;
pub mod retention;
pub mod sandboxes;
pub mod tasks;
pub mod undecodable;

/// A place for a store, such as a directory or a database.
pub trait Place: Sized {
    /// An empty place.
    async fn empty() -> Self;
    /// Opens the store. At most one at a time is open.
    async fn open(&self) -> Arc<dyn TaskStore>;
    /// Lets time pass by the store's clock.
    fn pass(&self, time: Duration);
    /// Overwrites the record of a `task`, a `sandbox` or a `notification`, past the store.
    fn spoil(&self, what: &str, id: &str, record: &str);
}

/// One test for each case, with stores at places of the given type.
#[macro_export]
macro_rules! store_conformance {
    ($place:ty) => {
        $crate::store_conformance! { $place;
            tasks: a_task_reads_back_as_created, unpolled_reader_blocks_no_other, a_request_id_makes_one_task,
                concurrent_creates_with_one_request_id_make_one_task, a_bot_cap_holds_under_concurrent_creates,
                a_tenant_cap_holds_under_concurrent_creates, finished_tasks_do_not_count_against_caps,
                an_update_from_an_older_revision_conflicts, of_concurrent_updates_one_succeeds,
                an_update_of_no_task_conflicts, a_terminal_state_never_changes,
                a_finished_task_takes_one_late_outcome_and_nothing_else, tasks_are_listed_newest_first_in_pages, large_tasks_come_in_pages_by_size,
                tasks_are_listed_by_status_session_and_bot, bot_patterns_match_names_and_prefixes,
                labels_match_whatever_their_keys_hold, tenants_do_not_see_each_others_tasks,
                unfinished_tasks_of_all_tenants_are_listed_oldest_first, tasks_that_finished_long_ago_are_removed,
                a_large_task_reads_back_after_changes, an_update_keeps_what_was_accepted;
            sandboxes: a_bot_has_one_sandbox, a_container_is_the_sandbox_of_one_bot, sandboxes_are_listed_oldest_first_in_pages, a_forgotten_sandbox_is_gone;
            notifications: notifications_are_in_order_of_commit, an_update_that_conflicts_adds_no_notification,
                large_notifications_come_in_pages_by_size,
                a_notification_outlives_its_task, concurrent_drainers_never_hold_the_same,
                an_ended_lease_is_free_again, the_next_lease_end_is_that_of_the_scope,
                a_released_notification_is_free_at_once, acknowledging_twice_counts_once,
                acknowledging_a_lease_ends_what_it_holds, another_scope_changes_nothing,
                a_completion_is_acknowledged_by_its_task, old_notifications_are_removed,
                a_sequence_is_never_used_twice, a_cursor_of_one_bot_skips_nothing, commits_and_releases_wake_subscribers, everything_survives_a_reopen,
                a_closed_store_refuses_all_use;
            retention: stored_tasks_of_a_tenant_are_limited, stored_bytes_of_a_tenant_are_limited,
                removed_tasks_leave_directories_to_remove, directories_go_with_their_sandbox, unknown_tasks_are_found_once_old;
            undecodable: an_undecodable_task_is_left_out, an_undecodable_task_is_named_without_content,
                undecodable_unfinished_tasks_stay_stored, an_undecodable_sandbox_is_left_out,
                an_undecodable_notification_blocks_no_other, retention_removes_undecodable_records;
        }
    };
    ($place:ty; $($module:ident: $($case:ident),+;)+) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let place = <$place as $crate::conformance::Place>::empty().await;
                $crate::conformance::$module::$case(&place).await;
            }
        )+)+
    };
}
