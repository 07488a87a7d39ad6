//! The streams that a command writes to, and the log that they are copied into.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use crate::shim::log::{Log, MUCH, Taken};
use errand_proto::bridge::{Over, Stream};

/// The most reads from one stream before the other streams get their turn.
const TURNS: usize = 4;
/// The largest size of a pipe unless root has raised the limit: a pipe holds no more than this when the command ends.
const PIPE_LIMIT: u64 = 1024 * 1024;
/// The size in bytes of the pipe of a command that writes much.
const LARGE_PIPE: usize = 512 * 1024;

/// A stream that the command writes to.
pub(in crate::shim) struct Output {
    /// None once the stream has ended.
    source: Option<OwnedFd>,
    stream: Stream,
    is_pipe: bool,
    /// Whether the pipe was made larger.
    large: bool,
}

impl Output {
    /// Takes the reading end of a pipe, or the master of a terminal. Both must be non-blocking.
    pub(in crate::shim) fn new(source: OwnedFd, stream: Stream, is_pipe: bool) -> Self {
        Self { source: Some(source), stream, is_pipe, large: false }
    }
}

/// All streams of a task, with their log.
pub(in crate::shim) struct Capture {
    log: Log,
    outputs: Vec<Output>,
}

impl Capture {
    /// Copies these streams into this log.
    pub(in crate::shim) fn new(log: Log, outputs: Vec<Output>) -> Self {
        Self { log, outputs }
    }

    /// The size of the output so far in bytes, including what was not kept.
    pub(super) fn size(&self) -> u64 {
        self.log.size()
    }

    /// The log at the end of the task.
    pub(super) fn over(&self) -> Over {
        Over { bytes: self.log.size(), incomplete: self.log.incomplete(), gap: self.log.gap() }
    }

    /// Frees everything beyond the log's limit, when no more output is expected for now.
    pub(super) fn settle(&mut self) {
        self.log.settle();
    }

    /// The streams that have not ended, each with its index.
    pub(super) fn sources(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        self.outputs.iter().enumerate().filter_map(|(index, output)| Some((index, output.source.as_ref()?.as_fd())))
    }

    /// The master of the terminal: none if the command has no terminal, or if no process has the terminal open any more.
    pub(super) fn terminal(&self) -> Option<Option<&OwnedFd>> {
        self.outputs.iter().find(|output| !output.is_pipe).map(|output| output.source.as_ref())
    }

    /// Logs what the command has written to these streams. Returns whether the log has grown. `tap` gets output that was copied, with its
    /// position.
    pub(super) fn take(&mut self, ready: &[usize], tap: &mut impl FnMut(u64, &[u8])) -> bool {
        let before = self.log.size();
        for index in ready {
            for _ in 0..TURNS {
                if self.take_from(*index, tap) == 0 {
                    break;
                }
            }
        }
        self.log.size() > before
    }

    /// Logs what the command wrote before it ended. A daemon may write for ever, so reads at most what the pipe could hold.
    pub(super) fn take_rest(&mut self, tap: &mut impl FnMut(u64, &[u8])) {
        for index in 0..self.outputs.len() {
            let mut taken = 0;
            while taken < PIPE_LIMIT {
                match self.take_from(index, tap) {
                    0 => break,
                    more => taken += more,
                }
            }
        }
    }

    /// Reads from one stream once. Returns how many bytes were read, logged or not; none when nothing more is available for now.
    fn take_from(&mut self, index: usize, tap: &mut impl FnMut(u64, &[u8])) -> u64 {
        let Some(output) = self.outputs.get_mut(index) else { return 0 };
        let Some(source) = &output.source else { return 0 };
        match self.log.take(source, output.stream, output.is_pipe) {
            Taken::Bytes(taken) => {
                if let Some((position, bytes)) = self.log.copied(taken) {
                    tap(position, bytes);
                }
                if output.is_pipe && !output.large && self.log.size() > MUCH {
                    output.large = true;
                    let _ = rustix::pipe::fcntl_setpipe_size(source, LARGE_PIPE);
                }
                taken as u64
            }
            Taken::Nothing => 0,
            Taken::End => {
                output.source = None;
                0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        time::Duration,
    };

    use super::*;
    use crate::task_dir::TaskDir;

    #[test]
    fn endless_output_on_full_disk_delays_no_end() {
        let root = tempfile::tempdir().expect("a directory");
        let directory = TaskDir::new(root.path(), "t").expect("an id");
        fs::create_dir(directory.path()).expect("made");
        drop(File::create(directory.file("output.log")).expect("made"));
        // A read-only file: every write fails, as on a full disk.
        let log = File::open(directory.file("output.log")).expect("open");
        let endless = File::open("/dev/zero").expect("open");
        let outputs = vec![Output::new(endless.into(), Stream::Unspecified, false)];
        let mut capture = Capture::new(Log::new(&directory, log, None, 0), outputs);
        let (over, heard) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            capture.take_rest(&mut |_, _| {});
            over.send(capture.over().incomplete)
        });
        assert_eq!(heard.recv_timeout(Duration::from_secs(10)), Ok(true));
    }
}
