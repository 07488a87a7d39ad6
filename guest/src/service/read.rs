//! Sends a part of a log.

use std::io;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::{
    Semaphore, SemaphorePermit,
    mpsc::{self, Sender},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::QUEUE;
use crate::log_reader::{LogReader, PIECE};
use errand_proto::bridge::{LogHead, Output, ReadLogResponse, read_log_response::Part};

/// A part longer than this many bytes is read on a thread of its own.
const LONG: u64 = 1024 * 1024;
/// The niceness of that thread: reading much of a log must not slow down the command that writes it.
const NICE: i32 = 10;
/// The stack of that thread in bytes.
const STACK: usize = 128 * 1024;
/// The most such threads. A client that does not read keeps a thread occupied. Without a free thread, or when none can be created, the part
/// is read on the async runtime.
static THREADS: Semaphore = Semaphore::const_new(8);
/// The most answers sent together. Each answer that is sent alone wakes every process on its way.
const TOGETHER: usize = 32;

type Answer = Result<ReadLogResponse, Status>;

/// Reads at most `limit` bytes of a log from its current position, as long as the client takes the answers. Compresses a long part if
/// `may_pack` is set.
pub(super) fn send(head: LogHead, log: LogReader, limit: u64, may_pack: bool) -> impl Stream<Item = Answer> {
    let (answers, receiver) = mpsc::channel(QUEUE);
    let packer = (may_pack && limit > LONG).then(Packer::new);
    let reading = Reading { head: Some(head), log, left: limit, packer };
    match THREADS.try_acquire() {
        Ok(place) if limit > LONG => send_apart(reading, answers, place),
        _ => drop(tokio::spawn(send_here(reading, answers))),
    }
    ReceiverStream::new(receiver).flat_map(stream::iter)
}

fn send_apart(reading: Reading, answers: Sender<Vec<Answer>>, place: SemaphorePermit<'static>) {
    // A sandbox at its limit of processes cannot create a thread, and its logs must still be readable.
    let (hand_over, taken) = std::sync::mpsc::sync_channel::<(Reading, Sender<Vec<Answer>>)>(1);
    let thread = std::thread::Builder::new().name("errand-log".to_owned()).stack_size(STACK).spawn(move || {
        let _place = place;
        let _ = rustix::process::nice(NICE);
        if let Ok((mut reading, answers)) = taken.recv() {
            while let Some(together) = reading.together()
                && answers.blocking_send(together).is_ok()
            {}
        }
    });
    match thread {
        // The thread waits for just this value.
        Ok(_) => drop(hand_over.send((reading, answers))),
        Err(_) => drop(tokio::spawn(send_here(reading, answers))),
    }
}

async fn send_here(mut reading: Reading, answers: Sender<Vec<Answer>>) {
    while let Some(together) = reading.together()
        && answers.send(together).await.is_ok()
    {}
}

/// A part of a log that is being read.
struct Reading {
    head: Option<LogHead>,
    log: LogReader,
    /// How many bytes are still to be read. Bytes that the log did not keep are not subtracted: by the time they are read, all bytes that
    /// were there at the request may be gone.
    left: u64,
    packer: Option<Packer>,
}

impl Reading {
    /// The next answers: as many as make up a piece, at most [`TOGETHER`]; none at the end.
    fn together(&mut self) -> Option<Vec<Answer>> {
        let mut together = Vec::new();
        let mut size = 0;
        while together.len() < TOGETHER
            && size < PIECE
            && let Some(answer) = self.next()
        {
            size += answer.as_ref().map_or(0, prost::Message::encoded_len);
            together.push(answer);
        }
        (!together.is_empty()).then_some(together)
    }
}

impl Iterator for Reading {
    type Item = Answer;

    fn next(&mut self) -> Option<Answer> {
        if let Some(head) = self.head.take() {
            return Some(Ok(ReadLogResponse { part: Some(Part::Head(head)) }));
        }
        if self.left == 0 {
            return None;
        }
        let output = match &mut self.packer {
            Some(packer) => packer.next(&mut self.log, self.left),
            None => self.log.next(self.left),
        };
        match output {
            Ok(output) => {
                let output = output?;
                self.left = self.left.saturating_sub(self.log.position() - output.offset);
                Some(Ok(ReadLogResponse { part: Some(Part::Output(output)) }))
            }
            Err(error) => {
                self.left = 0;
                Some(Err(Status::data_loss(format!("the log cannot be read: {error}"))))
            }
        }
    }
}

/// Compresses output, unless that makes it larger.
struct Packer {
    plain: Vec<u8>,
    packed: Vec<u8>,
}

impl Packer {
    fn new() -> Self {
        Self { plain: vec![0; PIECE], packed: vec![0; lz4_flex::block::get_maximum_output_size(PIECE)] }
    }

    fn next(&mut self, log: &mut LogReader, limit: u64) -> io::Result<Option<Output>> {
        let size = usize::try_from(limit).unwrap_or(PIECE).min(PIECE);
        Ok(log.read(&mut self.plain[..size])?.map(|piece| {
            let plain = &self.plain[..piece.size];
            // The buffer is always large enough.
            let packed = lz4_flex::block::compress_into(plain, &mut self.packed).unwrap_or(usize::MAX);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task_dir::TaskDir;

    /// How a log with this content is sent: the number of answers that are sent together each time, and their size.
    fn bursts(text: &[u8], may_pack: bool) -> Vec<(usize, usize)> {
        let root = tempfile::tempdir().expect("a directory");
        let task = TaskDir::new(root.path(), "t").expect("an id");
        std::fs::create_dir(task.path()).expect("made");
        std::fs::write(task.file("output.log"), text).expect("written");
        let log = LogReader::open(&task, 0).expect("a log");
        let end = text.len() as u64;
        let mut reading = Reading { head: None, log, left: end, packer: may_pack.then(Packer::new) };
        let mut bursts = Vec::new();
        let mut position = 0;
        while let Some(together) = reading.together() {
            let mut carried = 0;
            for answer in &together {
                let Ok(ReadLogResponse { part: Some(Part::Output(output)) }) = answer else { panic!("{answer:?}") };
                assert_eq!(output.offset, position);
                position += u64::from(output.unpacked).max(output.data.len() as u64);
                carried += output.data.len();
            }
            bursts.push((together.len(), carried));
        }
        assert_eq!(position, end);
        bursts
    }

    #[test]
    fn discarded_output_does_not_count_towards_the_limit() {
        let root = tempfile::tempdir().expect("a directory");
        let task = TaskDir::new(root.path(), "t").expect("an id");
        std::fs::create_dir(task.path()).expect("made");
        std::fs::write(task.file("output.log"), [b'.'; 1000]).expect("written");
        for may_pack in [false, true] {
            let log = LogReader::open(&task, 300).expect("a log");
            let mut reading = Reading { head: None, log, left: 100, packer: may_pack.then(Packer::new) };
            // Written only now, so that everything the request asked for is gone.
            std::fs::write(task.file("gap"), "200 700 \n").expect("written");
            let read: Vec<_> = std::iter::from_fn(|| reading.next()).collect();
            let [Ok(ReadLogResponse { part: Some(Part::Output(output)) })] = read.as_slice() else {
                panic!("{read:?}")
            };
            let size = u64::from(output.unpacked).max(output.data.len() as u64);
            assert_eq!((output.offset, size), (700, 100));
            std::fs::remove_file(task.file("gap")).expect("removed");
        }
    }

    #[tokio::test]
    async fn stalled_readers_occupy_few_threads_and_block_none() {
        let root = tempfile::tempdir().expect("a directory");
        let task = TaskDir::new(root.path(), "t").expect("an id");
        std::fs::create_dir(task.path()).expect("made");
        let size = 8 * LONG;
        std::fs::File::create(task.file("output.log")).and_then(|log| log.set_len(size)).expect("made");
        let read = || send(LogHead::default(), LogReader::open(&task, 0).expect("a log"), size, false);
        let deaf: Vec<_> = (0..20).map(|_| read()).collect();
        let taken: usize = read()
            .map(|answer| match answer.expect("read").part {
                Some(Part::Output(output)) => output.data.len(),
                _ => 0,
            })
            .fold(0, |all, size| std::future::ready(all + size))
            .await;
        assert_eq!(taken as u64, size);
        let threads = std::fs::read_dir("/proc/self/task").expect("threads").flatten();
        let names = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("comm")).ok());
        let count = names.filter(|name| name.trim() == "errand-log").count();
        assert!((1..=8).contains(&count), "{count}");
        drop(deaf);
    }

    #[test]
    fn compressible_output_is_sent_in_larger_bursts() {
        let lines = b"one of many lines\n".repeat(300_000);
        let packed = bursts(&lines, true);
        assert!(
            packed.len() < 3 && packed.iter().all(|(pieces, size)| *pieces <= TOGETHER && *size < PIECE),
            "{packed:?}"
        );
        let plain = bursts(&lines, false);
        assert!(plain.len() > 40 && plain.iter().all(|burst| *burst <= (1, PIECE)), "{plain:?}");
    }
}
