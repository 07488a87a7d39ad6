//! The tests of the contract, for every store. [`store_conformance`](crate::store_conformance) makes a test of each case.
//!
//! Each case opens a [`Place`] of its own, so that cases share nothing.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, async_fn_in_trait, reason = "these are tests")]

use std::{sync::Arc, time::Duration};

use crate::TaskStore;

pub mod clock;
pub mod fixtures;
pub mod leases;
pub mod notifications;
pub mod outputs;
pub mod queue;
pub mod reopening;
pub mod retention;
pub mod sandboxes;
pub mod secrets;
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
            tasks: a_task_reads_back_as_created, unpolled_reader_blocks_no_other,
                repeated_request_id_returns_the_same_task, concurrent_creates_of_one_request_make_one_task,
                a_bot_cap_holds_under_concurrent_creates, a_tenant_cap_holds_under_concurrent_creates,
                finished_tasks_do_not_count_against_caps, an_update_from_an_older_revision_conflicts,
                only_one_of_concurrent_updates_succeeds, update_of_an_unknown_task_conflicts,
                a_terminal_state_never_changes, finished_task_takes_only_one_late_outcome,
                tasks_are_listed_newest_first_in_pages, task_pages_are_limited_by_size,
                tasks_are_listed_by_status_session_and_bot, bot_patterns_match_names_and_prefixes,
                labels_match_with_any_characters_in_keys, tenants_do_not_see_each_others_tasks,
                unfinished_tasks_are_listed_oldest_first, tasks_that_finished_long_ago_are_removed,
                a_large_task_reads_back_after_changes, update_never_changes_the_accepted_part;
            sandboxes: a_bot_has_one_sandbox, container_belongs_to_only_one_bot,
                sandboxes_are_listed_oldest_first_in_pages, removed_sandbox_is_no_longer_found;
            notifications: notifications_are_listed_in_commit_order, conflicting_update_adds_no_notification,
                notification_pages_are_limited_by_size,
                second_acknowledgement_changes_nothing, a_completion_is_acknowledged_by_its_task,
                a_sequence_is_never_used_twice, bot_cursor_skips_no_concurrent_commit,
                commits_and_releases_wake_subscribers, acknowledged_notification_is_delivered_to_nobody;
            leases: concurrent_drainers_never_lease_the_same_notification, notifications_of_an_ended_lease_return,
                next_lease_end_ignores_other_scopes, released_notification_can_be_leased_at_once,
                acknowledging_a_lease_acknowledges_its_notifications,
                other_scopes_neither_read_nor_change_notifications, held_completion_returns_unless_acknowledged;
            reopening: everything_survives_a_reopen, closed_store_refuses_every_call;
            queue: queued_task_counts_apart_until_admitted, admission_is_refused_without_room,
                queued_tasks_have_caps_of_their_own, stopped_queued_task_frees_its_place;
            outputs: retained_output_reads_back, retained_output_is_replaced_and_counted,
                output_without_room_fails_no_end, outputs_leave_room_for_tasks, unretained_tasks_are_listed_by_sandbox,
                late_outcome_keeps_the_retained_output;
            retention: task_and_its_notices_go_together, acknowledgement_starts_the_retention,
                unacknowledged_tasks_are_kept_longer_and_counted, unannounced_task_goes_after_its_retention,
                unseen_late_outcome_holds_its_task, age_is_the_time_that_passed,
                stored_tasks_of_a_tenant_are_limited, stored_bytes_of_a_tenant_are_limited,
                directories_of_removed_tasks_await_removal, pending_removals_end_with_their_sandbox,
                only_old_unknown_tasks_are_reported;
            secrets: secrets_are_kept_only_as_long_as_needed, secrets_of_unstarted_tasks_end_with_them,
                values_stay_until_output_is_retained, secrets_of_waiting_tasks_stay,
                secrets_survive_a_reopen, repeated_request_adds_no_secrets, secrets_count_as_stored_bytes;
            undecodable: lists_leave_out_undecodable_tasks, error_of_undecodable_task_hides_its_content,
                undecodable_unfinished_tasks_stay_stored, lists_leave_out_undecodable_sandboxes,
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
