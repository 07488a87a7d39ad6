//! Prints results to stdout and everything else to stderr. Every write is flushed, so that output appears as it arrives. Writes are
//! asynchronous, so that a slow reader does not block the handling of Ctrl-C.

use std::{
    env,
    io::{self, IsTerminal},
};

use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::{
    error::CliError,
    json::{self, Named},
    table::Table,
};
use errand_proto::v1::{OutputPart, OutputStream};

type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// The streams that the program prints to, and the format.
pub(super) struct Console {
    stdout: Writer,
    stderr: Writer,
    json: bool,
    coloured: bool,
}

impl Console {
    /// The process's own stdout and stderr. Uses colours only on a terminal, and not if `NO_COLOR` is set.
    pub(super) fn of_process(json: bool) -> Self {
        let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            stdout: Box::new(tokio::io::stdout()),
            stderr: Box::new(tokio::io::stderr()),
            json,
            coloured: io::stdout().is_terminal() && !no_color,
        }
    }

    /// Other writers, without colours.
    #[cfg(test)]
    pub(super) fn into_writers(stdout: Writer, stderr: Writer, json: bool) -> Self {
        Self { stdout, stderr, json, coloured: false }
    }

    /// Whether the output is JSON, for scripts.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// Copies bytes to stdout as they are.
    pub(super) async fn bytes(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        write(&mut self.stdout, bytes).await.map_err(CliError::Output)
    }

    /// Copies a part of output to the same stream that the command wrote it to: standard error to stderr, if the streams are kept apart.
    pub(super) async fn output(&mut self, part: &OutputPart) -> Result<(), CliError> {
        let writer = if part.stream() == OutputStream::Stderr { &mut self.stderr } else { &mut self.stdout };
        write(writer, &part.bytes()?).await.map_err(CliError::Output)
    }

    /// Prints one line.
    pub(super) async fn line(&mut self, line: &str) -> Result<(), CliError> {
        self.bytes(format!("{line}\n").as_bytes()).await
    }

    /// Prints a message as one line of JSON.
    pub(super) async fn message<M: Named>(&mut self, message: &M) -> Result<(), CliError> {
        self.line(&json::line(message)?).await
    }

    /// Prints messages as JSON, or as one line each, depending on the format.
    pub(super) async fn each<M: Named>(&mut self, messages: &[M], line: impl Fn(&M) -> String) -> Result<(), CliError> {
        for message in messages {
            if self.json { self.message(message).await? } else { self.line(&line(message)).await? }
        }
        Ok(())
    }

    /// Prints a table.
    pub(super) async fn table(&mut self, table: &Table) -> Result<(), CliError> {
        self.bytes(table.render(self.coloured).as_bytes()).await
    }

    /// Prints a remark for people. Omitted with JSON, because scripts use the exit code.
    pub(super) async fn note(&mut self, note: &str) {
        if !self.json {
            self.complain(&format!("errand: {note}")).await;
        }
    }

    /// Tells people that a task keeps running without this program.
    pub(super) async fn detached(&mut self, task_id: &str) {
        self.note(&format!("task {task_id} runs on; `errand attach {task_id}` joins it again")).await;
    }

    /// Reports an error.
    pub(super) async fn error(&mut self, error: &CliError) {
        if let Some(text) = if self.json { error.to_json() } else { error.to_text() } {
            self.complain(&text).await;
        }
    }

    async fn complain(&mut self, text: &str) {
        // If stderr is closed, the message is lost; the exit code still reports the error.
        let _ = write(&mut self.stderr, format!("{text}\n").as_bytes()).await;
    }
}

async fn write(writer: &mut Writer, bytes: &[u8]) -> io::Result<()> {
    writer.write_all(bytes).await?;
    writer.flush().await
}
