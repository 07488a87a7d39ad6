//! A task at the keyboard: what is typed goes to it, and its terminal is as large as this one.

use std::future;

use tokio::{io::stdin, sync::watch};

use super::{
    connection::Tasks,
    error::CliError,
    keyboard::{self, Left, Order},
    terminal::{self, Ending, RawMode},
};
use errand_proto::v1::ResizeTerminalRequest;

/// Holds the terminal in raw mode where that is needed. Dropping this restores it.
pub(super) struct Interaction {
    input: bool,
    terminal: bool,
    order: Order,
    raw: Option<RawMode>,
}

/// Why this program leaves a task that goes on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// Somebody typed the keys that detach.
    Detached,
    /// A signal ended this program, and this exit code stands for it.
    Signal(u8),
}

impl Interaction {
    /// `input`: what is typed goes to the task. `terminal`: the task has a terminal. `order`: who else may write to it; at a keyboard
    /// always others.
    ///
    /// # Errors
    /// When the terminal cannot be put into raw mode.
    pub(super) fn begin(input: bool, terminal: bool, order: Order) -> Result<Self, CliError> {
        let raw = if input && terminal { RawMode::enter()? } else { None };
        let order = if raw.is_some() { Order::AmongOthers } else { order };
        Ok(Self { input, terminal, order, raw })
    }

    /// Whether the keys that detach are looked out for.
    pub(super) fn can_detach(&self) -> bool {
        self.raw.is_some()
    }

    /// Goes on until somebody leaves; for ever where nobody can. The task's id comes when it is known.
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

    /// Keeps the task's terminal as large as this one. Never returns but with an error.
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
            // A task that is over has no terminal any more, and its output says so.
            let _ = tasks.resize_terminal(request).await;
            if resized.recv().await.is_none() {
                return future::pending().await;
            }
        }
    }

    /// In raw mode no signal may end the program by itself.
    async fn ended(&self) -> Result<Leave, CliError> {
        if self.raw.is_none() {
            return future::pending().await;
        }
        Ok(Leave::Signal(Ending::listen()?.next().await))
    }
}
