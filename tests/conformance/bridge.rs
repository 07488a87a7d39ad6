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
                commands: output_and_exit_code_are_those_of_the_command, every_exit_code_and_signal_is_told_apart, no_command_text_breaks_the_wrapper, arguments_reach_the_program_unchanged, failures_to_start_are_told_apart, arguments_too_large_have_their_own_word, every_name_that_execve_takes_is_a_variable, workdir_and_shell_are_those_asked_for, a_command_that_kills_by_its_own_words_spares_its_supervisor, the_command_finds_the_sandbox_as_it_would_alone;
                truth: a_task_is_launched_at_most_once, a_fenced_launch_never_happens, a_fence_that_cannot_be_made_forbids_nothing, a_signal_reaches_the_whole_tree, a_recycled_pid_is_never_signalled, a_killed_supervisor_is_noticed_and_no_result_is_invented, a_signal_to_the_supervisor_is_no_result, an_exit_file_that_is_garbage_or_foreign_is_no_result, spoilt_task_files_block_no_answer, removed_tasks_leave_no_file;
                output: a_dead_stream_disturbs_neither_command_nor_log, a_reader_that_does_not_read_does_not_hold_the_command_up, an_attachment_takes_up_at_any_byte, output_is_seen_while_the_command_runs, a_daemon_that_holds_the_output_does_not_delay_the_end, a_removed_log_is_reported_and_the_result_still_comes, output_up_to_the_limit_is_kept_whole, output_beyond_the_limit_keeps_both_ends, pieces_of_a_log_are_read_by_range_and_tail;
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
