//! What is typed, or comes through a pipe, on its way to a task: in order, none of it twice, and the keys that detach.

use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    sync::mpsc,
    time::sleep,
};
use tonic::Code;

use super::{connection::Tasks, error::CliError, text};
use errand_proto::v1::{InputLimit, WriteInputRequest};

/// The most that is read at a time.
const PIECE: usize = 64 * 1024;
/// How many pieces may wait for the command to take them. So long are the keys that detach noticed while it takes none.
const WAITING: usize = 64;
/// How long one call waits for the command to take its piece.
const PATIENCE: Duration = Duration::from_mins(10);
/// Before a call is repeated whose server did not answer.
const PAUSE: Duration = Duration::from_millis(500);
/// Ctrl-P.
const FIRST_KEY: u8 = 0x10;
/// Ctrl-Q.
const SECOND_KEY: u8 = 0x11;

/// Why nothing more goes to the task.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Somebody typed the keys that detach.
    Detached,
    /// The input is at its end, or the command takes no more.
    Ended,
}

/// Where a piece belongs in all that was written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    /// Nobody else writes: every piece has its place, and a call that was cut off can be repeated.
    Alone,
    /// After whatever was written by then.
    AmongOthers,
}

/// Writes everything that `input` holds to a task. `keys`: look out for those that detach.
pub(super) async fn forward(
    input: impl AsyncRead + Unpin,
    keys: bool,
    order: Order,
    tasks: Tasks,
    task_id: String,
) -> Result<Left, CliError> {
    let (pieces, waiting) = mpsc::channel(WAITING);
    let writer = Writer { tasks, task_id, offset: matches!(order, Order::Alone).then_some(0) };
    tokio::select! {
        left = read(input, keys.then(Detector::default), pieces) => left,
        left = writer.write_all(waiting) => left,
    }
}

/// Reads to the end. Returns only when it was detached, or when nothing can be read.
async fn read(
    mut input: impl AsyncRead + Unpin,
    mut keys: Option<Detector>,
    pieces: mpsc::Sender<Vec<u8>>,
) -> Result<Left, CliError> {
    let mut buffer = vec![0; PIECE];
    loop {
        let count = input.read(&mut buffer).await.map_err(CliError::Input)?;
        if count == 0 {
            break;
        }
        let (piece, detached) = match &mut keys {
            Some(keys) => keys.pass(&buffer[..count]),
            None => (buffer[..count].to_vec(), false),
        };
        if detached {
            return Ok(Left::Detached);
        }
        if !piece.is_empty() && pieces.send(piece).await.is_err() {
            break;
        }
    }
    // The writer goes on with what waits, and says when that is done.
    drop(pieces);
    std::future::pending().await
}

/// Writes to one task.
struct Writer {
    tasks: Tasks,
    task_id: String,
    offset: Option<i64>,
}

impl Writer {
    /// Writes every piece, then the end.
    async fn write_all(mut self, mut pieces: mpsc::Receiver<Vec<u8>>) -> Result<Left, CliError> {
        while let Some(piece) = pieces.recv().await {
            if !self.write(piece.into(), false).await? {
                return Ok(Left::Ended);
            }
        }
        self.write(Bytes::new(), true).await?;
        Ok(Left::Ended)
    }

    /// False: the command takes no more.
    async fn write(&mut self, mut data: Bytes, end: bool) -> Result<bool, CliError> {
        loop {
            let request = WriteInputRequest {
                task_id: self.task_id.clone(),
                offset: self.offset,
                data: data.clone(),
                end,
                timeout: Some(text::wire_duration(PATIENCE)),
                ..WriteInputRequest::default()
            };
            let answer = match self.tasks.write_input(request).await {
                Ok(answer) => answer.into_inner(),
                Err(status) if status.code() == Code::FailedPrecondition => return Ok(false),
                Err(status) if status.code() == Code::Unavailable && self.offset.is_some() => {
                    sleep(PAUSE).await;
                    continue;
                }
                Err(status) => return Err(status.into()),
            };
            let accepted = usize::try_from(answer.accepted_bytes).unwrap_or(0).min(data.len());
            data.advance(accepted);
            if let Some(offset) = &mut self.offset {
                *offset += i64::try_from(accepted).unwrap_or(0);
            }
            if data.is_empty() && (answer.ended || !end) {
                return Ok(true);
            }
            if answer.limited_by() == InputLimit::TerminalLine {
                return Err(CliError::LineTooLong { left: data.len() });
            }
        }
    }
}

/// Finds the keys that detach, wherever the pieces are cut.
#[derive(Debug, Default)]
struct Detector {
    /// The first key was typed and is held back.
    held: bool,
}

impl Detector {
    /// What of this goes to the task, and whether to detach.
    fn pass(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(typed.len() + 1);
        for key in typed {
            match (self.held, *key) {
                (true, SECOND_KEY) => return (passed, true),
                // Typed twice, the first one goes through and the second one is held.
                (true, FIRST_KEY) => passed.push(FIRST_KEY),
                (true, key) => {
                    self.held = false;
                    passed.extend([FIRST_KEY, key]);
                }
                (false, FIRST_KEY) => self.held = true,
                (false, key) => passed.push(key),
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(pieces: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut keys = Detector::default();
        let mut all = Vec::new();
        for piece in pieces {
            let (passed, detached) = keys.pass(piece);
            all.extend(passed);
            if detached {
                return (all, true);
            }
        }
        (all, false)
    }

    #[test]
    fn only_the_two_keys_one_after_the_other_detach() {
        assert_eq!(typed(&[b"ab\x10\x11cd"]), (b"ab".to_vec(), true));
        assert_eq!(typed(&[b"a\x10", b"\x11"]), (b"a".to_vec(), true));
        assert_eq!(typed(&[b"\x10", b"\x10", b"\x11"]), (b"\x10".to_vec(), true));
        assert_eq!(typed(&[b"\x10a\x11"]), (b"\x10a\x11".to_vec(), false));
        assert_eq!(typed(&[b"\x11\x10"]), (b"\x11".to_vec(), false));
    }
}
