//! The terminal that this program runs in: its size, and raw mode while a task's terminal is shown in it.

use std::io;

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::error::CliError;
use errand_proto::v1::TerminalSize;

/// The assumed size when there is no terminal.
const UNSEEN: TerminalSize = TerminalSize { rows: 24, columns: 80 };

/// The terminal's size; a default size if there is no terminal.
pub(super) fn size() -> TerminalSize {
    let seen = tcgetwinsize(io::stdout()).or_else(|_| tcgetwinsize(io::stdin()));
    match seen {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => {
            TerminalSize { rows: i32::from(size.ws_row), columns: i32::from(size.ws_col) }
        }
        Ok(_) | Err(_) => UNSEEN,
    }
}

/// Raw mode: every key is passed through unchanged, and only received output is shown. Dropping this restores the previous mode.
pub(super) struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Enters raw mode if standard input is a terminal.
    ///
    /// # Errors
    /// When the terminal refuses.
    pub(super) fn enter() -> Result<Option<Self>, CliError> {
        let stdin = io::stdin();
        if !isatty(&stdin) {
            return Ok(None);
        }
        let refused = |error: rustix::io::Errno| CliError::Terminal(error.into());
        let before = tcgetattr(&stdin).map_err(refused)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Flush, &raw).map_err(refused)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.before);
    }
}

/// The signals that would end the program at once. They are handled, so that the terminal is restored first.
pub(super) struct Ending {
    terminate: Signal,
    hang_up: Signal,
    interrupt: Signal,
}

impl Ending {
    pub(super) fn listen() -> Result<Self, CliError> {
        let listen = |kind| signal(kind).map_err(CliError::Signal);
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next signal and returns its exit code. Cancel safe.
    pub(super) async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.terminate.recv() => 128 + 15,
            _ = self.hang_up.recv() => 128 + 1,
            _ = self.interrupt.recv() => 128 + 2,
        }
    }
}

/// A stream of changes of the terminal's size.
pub(super) fn resized() -> Result<Signal, CliError> {
    signal(SignalKind::window_change()).map_err(CliError::Signal)
}
