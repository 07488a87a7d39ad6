//! What the program prints: results to stdout, everything else to stderr. Every write is flushed, so that output is seen as it
//! comes. The writes are asynchronous, so that a reader who is slow does not keep Ctrl-C from being heard.

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

/// Where the program prints, and in which manner.
pub(super) struct Console {
    stdout: Writer,
    stderr: Writer,
    json: bool,
    coloured: bool,
}

impl Console {
    /// The process's own stdout and stderr. Colours only on a terminal, and not where `NO_COLOR` is set.
    pub(super) fn of_process(json: bool) -> Self {
        let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            stdout: Box::new(tokio::io::stdout()),
            stderr: Box::new(tokio::io::stderr()),
            json,
            coloured: io::stdout().is_terminal() && !no_color,
        }
    }

    /// Somewhere else, without colours.
    #[cfg(test)]
    pub(super) fn into_writers(stdout: Writer, stderr: Writer, json: bool) -> Self {
        Self { stdout, stderr, json, coloured: false }
    }

    /// Whether scripts read this.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// Copies bytes to stdout as they are.
    pub(super) async fn bytes(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        write(&mut self.stdout, bytes).await.map_err(CliError::Output)
    }

    /// Copies a part of output to where the command wrote it: what was told apart as standard error to stderr.
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

    /// Prints messages as JSON, or as one line each, whichever is wanted.
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

    /// Tells people something beside the result. Scripts go by the exit code: for them it is only in the way.
    pub(super) async fn note(&mut self, note: &str) {
        if !self.json {
            self.complain(&format!("errand: {note}")).await;
        }
    }

    /// Tells people that a task goes on without this program.
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
        // When stderr is closed there is nobody left to tell; the exit code still says it.
        let _ = write(&mut self.stderr, format!("{text}\n").as_bytes()).await;
    }
}

async fn write(writer: &mut Writer, bytes: &[u8]) -> io::Result<()> {
    writer.write_all(bytes).await?;
    writer.flush().await
}
