//! The lies, by name. The liar in `tests/liar` implements them.

/// A lie, and which outcomes its task may get.
pub struct Lie {
    /// Its name.
    pub name: &'static str,
    /// Whether the task may be recorded as exited: the lie claims that its own task exited.
    pub may_exit: bool,
}

/// No lie.
pub static TRUTH: Lie = lie("none");

const fn lie(name: &'static str) -> Lie {
    Lie { name, may_exit: false }
}

const fn claim(name: &'static str) -> Lie {
    Lie { name, may_exit: true }
}

/// All lies; those that take long come first.
pub static LIES: &[Lie] = &[
    // The connection itself: bytes that never come, come slowly, or are not HTTP/2.
    lie("silent"),
    lie("mute"),
    lie("slow"),
    lie("half_close"),
    lie("immortal"),
    lie("speechless"),
    lie("deaf"),
    lie("garbage"),
    lie("endless_words"),
    lie("ping_flood"),
    lie("settings_flood"),
    lie("header_flood"),
    // The greeting.
    lie("huge_hello"),
    lie("endless_hello"),
    lie("long_version"),
    lie("strange_version"),
    lie("old_protocol"),
    // Answers.
    lie("huge_answers"),
    lie("endless_answers"),
    lie("noise_in_answers"),
    lie("huge_refusals"),
    lie("unknown_refusals"),
    lie("crowded"),
    lie("huge_input_taken"),
    lie("impossible_ports"),
    lie("many_ports"),
    // Reports.
    lie("empty_reports"),
    lie("activity_flood"),
    lie("resume_flood"),
    lie("start_flood"),
    lie("output_flood"),
    lie("tiny_output_flood"),
    lie("jumping_output"),
    lie("huge_output"),
    lie("packed_output"),
    claim("contradictory"),
    lie("replayed"),
    lie("backwards"),
    lie("huge_names"),
    lie("huge_result"),
    lie("strange_result"),
    lie("impossible_times"),
    lie("impossible_processes"),
    lie("impossible_matches"),
    lie("match_flood"),
    // Findings about a task.
    lie("another_tasks"),
    lie("many_findings"),
    lie("huge_findings"),
    lie("forgotten"),
    // Logs.
    lie("packed_bomb"),
    lie("log_beyond_question"),
    lie("endless_log"),
    lie("slow_log"),
    lie("tiny_log"),
    lie("many_lines"),
    lie("huge_lines"),
    lie("lines_out_of_order"),
    lie("impossible_lines"),
    // Files.
    lie("huge_directory_names"),
    lie("huge_links"),
    lie("impossible_files"),
    lie("endless_directory"),
    lie("empty_batches"),
    lie("large_batches"),
    lie("endless_file"),
    lie("huge_file_pieces"),
    lie("empty_file_pieces"),
    lie("endless_changes"),
    lie("empty_changes"),
    lie("large_changes"),
];
