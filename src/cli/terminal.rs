//! The terminal that this program runs in: its size, and raw mode for as long as another terminal is shown in it.

use std::io;

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::error::CliError;
use errand_proto::v1::TerminalSize;

/// The size of a terminal that nobody sees.
const UNSEEN: TerminalSize = TerminalSize { rows: 24, columns: 80 };

/// The terminal's size; that of an unseen one where there is none.
pub(super) fn size() -> TerminalSize {
    let seen = tcgetwinsize(io::stdout()).or_else(|_| tcgetwinsize(io::stdin()));
    match seen {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => {
            TerminalSize { rows: i32::from(size.ws_row), columns: i32::from(size.ws_col) }
        }
        Ok(_) | Err(_) => UNSEEN,
    }
}

/// Raw mode: every key goes through as it is, and nothing is shown but what comes. Dropping this restores what was before.
pub(super) struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Enters raw mode, where standard input is a terminal.
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
        // A terminal that is gone has nothing to be restored.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.before);
    }
}

/// The signals that end a program at once, which must not happen before the terminal is as it was.
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

    /// The exit code that stands for the next of them. Cancel safe.
    pub(super) async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.terminate.recv() => 128 + 15,
            _ = self.hang_up.recv() => 128 + 1,
            _ = self.interrupt.recv() => 128 + 2,
        }
    }
}

/// Says when the terminal's size has changed.
pub(super) fn resized() -> Result<Signal, CliError> {
    signal(SignalKind::window_change()).map_err(CliError::Signal)
}
