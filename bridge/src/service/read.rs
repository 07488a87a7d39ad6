//! Sending a piece of a log.

use std::io;

use bytes::Bytes;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tonic::Status;

use super::QUEUE;
use crate::{
    log_reader::{LogReader, PIECE},
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
    let packer = (may_pack && length > LONG).then(Packer::new);
    let reading = Reading { head: Some(head), log, end, packer };
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
    packer: Option<Packer>,
}

impl Iterator for Reading {
    type Item = Answer;

    fn next(&mut self) -> Option<Answer> {
        if let Some(head) = self.head.take() {
            return Some(Ok(ReadLogResponse { part: Some(Part::Head(head)) }));
        }
        let left = self.end.checked_sub(self.log.position()).filter(|left| *left > 0)?;
        let output = match &mut self.packer {
            Some(packer) => packer.next(&mut self.log, left),
            None => self.log.next(left),
        };
        match output {
            // Beyond a gap there may be nothing left of the piece.
            Ok(output) => {
                let output = output.filter(|output| output.offset < self.end)?;
                Some(Ok(ReadLogResponse { part: Some(Part::Output(output)) }))
            }
            Err(error) => {
                self.end = 0;
                Some(Err(Status::data_loss(format!("the log cannot be read: {error}"))))
            }
        }
    }
}

/// The most that is packed into one block, in bytes: the server holds one for each follower. It takes up to 1 MiB.
const BLOCK: usize = 512 * 1024;
/// What packs to less than one part in so many is read in blocks of that size: packed, such a block is no larger than others are.
const WELL: usize = BLOCK / PIECE;

/// Packs output, unless that makes it larger. Most of what a piece costs on its way is not its size.
struct Packer {
    plain: Vec<u8>,
    packed: Vec<u8>,
    /// How much is read next.
    size: usize,
}

impl Packer {
    fn new() -> Self {
        Self { plain: Vec::new(), packed: Vec::new(), size: PIECE }
    }

    fn next(&mut self, log: &mut LogReader, limit: u64) -> io::Result<Option<Output>> {
        let size = usize::try_from(limit).unwrap_or(usize::MAX).min(self.size);
        if self.plain.len() < size {
            self.plain.resize(size, 0);
            self.packed.resize(lz4_flex::block::get_maximum_output_size(size), 0);
        }
        Ok(log.read(&mut self.plain[..size])?.map(|piece| {
            let plain = &self.plain[..piece.size];
            // There is always room.
            let packed = lz4_flex::block::compress_into(plain, &mut self.packed).unwrap_or(usize::MAX);
            self.size = if packed.saturating_mul(WELL) <= plain.len() { BLOCK } else { PIECE };
            let (data, unpacked) = if packed < plain.len() { (&self.packed[..packed], piece.size) } else { (plain, 0) };
            Output {
                offset: piece.offset,
                data: Bytes::copy_from_slice(data),
                stream: piece.stream.into(),
                unpacked: u32::try_from(unpacked).unwrap_or(0),
            }
        }))
    }
}
