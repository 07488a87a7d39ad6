//! The line that a terminal collects in canonical mode. The kernel keeps 4095 bytes of a line and silently drops the rest, so the shim does
//! not write the rest.
//!
//! Tracks the characters that end a line, and those that shorten it as far as needed to never underestimate the line's length. Does not
//! notice a mode that changes while written bytes are still on their way through the terminal.

use rustix::termios::{InputModes, LocalModes, SpecialCodeIndex, Termios};

/// The most bytes of a line, without the character that ends it (`N_TTY_BUF_SIZE` less one).
const LIMIT: usize = 4095;
/// The code of a special character that is disabled.
const DISABLED: u8 = 0;

/// The bytes written since the last end of a line.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Line {
    length: usize,
    /// Whether the next byte loses its special meaning.
    literal: bool,
}

impl Line {
    /// How many of these bytes, from the first on, a terminal in this mode keeps.
    pub(super) fn fits(mut self, bytes: &[u8], mode: &Termios) -> usize {
        bytes.iter().position(|byte| !self.take(*byte, mode)).unwrap_or(bytes.len())
    }

    /// Records bytes that were written.
    pub(super) fn written(&mut self, bytes: &[u8], mode: &Termios) {
        for byte in bytes {
            self.take(*byte, mode);
        }
    }

    /// Advances by one byte. Returns false when the terminal would drop the byte.
    fn take(&mut self, byte: u8, mode: &Termios) -> bool {
        let local = |modes| mode.local_modes.contains(modes);
        let is = |index| byte == mode.special_codes[index] && byte != DISABLED;
        if !local(LocalModes::ICANON) {
            *self = Self::default();
            return true;
        }
        if std::mem::take(&mut self.literal) {
            return self.add(byte, mode);
        }
        if local(LocalModes::IEXTEN) && is(SpecialCodeIndex::VLNEXT) {
            self.literal = true;
            return true;
        }
        let signals = [SpecialCodeIndex::VINTR, SpecialCodeIndex::VQUIT, SpecialCodeIndex::VSUSP];
        if local(LocalModes::ISIG) && signals.into_iter().any(is) {
            // A signal character discards the typed line, unless NOFLSH is set.
            self.length = if local(LocalModes::NOFLSH) { self.length } else { 0 };
        } else if is(SpecialCodeIndex::VERASE) {
            self.length = self.length.saturating_sub(1);
        } else if ends(byte, mode) || is(SpecialCodeIndex::VKILL) {
            self.length = 0;
        } else {
            return self.add(byte, mode);
        }
        true
    }

    fn add(&mut self, byte: u8, mode: &Termios) -> bool {
        let doubled = byte == 0xff && mode.input_modes.contains(InputModes::PARMRK);
        let longer = self.length + 1 + usize::from(doubled);
        let fits = longer <= LIMIT;
        self.length = if fits { longer } else { self.length };
        fits
    }
}

/// Whether this byte ends a line.
fn ends(byte: u8, mode: &Termios) -> bool {
    let input = |modes| mode.input_modes.contains(modes);
    let codes = [SpecialCodeIndex::VEOF, SpecialCodeIndex::VEOL, SpecialCodeIndex::VEOL2];
    match byte {
        b'\n' => !input(InputModes::INLCR),
        b'\r' => input(InputModes::ICRNL) && !input(InputModes::IGNCR),
        DISABLED => false,
        _ => codes.into_iter().any(|index| byte == mode.special_codes[index]),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use rustix::{
        pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt},
        termios::{OptionalActions, tcgetattr, tcsetattr},
    };

    use super::*;

    /// A terminal that does not echo.
    fn terminal() -> (OwnedFd, OwnedFd) {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("a terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("unlocked");
        let slave = ioctl_tiocgptpeer(&master, flags).expect("its other side");
        let mut mode = tcgetattr(&slave).expect("a mode");
        mode.local_modes -= LocalModes::ECHO;
        tcsetattr(&slave, OptionalActions::Now, &mode).expect("set");
        (master, slave)
    }

    /// Returns how many bytes of `typed` fit, and what a reader gets after those bytes and a newline are written.
    fn read_back(typed: &[u8]) -> (usize, Vec<u8>) {
        let (master, slave) = terminal();
        let mode = tcgetattr(&master).expect("a mode");
        let fits = Line::default().fits(typed, &mode);
        for piece in [&typed[..fits], b"\n"] {
            assert_eq!(rustix::io::write(&master, piece), Ok(piece.len()));
        }
        let mut read = vec![0; 8192];
        let size = rustix::io::read(&slave, &mut read[..]).expect("a line");
        read.truncate(size);
        (fits, read)
    }

    #[test]
    fn bytes_that_fit_a_line_reach_the_reader() {
        let (erase, literal) = (0x7f, 0x16);
        let full = vec![b'a'; LIMIT];
        let after = |more: &[u8]| [&full[..], more].concat();
        for (typed, fits, kept) in [
            (full.clone(), LIMIT, LIMIT),
            (after(b"b"), LIMIT, LIMIT),
            (after(b"bbbbb"), LIMIT, LIMIT),
            // One byte erased, one more typed.
            (after(&[erase, b'b', b'c']), LIMIT + 2, LIMIT),
            // A literal newline is an ordinary byte.
            ([&full[..LIMIT - 1], &[literal, b'\n', b'b']].concat(), LIMIT + 1, LIMIT),
        ] {
            let (wrote, mut read) = read_back(&typed);
            assert_eq!(wrote, fits);
            assert_eq!(read.pop(), Some(b'\n'));
            assert_eq!(read.len(), kept);
        }
    }

    #[test]
    fn every_line_end_resets_the_length() {
        let (master, _slave) = terminal();
        let mode = tcgetattr(&master).expect("a mode");
        for end in [b'\n', b'\r', 0x04, 0x15, 0x03] {
            let typed = [&vec![b'a'; LIMIT][..], &[end], &vec![b'b'; LIMIT + 1]].concat();
            assert_eq!(Line::default().fits(&typed, &mode), 2 * LIMIT + 1, "{end:#x}");
            let mut line = Line::default();
            line.written(&typed[..2 * LIMIT], &mode);
            assert_eq!(line.fits(b"bcd", &mode), 1, "{end:#x}");
        }
    }

    #[test]
    fn raw_terminal_has_no_line_limit() {
        let (master, slave) = terminal();
        let mut mode = tcgetattr(&slave).expect("a mode");
        mode.make_raw();
        assert_eq!(Line { length: LIMIT, literal: false }.fits(&[b'a'; 9000], &mode), 9000);
        drop(master);
    }
}
