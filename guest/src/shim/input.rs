//! Standard input of a command that takes input: a pipe, or the command's terminal.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    io::Errno,
    termios::{SpecialCodeIndex, tcgetattr},
};

use super::line::Line;
use errand_proto::bridge::{InputRefusal, InputTaken, WriteInputRequest};

/// Where input goes.
pub(super) struct Input {
    /// None once the end of input was written.
    target: Option<OwnedFd>,
    terminal: bool,
    /// The state of a terminal's current line.
    line: Line,
    /// Total number of bytes taken.
    taken: u64,
    ended: bool,
}

impl Input {
    /// Takes the writing end of a pipe, or a terminal. Both must be non-blocking.
    pub(super) fn new(target: OwnedFd, terminal: bool) -> Self {
        Self { target: Some(target), terminal, line: Line::default(), taken: 0, ended: false }
    }

    /// The descriptor to poll while an input is not completely taken.
    pub(super) fn target(&self) -> Option<BorrowedFd<'_>> {
        self.target.as_ref().map(AsFd::as_fd)
    }

    /// Writes as much as the command has room for. Returns the answer, or none if some input is left.
    pub(super) fn write(&mut self, request: &mut WriteInputRequest) -> Option<InputTaken> {
        let offset = *request.offset.get_or_insert(self.taken);
        if offset > self.taken {
            return Some(self.answer(InputRefusal::Offset));
        }
        loop {
            let skip = usize::try_from(self.taken - offset).unwrap_or(usize::MAX);
            let rest = request.data.get(skip..).unwrap_or_default();
            let Some(target) = &self.target else {
                // The command took all of it before: repeating a request is not an error.
                let repeated = rest.is_empty() && (self.ended || !request.end);
                return Some(self.answer(if repeated { InputRefusal::Unspecified } else { InputRefusal::Closed }));
            };
            if rest.is_empty() {
                if request.end && !self.end() {
                    return None;
                }
                // A terminal takes an end of input and stays open.
                return Some(InputTaken { ended: request.end || self.ended, ..self.answer(InputRefusal::Unspecified) });
            }
            // A terminal that no process has open has no mode, and nothing can be lost.
            let mode = if self.terminal { tcgetattr(target).ok() } else { None };
            let fits = mode.as_ref().map_or(rest.len(), |mode| self.line.fits(rest, mode));
            let Some(piece) = rest.get(..fits).filter(|piece| !piece.is_empty()) else {
                return Some(InputTaken { line_full: true, ..self.answer(InputRefusal::Unspecified) });
            };
            match rustix::io::write(target, piece) {
                Ok(written) => {
                    self.taken += written as u64;
                    if let (Some(mode), Some(written)) = (&mode, piece.get(..written)) {
                        self.line.written(written, mode);
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return None,
                Err(_) => {
                    self.target = None;
                    return Some(self.answer(InputRefusal::Closed));
                }
            }
        }
    }

    /// Writes the end of input. Returns false when there is no room for it.
    fn end(&mut self) -> bool {
        if let (true, Some(target)) = (self.terminal, &self.target) {
            // A terminal stays open; its line discipline turns this character into an end of input.
            let mode = tcgetattr(target).ok();
            let code = mode.as_ref().map_or(4, |mode| mode.special_codes[SpecialCodeIndex::VEOF]);
            if rustix::io::write(target, &[code]) == Err(Errno::AGAIN) {
                return false;
            }
            if let Some(mode) = &mode {
                self.line.written(&[code], mode);
            }
        } else {
            self.target = None;
            self.ended = true;
        }
        true
    }

    /// An answer with the current position.
    pub(super) fn answer(&self, refusal: InputRefusal) -> InputTaken {
        InputTaken { taken: self.taken, ended: self.ended, refusal: refusal.into(), line_full: false }
    }

    /// Called when no process will read the input any more.
    pub(super) fn close(&mut self) {
        if !self.terminal {
            self.target = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn request(offset: Option<u64>, data: &[u8], end: bool) -> WriteInputRequest {
        WriteInputRequest { offset, data: data.to_vec().into(), end, ..WriteInputRequest::default() }
    }

    fn pipe() -> (std::io::PipeReader, Input) {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        rustix::io::ioctl_fionbio(&writer, true).expect("not blocking");
        (reader, Input::new(writer.into(), false))
    }

    #[test]
    fn repeated_input_is_written_once() {
        let (mut reader, mut input) = pipe();
        assert_eq!(input.write(&mut request(Some(0), b"abc", false)).map(|answer| answer.taken), Some(3));
        assert_eq!(input.write(&mut request(Some(0), b"abc", false)).map(|answer| answer.taken), Some(3));
        assert_eq!(
            input.write(&mut request(Some(1), b"bcde", true)).map(|answer| (answer.taken, answer.ended)),
            Some((5, true))
        );
        let again = input.write(&mut request(Some(1), b"bcde", true)).expect("an answer");
        assert_eq!((again.taken, again.refusal()), (5, InputRefusal::Unspecified));
        assert_eq!(
            input.write(&mut request(None, b"f", false)).map(|answer| answer.refusal()),
            Some(InputRefusal::Closed)
        );
        let mut all = String::new();
        reader.read_to_string(&mut all).expect("read");
        assert_eq!(all, "abcde");
    }

    #[test]
    fn input_beyond_the_expected_offset_is_refused() {
        let (_reader, mut input) = pipe();
        assert_eq!(
            input.write(&mut request(Some(1), b"b", false)).map(|answer| answer.refusal()),
            Some(InputRefusal::Offset)
        );
    }

    #[test]
    fn input_waits_for_a_slow_reader() {
        let (mut reader, mut input) = pipe();
        let mut large = request(None, &vec![b'x'; 100_000], false);
        assert_eq!(input.write(&mut large), None);
        let mut some = vec![0; 50_000];
        reader.read_exact(&mut some).expect("read");
        assert_eq!(input.write(&mut large).map(|answer| answer.taken), Some(100_000));
    }
}
