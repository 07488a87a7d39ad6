//! Sending a piece of a log.

use tokio::sync::mpsc::{self, Receiver, Sender};
use tonic::Status;

use super::QUEUE;
use crate::{
    log_reader::LogReader,
    proto::{LogHead, Output, ReadLogResponse, read_log_response::Part},
};

/// A longer piece is read by a thread of its own.
const LONG: u64 = 1024 * 1024;
/// How much that thread stands back behind the commands of the sandbox: whoever reads much of a log must not slow down who writes it.
const NICE: i32 = 10;
/// Its stack, in bytes.
const STACK: usize = 128 * 1024;

type Answer = Result<ReadLogResponse, Status>;

/// Reads a log from where it stands to `end`, for as long as somebody takes what is read.
/// A long piece is packed if it may be.
pub(super) fn send(head: LogHead, log: LogReader, end: u64, may_pack: bool) -> Receiver<Answer> {
    let (answers, receiver) = mpsc::channel(QUEUE);
    let length = end.saturating_sub(log.position());
    let reading = Reading { head: Some(head), log, end, pack: may_pack && length > LONG };
    if length <= LONG {
        tokio::spawn(send_here(reading, answers));
        return receiver;
    }
    // A sandbox that is at its limit of processes has no thread to spare, and its logs are read all the same.
    let (hand_over, taken) = std::sync::mpsc::sync_channel::<(Reading, Sender<Answer>)>(1);
    let thread = std::thread::Builder::new().name("errand-log".to_owned()).stack_size(STACK).spawn(move || {
        let _ = rustix::process::nice(NICE);
        if let Ok((reading, answers)) = taken.recv() {
            for answer in reading {
                if answers.blocking_send(answer).is_err() {
                    return;
                }
            }
        }
    });
    match thread {
        // It waits for just this.
        Ok(_) => drop(hand_over.send((reading, answers))),
        Err(_) => drop(tokio::spawn(send_here(reading, answers))),
    }
    receiver
}

async fn send_here(reading: Reading, answers: Sender<Answer>) {
    for answer in reading {
        if answers.send(answer).await.is_err() {
            return;
        }
    }
}

/// A piece of a log that is being read.
struct Reading {
    head: Option<LogHead>,
    log: LogReader,
    end: u64,
    pack: bool,
}

impl Iterator for Reading {
    type Item = Answer;

    fn next(&mut self) -> Option<Answer> {
        if let Some(head) = self.head.take() {
            return Some(Ok(ReadLogResponse { part: Some(Part::Head(head)) }));
        }
        let left = self.end.checked_sub(self.log.position()).filter(|left| *left > 0)?;
        match self.log.next(left) {
            // Beyond a gap there may be nothing left of the piece.
            Ok(output) => {
                let mut output = output.filter(|output| output.offset < self.end)?;
                if self.pack {
                    pack(&mut output);
                }
                Some(Ok(ReadLogResponse { part: Some(Part::Output(output)) }))
            }
            Err(error) => {
                self.end = 0;
                Some(Err(Status::data_loss(format!("the log cannot be read: {error}"))))
            }
        }
    }
}

/// Packs output, unless that makes it larger.
fn pack(output: &mut Output) {
    let packed = lz4_flex::block::compress(&output.data);
    if packed.len() < output.data.len() {
        output.unpacked = u32::try_from(output.data.len()).unwrap_or(0);
        output.data = packed.into();
    }
}
