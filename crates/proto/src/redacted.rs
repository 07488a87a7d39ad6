//! `Debug` of the messages that hold secrets: it shows what identifies them, and no text of the caller.

use std::fmt;

use crate::bridge::LaunchRequest;

impl fmt::Debug for LaunchRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaunchRequest").field("task_id", &self.task_id).finish_non_exhaustive()
    }
}

#[cfg(feature = "public")]
impl fmt::Debug for crate::v1::StartTaskRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartTaskRequest")
            .field("bot_id", &self.bot_id)
            .field("session_id", &self.session_id)
            .field("request_id", &self.request_id)
            .finish_non_exhaustive()
    }
}
