//! Masks the texts of the domain's types, and of what the supervisor is told.

use super::{TaskMasks, concealing::mask};
use crate::supervisor::machine::{Input, Placed, Reported};
use errand_masks::{Cut, Masks};
use errand_runtime::RuntimeError;
use errand_task::{Ending, NewNotification, StopCause, Task, preview_of, sentinel::Sentinel};

impl TaskMasks {
    /// Masks what a record says beside its specification, which is masked from the beginning.
    pub(crate) fn progress(&self, task: &mut Task) {
        let masks = self.of_texts();
        task.each_text_of_progress(&mut |text| mask(text, &masks));
    }

    /// Masks a notification. Its texts keep their limits.
    pub(crate) fn notification(&self, mut notification: NewNotification) -> NewNotification {
        let masks = self.of_texts();
        notification.each_text(&mut |text| mask(text, &masks), &mut |text| mask_cut(text, &masks));
        notification.bounded()
    }

    /// Masks the last characters of the output, which are shown as its preview.
    pub(crate) fn preview(&self, mut text: String) -> String {
        mask_cut(&mut text, &self.of_texts());
        preview_of(&text)
    }

    /// Masks a part of a text of the sandbox.
    pub(crate) fn part(&self, text: &mut String) {
        mask_cut(text, &self.of_texts());
    }

    /// Masks the value of a label.
    pub(crate) fn label(&self, value: &mut String) {
        mask(value, &self.of_texts());
    }

    /// Masks a caller's reason.
    pub(crate) fn cause(&self, mut cause: StopCause) -> StopCause {
        let masks = self.of_texts();
        cause.each_text(&mut |text| mask(text, &masks));
        cause
    }

    /// Masks how a command ended.
    pub(crate) fn ending(&self, ending: &mut Ending) {
        let masks = self.of_texts();
        ending.each_text(&mut |text| mask(text, &masks));
    }

    /// Masks what the supervisor is told, before it decides by it or logs it.
    pub(crate) fn input(&self, input: &mut Input) {
        match input {
            Input::Placed(Placed::Never(reason)) => mask(reason, &self.of_texts()),
            Input::Launched(Err(error))
            | Input::Attached(Err(error))
            | Input::Inspected(Err(error))
            | Input::Probed(Err(error))
            | Input::AtRest(Err(error))
            | Input::Signalled(Err(error))
            | Input::Cleared(Err(error))
            | Input::Reported(Reported::Failed(error)) => self.error(error),
            Input::Probed(Ok(Some(finding))) => {
                if let Sentinel::Complete(ending) = &mut finding.sentinel {
                    self.ending(ending);
                }
            }
            Input::Reported(Reported::Ended { ending, .. }) => self.ending(ending),
            Input::Reported(Reported::Matched { matches, .. }) => {
                let masks = self.of_texts();
                matches.iter_mut().for_each(|found| found.each_text(&mut |text| mask_cut(text, &masks)));
            }
            Input::Reported(Reported::Activity(activity)) => {
                if let Some(waiting) = &mut activity.waiting {
                    self.part(&mut waiting.command);
                }
            }
            // The rest holds no text, or was masked: a stop order's cause, records, the end of the output.
            Input::Ordered(_)
            | Input::PolicyWanted(_)
            | Input::Watch(_)
            | Input::Stored(_)
            | Input::TurnHasCome
            | Input::Admission(_)
            | Input::Placed(Placed::Ready(_) | Placed::NotYet)
            | Input::MemoryKills(_)
            | Input::Launched(Ok(()))
            | Input::Attached(Ok(()))
            | Input::Reported(
                Reported::Claimed
                | Reported::Started { .. }
                | Reported::Output { .. }
                | Reported::Skipped { .. }
                | Reported::Over { .. }
                | Reported::Broken,
            )
            | Input::Tail(_)
            | Input::Inspected(Ok(_))
            | Input::Probed(Ok(None))
            | Input::AtRest(Ok(_))
            | Input::Signalled(Ok(_))
            | Input::Cleared(Ok(_))
            | Input::RestRead(_)
            | Input::MemoryLimit(_) => {}
        }
    }

    fn error(&self, error: &mut RuntimeError) {
        let masks = self.of_texts();
        match error {
            RuntimeError::Unavailable { detail }
            | RuntimeError::Uncertain { detail }
            | RuntimeError::NotStarted { detail, .. }
            | RuntimeError::NotWritten { detail, .. }
            | RuntimeError::Refused { detail } => mask(detail, &masks),
            RuntimeError::NoSuchImage { .. } | RuntimeError::NoSuchSandbox { .. } | RuntimeError::NotRunning { .. } => {
            }
        }
    }
}

fn mask_cut(text: &mut String, masks: &Masks) {
    let masked = masks.cut_text(text, Cut::BOTH).into_owned();
    *text = masked;
}
