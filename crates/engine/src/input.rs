//! Input that callers write to a running command: every byte once, in order.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout_at};

use super::{Engine, EngineError, TaskRef, live::LiveTask, supervision::Supervision};
use errand_bridge::{Input, InputError, InputTaken};
use errand_task::{Task, TaskState, TerminalSize};

/// How long to wait before the first retry when a command takes no more input for now. Doubled with each retry.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// The longest such wait.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// How long a command may take to start before its terminal can be resized.
const START_LIMIT: Duration = Duration::from_secs(10);

/// What to write to a command.
#[derive(Debug, Clone)]
pub struct InputRequest {
    /// Position of the first byte, counted over everything ever written to this command. Bytes that the command has already taken are
    /// skipped. None: right after the bytes already taken.
    pub offset: Option<u64>,
    /// The bytes to write.
    pub data: Bytes,
    /// Whether these bytes are the end of the input.
    pub end: bool,
    /// How long the command may take to accept all of the bytes.
    pub timeout: Duration,
}

/// How much of the input the command took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputResult {
    /// How many bytes the command has taken in all.
    pub taken: u64,
    /// How many bytes of this request the command has taken, counted from the first one, including those taken by an earlier call.
    pub accepted: u64,
    /// Whether the input has ended.
    pub ended: bool,
    /// Whether the rest does not fit into the line that the terminal is collecting.
    pub line_full: bool,
}

/// What is known of a task's input. Only the holder of its lock writes, so that two writes never interleave.
#[derive(Debug, Default)]
pub(super) struct InputState {
    taken: Option<InputTaken>,
}

impl Engine {
    /// Writes to a command's standard input or terminal. Returns once the command has taken all of it, or when the request's timeout is
    /// over. Also waits for a command that has not started yet.
    ///
    /// # Errors
    /// As for [`Engine::task`]; [`EngineError::InputNotOpen`], [`EngineError::InputClosed`], [`EngineError::InputPastTheEnd`],
    /// [`EngineError::InputUnsupported`], [`EngineError::InputBusy`], or when the sandbox cannot be reached. In the last case, repeating
    /// the call with an offset tells how much was taken.
    pub async fn write_input(&self, reference: &TaskRef, request: InputRequest) -> Result<InputResult, EngineError> {
        let deadline = Instant::now() + request.timeout;
        let task = self.task(reference).await?;
        if !task.spec.takes_input() {
            return Err(EngineError::InputNotOpen);
        }
        let live = self.supervised_here(&task).await?;
        if timeout_at(deadline, live.launched()).await.is_err() {
            return Ok(InputResult { taken: 0, accepted: 0, ended: false, line_full: false });
        }
        let mut state = timeout_at(deadline, live.input.lock()).await.map_err(|_| EngineError::InputBusy)?;
        let sandbox = self.inner.sandboxes.of_task(&task).await?;
        let write = |input| sandbox.bridge.write_input(task.id, input);
        let result = write_in_order(&mut state, request, deadline, write).await;
        if task.spec.terminal.is_some()
            && let Some(taken) = &mut state.taken
        {
            // On a terminal, the end-of-file character does not close the input.
            taken.ended = false;
        }
        result
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
        let live = self.supervised_here(&task).await?;
        let launched = timeout_at(Instant::now() + START_LIMIT, live.launched()).await;
        launched.map_err(|_| EngineError::NotStartedYet)?;
        if matches!(live.snapshot().state, TaskState::Finished { .. }) {
            return Err(EngineError::InputClosed);
        }
        let sandbox = self.inner.sandboxes.of_task(&task).await?;
        Ok(sandbox.bridge.resize_terminal(task.id, size).await?)
    }
}

impl Engine {
    /// The task, as long as there is a command that could take input.
    async fn supervised_here(&self, task: &Task) -> Result<Arc<LiveTask>, EngineError> {
        match self.inner.supervision(task.clone()).await? {
            Supervision::Here(live) => Ok(live),
            Supervision::Finished(_) => Err(EngineError::InputClosed),
            Supervision::Elsewhere => Err(EngineError::SupervisedElsewhere),
        }
    }
}

