//! Decides what a finding in the sandbox means for a task. Pure; live operation and recovery both use it.

use std::time::SystemTime;

use errand_bridge::Finding;
use errand_task::{Ending, LossReason, ProcessIdentity, StartFailure, TaskState, sentinel::Sentinel};

/// What to do with a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The task has ended.
    End(Ending),
    /// The task has ended and may have left processes that nothing supervises.
    KillAndEnd(Ending),
    /// The command runs. Holds its first process, if that is recorded.
    Follow(Option<(ProcessIdentity, SystemTime)>),
    /// Too early to tell: a process may be about to write the exit file.
    LookAgain,
}

/// Judges a task in `state` by what was found in its sandbox. `restarted`: the sandbox has another incarnation than at the launch. `sure`:
/// this is a second look, and enough time has passed since the first.
pub(super) fn verdict(state: &TaskState, restarted: bool, finding: &Finding, sure: bool) -> Verdict {
    let starting = match state {
        TaskState::AwaitingRoom | TaskState::Queued | TaskState::Starting { .. } => true,
        TaskState::Running { .. } | TaskState::Stopping { .. } | TaskState::Finished { .. } => false,
    };
    let unwatched = |reason| if sure { Verdict::KillAndEnd(Ending::lost(reason)) } else { Verdict::LookAgain };
    match &finding.sentinel {
        // The process that supervises the command lives and will report how the command ends, so the contents of the exit file do not
        // matter, even a complete result. The command can write that file too, and must not escape supervision by doing so.
        _ if finding.supervised && !restarted => Verdict::Follow(finding.process),
        // The file is written after the first process has ended. While that process lives, the file must be forged.
        Sentinel::Complete(_) if finding.alive && !restarted => {
            Verdict::KillAndEnd(Ending::lost(LossReason::ExitFileUnreadable))
        }
        Sentinel::Complete(ending) => Verdict::End(ending.clone()),
        Sentinel::Corrupt | Sentinel::Foreign => unwatched(LossReason::ExitFileUnreadable),
        Sentinel::Absent if starting && finding.directory && !finding.started => Verdict::End(Ending::FailedToStart {
            failure: StartFailure::LaunchInterrupted,
            errno: None,
            message: "the launch was cut short before the command ran".to_owned(),
        }),
        // It was launched in this life, which the record does not know: nothing would time it out or stop it.
        Sentinel::Absent if restarted && (finding.supervised || finding.alive) => {
            Verdict::KillAndEnd(Ending::lost(LossReason::SandboxRestarted))
        }
        Sentinel::Absent if restarted => Verdict::End(Ending::lost(LossReason::SandboxRestarted)),
        // The directory was never made, or it was made and removed: these cannot be told apart.
        Sentinel::Absent if starting && !finding.directory => {
            Verdict::KillAndEnd(Ending::lost(LossReason::LaunchInterrupted))
        }
        Sentinel::Absent if !finding.started => Verdict::KillAndEnd(Ending::lost(LossReason::LogDirectoryGone)),
        Sentinel::Absent => unwatched(LossReason::SupervisorKilled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use errand_task::Incarnation;

    fn finding() -> Finding {
        Finding {
            directory: true,
            started: true,
            process: None,
            alive: false,
            supervised: false,
            sentinel: Sentinel::Absent,
            output_bytes: 0,
            incomplete: false,
            gap: None,
            usage: None,
            oom_kills: 0,
        }
    }

    fn starting() -> TaskState {
        TaskState::Starting { incarnation: Incarnation("a".to_owned()) }
    }

    fn running() -> TaskState {
        TaskState::Running {
            incarnation: Incarnation("a".to_owned()),
            process: ProcessIdentity { pid: 1, start_ticks: 1 },
            started_at: SystemTime::UNIX_EPOCH,
        }
    }

    fn reason(verdict: Verdict) -> Option<LossReason> {
        match verdict {
            Verdict::End(Ending::Lost { reason, .. }) | Verdict::KillAndEnd(Ending::Lost { reason, .. }) => {
                Some(reason)
            }
            _ => None,
        }
    }

    #[test]
    fn complete_exit_file_decides_in_every_state() {
        let found = Finding { sentinel: Sentinel::Complete(Ending::Exited(3)), ..finding() };
        for state in [starting(), running()] {
            for restarted in [false, true] {
                assert_eq!(verdict(&state, restarted, &found, false), Verdict::End(Ending::Exited(3)));
            }
        }
    }

    #[test]
    fn a_fenced_launch_never_ran() {
        let found = Finding { started: false, ..finding() };
        assert!(matches!(
            verdict(&starting(), false, &found, false),
            Verdict::End(Ending::FailedToStart { failure: StartFailure::LaunchInterrupted, .. })
        ));
    }

    #[test]
    fn traceless_launch_is_lost_and_never_repeated() {
        let found = Finding { directory: false, started: false, ..finding() };
        assert_eq!(reason(verdict(&starting(), false, &found, false)), Some(LossReason::LaunchInterrupted));
    }

    #[test]
    fn each_loss_has_its_own_reason() {
        let gone = Finding { directory: false, started: false, ..finding() };
        assert_eq!(reason(verdict(&running(), false, &gone, false)), Some(LossReason::LogDirectoryGone));
        assert_eq!(reason(verdict(&running(), true, &finding(), false)), Some(LossReason::SandboxRestarted));
        assert_eq!(reason(verdict(&running(), false, &finding(), true)), Some(LossReason::SupervisorKilled));
        let corrupt = Finding { sentinel: Sentinel::Corrupt, ..finding() };
        assert_eq!(reason(verdict(&running(), false, &corrupt, true)), Some(LossReason::ExitFileUnreadable));
    }

    #[test]
    fn lost_command_of_this_life_is_killed() {
        for (alive, supervised) in [(true, false), (false, true), (true, true)] {
            let found = Finding { alive, supervised, ..finding() };
            let lost = Ending::lost(LossReason::SandboxRestarted);
            assert_eq!(verdict(&running(), true, &found, false), Verdict::KillAndEnd(lost));
        }
    }

    #[test]
    fn first_check_declares_no_loss() {
        assert_eq!(verdict(&running(), false, &finding(), false), Verdict::LookAgain);
        let foreign = Finding { sentinel: Sentinel::Foreign, ..finding() };
        assert_eq!(verdict(&running(), false, &foreign, false), Verdict::LookAgain);
    }

    #[test]
    fn early_exit_file_without_supervisor_is_forged() {
        let sentinel = Sentinel::Complete(Ending::Exited(0));
        let found = Finding { alive: true, sentinel, ..finding() };
        assert_eq!(reason(verdict(&running(), false, &found, false)), Some(LossReason::ExitFileUnreadable));
    }

    #[test]
    fn supervised_command_is_followed_despite_its_exit_file() {
        let forged = Sentinel::Complete(Ending::Exited(0));
        for sentinel in [Sentinel::Absent, Sentinel::Corrupt, Sentinel::Foreign, forged] {
            let found = Finding { supervised: true, sentinel, ..finding() };
            assert_eq!(verdict(&running(), false, &found, true), Verdict::Follow(None));
        }
    }
}
