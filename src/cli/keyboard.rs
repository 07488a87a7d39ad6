//! Forwards typed or piped input to a task: in order, every byte once. Also recognizes the keys that detach.

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

/// The most bytes read at a time.
const PIECE: usize = 64 * 1024;
/// How many pieces may wait for the command to take them. Until this queue is full, the keys that detach are recognized even if the command
/// takes no input.
const WAITING: usize = 64;
/// How long one call waits for the command to take its piece.
const PATIENCE: Duration = Duration::from_mins(10);
/// How long to wait before repeating a call that the server did not answer.
const PAUSE: Duration = Duration::from_millis(500);
/// Ctrl-P.
const FIRST_KEY: u8 = 0x10;
/// Ctrl-Q.
const SECOND_KEY: u8 = 0x11;

/// Why forwarding ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// The user typed the keys that detach.
    Detached,
    /// The input has ended, or the command takes no more.
    Ended,
}

/// How the position of a piece is determined.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    /// No other client writes, so every piece has a known offset and an interrupted call can be repeated.
    Alone,
    /// Other clients may write too: a piece goes after everything that was written before.
    AmongOthers,
}

/// Forwards everything in `input` to a task. `keys`: recognize the keys that detach.
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

/// Reads the input to its end. Returns only if the user detached, or if reading failed.
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
    // The writer continues with the waiting pieces and reports when it is done.
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
    /// Writes every piece, then ends the input.
    async fn write_all(mut self, mut pieces: mpsc::Receiver<Vec<u8>>) -> Result<Left, CliError> {
        while let Some(piece) = pieces.recv().await {
            if !self.write(piece.into(), false).await? {
                return Ok(Left::Ended);
            }
        }
        self.write(Bytes::new(), true).await?;
        Ok(Left::Ended)
    }

    /// Writes one piece. False: the command takes no more.
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

/// Recognizes the keys that detach, even across pieces.
#[derive(Debug, Default)]
struct Detector {
    /// The first key was typed and is held back.
    held: bool,
}

impl Detector {
    /// Returns the bytes to forward, and whether to detach.
    fn pass(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(typed.len() + 1);
        for key in typed {
            match (self.held, *key) {
                (true, SECOND_KEY) => return (passed, true),
                // If the first key is typed twice, the first one is forwarded and the second one is held back.
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
    fn only_both_keys_in_sequence_detach() {
        assert_eq!(typed(&[b"ab\x10\x11cd"]), (b"ab".to_vec(), true));
        assert_eq!(typed(&[b"a\x10", b"\x11"]), (b"a".to_vec(), true));
        assert_eq!(typed(&[b"\x10", b"\x10", b"\x11"]), (b"\x10".to_vec(), true));
        assert_eq!(typed(&[b"\x10a\x11"]), (b"\x10a\x11".to_vec(), false));
        assert_eq!(typed(&[b"\x11\x10"]), (b"\x11".to_vec(), false));
    }
}
