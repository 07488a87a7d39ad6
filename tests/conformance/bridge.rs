//! What every bridge must do, in every sandbox. Tests only the contract; [`bridge_conformance`] makes one test of each case.

#[path = "bridge/bench.rs"]
pub mod bench;
#[path = "bridge/commands.rs"]
pub mod commands;
#[path = "bridge/output.rs"]
pub mod output;
#[path = "bridge/truth.rs"]
pub mod truth;

pub use bench::Bench;

/// One test per case, in one module per kind of bench.
#[macro_export]
macro_rules! bridge_conformance {
    ($($name:ident: $make:expr;)+) => {
        $(mod $name {
            use super::*;
            $crate::bridge_conformance! { @cases $make;
                commands: output_and_exit_code_match_the_command, exit_codes_and_signals_are_distinct, no_command_text_breaks_the_wrapper, arguments_reach_the_program_unchanged, start_failures_are_distinguished, oversized_arguments_have_their_own_failure, any_execve_name_is_a_valid_variable, workdir_and_shell_are_as_requested, pkill_by_own_arguments_spares_the_supervisor, command_sees_an_unmodified_sandbox;
                truth: task_is_launched_at_most_once, fenced_launch_never_happens, failed_fence_forbids_no_launch, signal_reaches_the_whole_tree, a_recycled_pid_is_never_signalled, killed_supervisor_leaves_no_invented_result, signal_to_the_supervisor_is_no_result, corrupt_or_foreign_exit_file_is_no_result, corrupt_task_files_block_no_answer, removed_tasks_leave_no_file;
                output: dead_stream_disturbs_neither_command_nor_log, unread_attachment_does_not_slow_the_command, attachment_starts_at_any_byte, output_is_seen_while_the_command_runs, daemon_holding_output_does_not_delay_the_end, removed_log_is_reported_beside_the_result, output_up_to_the_limit_is_kept_whole, output_beyond_the_limit_keeps_both_ends, log_is_read_by_range_and_tail;
            }
        })+
    };
    (@cases $make:expr; $($module:ident: $($case:ident),+;)+) => {
        $($(#[tokio::test]
        async fn $case() {
            if let Some(bench) = $make.await {
                $crate::conformance::bridge::$module::$case(bench).await;
            }
        })+)+
    };
}
