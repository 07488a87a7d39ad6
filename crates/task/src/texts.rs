//! Visits every text that a caller or a sandbox chose, so that secrets in it can be masked in one place.
//!
//! Each function names every field: a new one does not compile until it says here whether it holds such a text.

use super::{
    Ending, Liveness, NewNotification, Outcome, Program, Stall, StopCause, Task, TaskSpec, TaskState, Waiting,
    WatchMatches, WatchNotice,
};

impl TaskSpec {
    /// Changes the texts that the caller chose. Names and ids stay: they are looked up by others.
    pub fn each_text(&mut self, change: &mut impl FnMut(&mut String)) {
        let Self {
            program,
            workdir,
            env,
            description,
            labels,
            timeout: _,
            request_id: _,
            stdin: _,
            terminal: _,
            user: _,
            clean_env: _,
            limits: _,
            nice: _,
            output_limit: _,
            separate_stderr: _,
            secret_env: _,
            concealed: _,
            when_full: _,
            traceparent: _,
        } = self;
        program.each_text(change);
        workdir.iter_mut().for_each(&mut *change);
        change(description);
        env.values_mut().chain(labels.values_mut()).for_each(change);
    }
}

impl Program {
    /// Changes the command's texts.
    pub fn each_text(&mut self, change: &mut impl FnMut(&mut String)) {
        match self {
            Self::Shell { text, shell } => {
                change(text);
                shell.iter_mut().for_each(&mut *change);
            }
            Self::Argv(argv) => argv.iter_mut().for_each(&mut *change),
        }
    }
}

impl Task {
    /// Changes the texts that came from the sandbox or with a request to stop. The specification's texts never change; patterns of watches that
    /// hold a secret are refused.
    pub fn each_text_of_progress(&mut self, change: &mut impl FnMut(&mut String)) {
        let Self {
            state,
            late_outcome,
            output,
            stall,
            stop_requested,
            id: _,
            owner: _,
            sandbox: _,
            spec: _,
            nonce: _,
            output_file: _,
            usage: _,
            memory_kills: _,
            retained: _,
            notify: _,
            heartbeat_from: _,
            idle_since: _,
            watches: _,
            created_at: _,
            revision: _,
        } = self;
        state.each_text(change);
        for outcome in late_outcome.iter_mut() {
            outcome.each_text(change);
        }
        change(&mut output.preview);
        for stall in stall.iter_mut() {
            stall.each_text(change);
        }
        for cause in stop_requested.iter_mut() {
            cause.each_text(change);
        }
    }
}

impl NewNotification {
    /// Changes all texts: those of `whole` texts, and those that may have been cut out of longer ones.
    pub fn each_text(&mut self, whole: &mut impl FnMut(&mut String), cut: &mut impl FnMut(&mut String)) {
        let Self {
            outcome,
            description,
            command,
            output_head,
            output_tail,
            stall,
            liveness,
            labels,
            watch,
            task: _,
            owner: _,
            kind: _,
            status: _,
            memory_kills: _,
            command_truncated: _,
            output_truncated: _,
            output_bytes: _,
            output_file: _,
            duration: _,
            takes_input: _,
            traceparent: _,
            acknowledged: _,
            held_back: _,
            created_at: _,
        } = self;
        for outcome in outcome.iter_mut() {
            outcome.each_text(whole);
        }
        whole(description);
        whole(command);
        labels.values_mut().for_each(&mut *whole);
        cut(output_head);
        cut(output_tail);
        for Liveness { last_line, silent_for: _ } in liveness.iter_mut() {
            cut(last_line);
        }
        for found in watch.iter_mut() {
            found.each_text(cut);
        }
        for stall in stall.iter_mut() {
            stall.each_text(cut);
        }
    }
}

impl TaskState {
    fn each_text(&mut self, change: &mut impl FnMut(&mut String)) {
        match self {
            Self::Stopping { cause, .. } => cause.each_text(change),
            Self::Finished { outcome, .. } => outcome.each_text(change),
            Self::AwaitingRoom | Self::Queued | Self::Starting { .. } | Self::Running { .. } => {}
        }
    }
}

impl Outcome {
    /// Changes its texts.
    pub fn each_text(&mut self, change: &mut impl FnMut(&mut String)) {
        match self {
            Self::FailedToStart { message, .. } | Self::Lost { message, .. } => change(message),
            Self::Stopped { cause, .. } => cause.each_text(change),
            Self::Exited { .. } | Self::Signaled { .. } | Self::TimedOut { .. } => {}
        }
    }
}

impl Ending {
    /// Changes its texts.
    pub fn each_text(&mut self, change: &mut impl FnMut(&mut String)) {
        match self {
            Self::FailedToStart { message, .. } | Self::Lost { message, .. } => change(message),
            Self::Exited(_) | Self::Signaled(_) | Self::TimedOut { .. } => {}
        }
    }
}

impl StopCause {
    /// Changes the caller's reason.
    pub fn each_text(&mut self, change: &mut impl FnMut(&mut String)) {
        match self {
            Self::Request { reason, acknowledge: _ } => change(reason),
            Self::Disconnect
            | Self::SandboxStopped
            | Self::SandboxDeleted
            | Self::ServerShutdown
            | Self::Timeout { .. } => {}
        }
    }
}

impl WatchNotice {
    /// Changes the lines. The pattern stays: one that holds a secret is refused.
    pub fn each_text(&mut self, change: &mut impl FnMut(&mut String)) {
        let Self { lines, index: _, watch: _, offset: _, matches: _, others: _ } = self;
        change(&mut lines.text);
    }
}

impl WatchMatches {
    /// Changes the lines.
    pub fn each_text(&mut self, change: &mut impl FnMut(&mut String)) {
        let Self { lines, .. } = self;
        change(&mut lines.text);
    }
}

impl Stall {
    /// Changes its texts.
    pub fn each_text(&mut self, change: &mut impl FnMut(&mut String)) {
        let Self { last_line, waiting, since: _, silent_for: _ } = self;
        change(last_line);
        for Waiting { command, pid: _, reads: _ } in waiting.iter_mut() {
            change(command);
        }
    }
}
