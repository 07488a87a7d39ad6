//! Connects the keyboard and the terminal to a task: forwards what is typed, and keeps the task's terminal as large as this one.

use std::future;

use tokio::{io::stdin, sync::watch};

use super::{
    connection::Tasks,
    error::CliError,
    keyboard::{self, Left, Order},
    terminal::{self, Ending, RawMode},
};
use errand_proto::v1::ResizeTerminalRequest;

/// Holds the terminal in raw mode if necessary. Dropping this restores the terminal.
pub(super) struct Interaction {
    input: bool,
    terminal: bool,
    order: Order,
    raw: Option<RawMode>,
}

/// Why this program ends before the task does.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// The user typed the keys that detach.
    Detached,
    /// A signal ended this program; this is its exit code.
    Signal(u8),
}

impl Interaction {
    /// `input`: input is forwarded to the task. `terminal`: the task has a terminal. `order`: whether others may write to the task too;
    /// with a keyboard, always.
    ///
    /// # Errors
    /// When the terminal cannot be put into raw mode.
    pub(super) fn begin(input: bool, terminal: bool, order: Order) -> Result<Self, CliError> {
        let raw = if input && terminal { RawMode::enter()? } else { None };
        let order = if raw.is_some() { Order::AmongOthers } else { order };
        Ok(Self { input, terminal, order, raw })
    }

    /// Whether the keys that detach are recognized.
    pub(super) fn can_detach(&self) -> bool {
        self.raw.is_some()
    }

    /// Runs until the user detaches or a signal arrives; for ever if neither can happen. The task's id arrives once it is known.
    ///
    /// # Errors
    /// When input cannot be read or written.
    pub(super) async fn run(
        &self,
        tasks: Tasks,
        mut task_id: watch::Receiver<Option<String>>,
    ) -> Result<Leave, CliError> {
        let known = async {
            let task_id = match task_id.wait_for(Option::is_some).await {
                Ok(task_id) => task_id.clone().unwrap_or_default(),
                Err(_) => return future::pending().await,
            };
            tokio::select! {
                left = self.forward(tasks.clone(), task_id.clone()) => left,
                resized = self.resize(tasks, task_id) => resized,
            }
        };
        tokio::select! {
            leave = known => leave,
            leave = self.ended() => leave,
        }
    }

    async fn forward(&self, tasks: Tasks, task_id: String) -> Result<Leave, CliError> {
        if !self.input {
            return future::pending().await;
        }
        match keyboard::forward(stdin(), self.can_detach(), self.order, tasks, task_id).await? {
            Left::Detached => Ok(Leave::Detached),
            Left::Ended => future::pending().await,
        }
    }

    /// Keeps the task's terminal as large as this one. Returns only with an error.
    async fn resize(&self, mut tasks: Tasks, task_id: String) -> Result<Leave, CliError> {
        if !self.terminal {
            return future::pending().await;
        }
        let mut resized = terminal::resized()?;
        loop {
            let request = ResizeTerminalRequest {
                task_id: task_id.clone(),
                size: Some(terminal::size()),
                ..ResizeTerminalRequest::default()
            };
            // The task may have ended and have no terminal any more; its output reports that.
            let _ = tasks.resize_terminal(request).await;
            if resized.recv().await.is_none() {
                return future::pending().await;
            }
        }
    }

    /// Waits for a signal that ends this program. In raw mode, a signal must not end it before the terminal is restored.
    async fn ended(&self) -> Result<Leave, CliError> {
        if self.raw.is_none() {
            return future::pending().await;
        }
        Ok(Leave::Signal(Ending::listen()?.next().await))
    }
}
