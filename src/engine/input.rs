//! What callers write to a running command: all of it in order, none of it twice.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout_at};

use super::{Engine, EngineError, TaskRef, live::LiveTask};
use crate::{
    bridge::{Input, InputTaken},
    task::{TaskState, TerminalSize},
};

/// How long to wait before a command that takes no more for now is tried again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// The longest such wait.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// How long a command may take to start before its terminal can be resized.
const START_LIMIT: Duration = Duration::from_secs(10);

/// What to write.
#[derive(Debug, Clone)]
pub struct InputRequest {
    /// Position of its first byte in all that was ever written; what was taken before is skipped. None: after all of that.
    pub offset: Option<u64>,
    /// The bytes.
    pub data: Bytes,
    /// Whether nothing comes after them.
    pub end: bool,
    /// How long the command may take to take it all.
    pub timeout: Duration,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputResult {
    /// How many bytes were ever taken.
    pub taken: u64,
    /// How many of those that were given, from the first on, counting what had been taken before.
    pub accepted: u64,
    /// Whether the input is at its end.
    pub ended: bool,
}

/// What is known of a task's input. Whoever holds its lock is the only one who writes, so that no two fall in between each other.
#[derive(Debug, Default)]
pub(super) struct InputState {
    taken: Option<InputTaken>,
}

impl Engine {
    /// Writes to a command's standard input or terminal, and waits until it has taken all of it, or for as long as the request says.
    /// A command that was not started yet is waited for as well.
    ///
    /// # Errors
    /// As for [`Engine::task`]; [`EngineError::InputNotOpen`], [`EngineError::InputClosed`], [`EngineError::InputPastTheEnd`],
    /// [`EngineError::InputUnsupported`], [`EngineError::InputBusy`], or when the sandbox cannot be reached: what was taken then, a repetition with an offset tells.
    pub async fn write_input(&self, reference: &TaskRef, request: InputRequest) -> Result<InputResult, EngineError> {
        let deadline = Instant::now() + request.timeout;
        let task = self.task(reference).await?;
        if !task.spec.takes_input() {
            return Err(EngineError::InputNotOpen);
        }
        let live = self.inner.live(task.id).ok_or(EngineError::InputClosed)?;
        if timeout_at(deadline, live.launched()).await.is_err() {
            return Ok(InputResult { taken: 0, accepted: 0, ended: false });
        }
        let mut state = timeout_at(deadline, live.input.lock()).await.map_err(|_| EngineError::InputBusy)?;
        let sandbox = self.inner.sandboxes.runtime_id(&task).await?;
        let written = self.write_in_order(&live, &sandbox, &mut state, request, deadline).await;
        if written.is_err() {
            state.taken = None;
        }
        written
    }

    async fn write_in_order(
        &self,
        live: &LiveTask,
        sandbox: &str,
        state: &mut InputState,
        request: InputRequest,
        deadline: Instant,
    ) -> Result<InputResult, EngineError> {
        let id = live.snapshot().id;
        let write = async |input| self.inner.bridge.write_input(sandbox, id, input).await;
        let mut now = match state.taken {
            Some(taken) => taken,
            None => write(Input { offset: None, data: Bytes::new(), end: false }).await?,
        };
        let InputRequest { offset, data, end, .. } = request;
        let begin = offset.unwrap_or(now.taken);
        let finish = begin + data.len() as u64;
        if begin > now.taken {
            return Err(EngineError::InputPastTheEnd { offset: begin, taken: now.taken });
        }
        let mut pause = FIRST_PAUSE;
        loop {
            state.taken = Some(now);
            if now.taken >= finish && (now.ended || !end) {
                break;
            }
            if now.ended {
                return Err(EngineError::InputClosed);
            }
            let skip = usize::try_from(now.taken - begin).unwrap_or(usize::MAX).min(data.len());
            let piece = data.slice(skip..data.len().min(skip + Input::LIMIT));
            let last = skip + piece.len() == data.len();
            let before = now;
            now = write(Input { offset: Some(now.taken), data: piece, end: end && last }).await?;
            if now != before {
                pause = FIRST_PAUSE;
            } else if Instant::now() + pause > deadline {
                break;
            } else {
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
        let accepted = now.taken.min(finish).saturating_sub(begin);
        Ok(InputResult { taken: now.taken, accepted, ended: now.ended })
    }

    /// Changes the size of a command's terminal.
    ///
    /// # Errors
    /// As for [`Engine::write_input`], [`EngineError::NoTerminal`], and [`EngineError::NotStartedYet`].
    pub async fn resize_terminal(&self, reference: &TaskRef, size: TerminalSize) -> Result<(), EngineError> {
        let task = self.task(reference).await?;
        if task.spec.terminal.is_none() {
            return Err(EngineError::NoTerminal);
        }
        let live = self.inner.live(task.id).ok_or(EngineError::InputClosed)?;
        let launched = timeout_at(Instant::now() + START_LIMIT, live.launched()).await;
        launched.map_err(|_| EngineError::NotStartedYet)?;
        if matches!(live.snapshot().state, TaskState::Finished { .. }) {
            return Err(EngineError::InputClosed);
        }
        let sandbox = self.inner.sandboxes.runtime_id(&task).await?;
        Ok(self.inner.bridge.resize_terminal(&sandbox, task.id, size).await?)
    }
}