/// Writes the data in pieces, each with its offset, until the command has taken all of it or the deadline has passed.
async fn write_in_order<F: Future<Output = Result<InputTaken, InputError>>>(
    state: &mut InputState,
    request: InputRequest,
    deadline: Instant,
    mut write: impl FnMut(Input) -> F,
) -> Result<InputResult, EngineError> {
    // `state.taken` stays unset until the next answer: a call that fails or is cancelled may have written its bytes all the same.
    let mut now = match state.taken.take() {
        Some(taken) => taken,
        None => write(Input { offset: None, data: Bytes::new(), end: false }).await?,
    };
    let InputRequest { offset, data, end, .. } = request;
    let begin = offset.unwrap_or(now.taken);
    let finish = begin.saturating_add(data.len() as u64);
    if begin > now.taken {
        return Err(EngineError::InputPastTheEnd { offset: begin, taken: now.taken });
    }
    let mut pause = FIRST_PAUSE;
    let mut line_full = false;
    while now.taken < finish || (end && !now.ended) {
        if now.ended {
            return Err(EngineError::InputClosed);
        }
        let skip = usize::try_from(now.taken.saturating_sub(begin)).unwrap_or(usize::MAX).min(data.len());
        let piece = data.slice(skip..data.len().min(skip.saturating_add(Input::LIMIT)));
        let last = skip + piece.len() == data.len();
        let before = now;
        now = write(Input { offset: Some(now.taken), data: piece, end: end && last }).await?;
        // The count never goes down, whatever the bridge answers.
        now.taken = now.taken.max(before.taken);
        line_full = now.line_full;
        if line_full {
            // The line is full: the terminal takes no more of it, however long we wait.
            break;
        }
        if now != before && Instant::now() < deadline {
            pause = FIRST_PAUSE;
        } else if Instant::now() + pause > deadline {
            break;
        } else {
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
    state.taken = Some(now);
    let accepted = now.taken.min(finish).saturating_sub(begin);
    Ok(InputResult { taken: now.taken, accepted, ended: now.ended, line_full })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use std::future::ready;

    use super::*;

    /// A fake command that takes at most `room` bytes.
    #[derive(Default)]
    struct Command {
        got: Vec<u8>,
        ended: bool,
        room: usize,
        calls: usize,
        /// Whether bytes that do not fit will never fit.
        line_full: bool,
    }

    impl Command {
        fn take(&mut self, input: Input) -> Result<InputTaken, InputError> {
            self.calls += 1;
            assert!(input.data.len() <= Input::LIMIT);
            if self.ended {
                return Err(InputError::Closed);
            }
            let taken = self.got.len() as u64;
            let skip = usize::try_from(taken - input.offset.unwrap_or(taken)).unwrap();
            let new = &input.data[skip.min(input.data.len())..];
            let fits = new.len().min(self.room - self.got.len());
            self.got.extend_from_slice(&new[..fits]);
            self.ended = input.end && fits == new.len();
            Ok(InputTaken { taken: self.got.len() as u64, ended: self.ended, line_full: self.line_full })
        }
    }

    async fn write(
        command: &mut Command,
        state: &mut InputState,
        offset: Option<u64>,
        data: impl Into<Bytes>,
        end: bool,
    ) -> Result<(u64, u64, bool), EngineError> {
        let timeout = Duration::from_secs(10);
        let request = InputRequest { offset, data: data.into(), end, timeout };
        let written =
            write_in_order(state, request, Instant::now() + timeout, |input| ready(command.take(input))).await?;
        Ok((written.taken, written.accepted, written.ended))
    }

    #[tokio::test(start_paused = true)]
    async fn repeated_input_is_skipped_and_gaps_are_refused() {
        let (mut command, mut state) = (Command { room: 100, ..Command::default() }, InputState::default());
        assert_eq!(write(&mut command, &mut state, Some(0), "abc", false).await.unwrap(), (3, 3, false));
        assert_eq!(write(&mut command, &mut state, Some(1), "bcd", false).await.unwrap(), (4, 3, false));
        assert_eq!(write(&mut command, &mut state, Some(0), "ab", false).await.unwrap(), (4, 2, false));
        let beyond = write(&mut command, &mut state, Some(5), "f", false).await;
        assert!(matches!(beyond, Err(EngineError::InputPastTheEnd { offset: 5, taken: 4 })));
        assert_eq!(write(&mut command, &mut state, None, "e", true).await.unwrap(), (5, 1, true));
        assert_eq!(write(&mut command, &mut state, Some(4), "e", true).await.unwrap(), (5, 1, true));
        assert!(matches!(write(&mut command, &mut state, None, "f", false).await, Err(EngineError::InputClosed)));
        assert_eq!(command.got, b"abcde");
    }

    #[tokio::test(start_paused = true)]
    async fn timeout_reports_how_much_was_taken() {
        let (mut command, mut state) = (Command { room: 100_000, ..Command::default() }, InputState::default());
        let data = Bytes::from(vec![b'x'; 200_000]);
        let begun = Instant::now();
        let some = write(&mut command, &mut state, None, data.clone(), true).await.unwrap();
        assert_eq!(some, (100_000, 100_000, false));
        assert!(begun.elapsed() <= Duration::from_secs(10), "{:?}", begun.elapsed());
        assert!(command.calls < 60, "{} calls", command.calls);
        command.room = usize::MAX;
        assert_eq!(write(&mut command, &mut state, Some(0), data, true).await.unwrap(), (200_000, 200_000, true));
    }

    #[tokio::test(start_paused = true)]
    async fn full_terminal_line_is_reported_at_once() {
        let (mut command, mut state) = (Command { room: 2, ..Command::default() }, InputState::default());
        command.line_full = true;
        let begun = Instant::now();
        let timeout = Duration::from_secs(10);
        let request = InputRequest { offset: None, data: "abc".into(), end: true, timeout };
        let written = write_in_order(&mut state, request, begun + timeout, |input| ready(command.take(input)));
        let result = InputResult { taken: 2, accepted: 2, ended: false, line_full: true };
        assert_eq!((written.await.unwrap(), command.calls), (result, 2));
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn failed_write_asks_how_much_was_taken() {
        let (mut command, mut state) = (Command { room: 9, ..Command::default() }, InputState::default());
        write(&mut command, &mut state, None, "abc", false).await.unwrap();
        let request = InputRequest { offset: None, data: "def".into(), end: false, timeout: Duration::ZERO };
        let failed = write_in_order(&mut state, request, Instant::now(), |input| {
            let taken = command.take(input);
            ready(taken.and(Err(InputError::Unsupported { why: "the answer was lost".to_owned() })))
        });
        assert!(failed.await.is_err());
        assert_eq!(write(&mut command, &mut state, Some(3), "def", false).await.unwrap(), (6, 3, false));
        assert_eq!(command.got, b"abcdef");
    }
}
