//! A running `launch.sh` or `attach.sh`: output arrives on its standard output, control lines on its standard error.

use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::gap;
use crate::{Attached, OutputPiece, Report};
use errand_runtime::{Chunk, Exec, RuntimeError};
use errand_task::{Ending, ProcessIdentity, sentinel};

/// The most bytes kept of a control line, and of output that precedes the first one.
const LINE_LIMIT: usize = 8 * 1024;

/// A live view of one task through its own exec.
pub(super) struct ScriptAttachment {
    exec: Exec,
    /// Position of the next byte of output.
    position: u64,
    /// Control bytes that do not form a complete line yet.
    line: BytesMut,
    /// Output held back until the first control line arrives: reports come in order, and output may overtake the line `started`.
    early: Option<BytesMut>,
    /// How many processes in the sandbox were killed for lack of memory while the command ran.
    oom_kills: u32,
}

#[async_trait]
impl Attached for ScriptAttachment {
    async fn next(&mut self) -> Result<Report, RuntimeError> {
        loop {
            if let Some(report) = self.take_line() {
                self.early = None;
                return Ok(report);
            }
            match self.exec.next().await {
                Some(Ok(Chunk::Stderr(bytes))) => {
                    self.line.extend_from_slice(&bytes);
                    if self.line.len() > LINE_LIMIT && !self.line.contains(&b'\n') {
                        self.line.clear();
                    }
                }
                Some(Ok(Chunk::Stdout(bytes))) => match &mut self.early {
                    Some(early) if early.len() + bytes.len() <= LINE_LIMIT => early.extend_from_slice(&bytes),
                    Some(early) => {
                        let mut all = early.split();
                        self.early = None;
                        all.extend_from_slice(&bytes);
                        return Ok(self.output(all.freeze()));
                    }
                    None => return Ok(self.output(bytes)),
                },
                Some(Err(error @ RuntimeError::NotStarted { .. })) => return Err(error),
                Some(Err(error)) => {
                    tracing::debug!(%error, "an attachment broke off");
                    return Ok(Report::Broken);
                }
                None => return Ok(Report::Broken),
            }
        }
    }

    async fn follow(&mut self) -> Result<(), RuntimeError> {
        self.exec.write(b"follow\n").await
    }
}

impl ScriptAttachment {
    /// A view whose output begins at byte `from` of the log.
    pub(super) fn new(exec: Exec, from: u64) -> Self {
        Self { exec, position: from, line: BytesMut::new(), early: Some(BytesMut::new()), oom_kills: 0 }
    }

    fn output(&mut self, bytes: Bytes) -> Report {
        let piece = OutputPiece::both(self.position, bytes);
        self.position = piece.end();
        Report::Output(piece)
    }

    /// The next complete control line that the server understands. Output that was held back comes before it.
    fn take_line(&mut self) -> Option<Report> {
        while let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
            if let Some(early) = self.early.as_mut().filter(|early| !early.is_empty()) {
                let early = early.split().freeze();
                return Some(self.output(early));
            }
            let line = self.line.split_to(end + 1);
            let line = String::from_utf8_lossy(&line[..end]);
            if line == "attached" {
                self.early = None;
                continue;
            }
            if let Some(kills) = line.strip_prefix("oom ") {
                self.oom_kills = kills.parse().unwrap_or(0);
                continue;
            }
            match report(&line) {
                Some(Report::Ended { ending, usage, .. }) => {
                    return Some(Report::Ended { ending, usage, oom_kills: self.oom_kills });
                }
                Some(report) => return Some(report),
                None => tracing::debug!(%line, "a sandbox's shell complains"),
            }
        }
        None
    }
}

/// The report in a control line; none for anything else that a shell may print there.
fn report(line: &str) -> Option<Report> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match word {
        "claimed" => Some(Report::Claimed),
        "refused" => match sentinel::parse_failure(rest)? {
            Ending::FailedToStart { failure, errno, message } => {
                let message = format!("the task directory cannot be made: {}", message.trim());
                Some(ended(Ending::FailedToStart { failure, errno, message }))
            }
            Ending::Exited(_) | Ending::Signaled(_) | Ending::TimedOut { .. } | Ending::Lost { .. } => None,
        },
        "started" => {
            let (pid, ticks) = rest.split_once(' ')?;
            let process = ProcessIdentity { pid: pid.parse().ok()?, start_ticks: ticks.parse().ok()? };
            Some(Report::Started { process, age: Duration::ZERO })
        }
        "ended" => sentinel::parse_result(rest).map(ended),
        "over" => {
            let mut words = rest.split(' ');
            let (bytes, incomplete) = (words.next()?.parse::<u64>().ok()?.min(i64::MAX as u64), words.next()? == "1");
            let gap = gap(words.next()?, words.next()?, bytes);
            Some(Report::Over { bytes, incomplete, gap })
        }
        _ => None,
    }
}

/// The end of a command. A shell does not know what the command used.
fn ended(ending: Ending) -> Report {
    Report::Ended { ending, usage: None, oom_kills: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use errand_task::{Gap, Signal, StartFailure};

    #[test]
    fn only_valid_control_lines_are_parsed() {
        assert_eq!(report("claimed"), Some(Report::Claimed));
        let process = ProcessIdentity { pid: 12, start_ticks: 3456 };
        assert_eq!(report("started 12 3456"), Some(Report::Started { process, age: Duration::ZERO }));
        assert_eq!(report("ended signaled 9"), Some(ended(Ending::Signaled(Signal::KILL))));
        assert_eq!(report("over 7 1 - -"), Some(Report::Over { bytes: 7, incomplete: true, gap: None }));
        let gap = Some(Gap { start: 2, end: 5 });
        assert_eq!(report("over 7 0 2 5"), Some(Report::Over { bytes: 7, incomplete: false, gap }));
        for impossible in ["over 7 0 5 2", "over 7 0 2 8", "over 7 0 x 5"] {
            assert_eq!(report(impossible), Some(Report::Over { bytes: 7, incomplete: false, gap: None }));
        }
        assert_eq!(
            report("refused no_space 28 mkdir: No space left on device"),
            Some(ended(Ending::FailedToStart {
                failure: StartFailure::NoSpace,
                errno: Some(28),
                message: "the task directory cannot be made: mkdir: No space left on device".to_owned()
            }))
        );
        for other in [
            "",
            "sh: 1: not found",
            "started x y",
            "ended badly 1",
            "over",
            "over 7 1",
            "refused what ever",
            "refused no_space full",
        ] {
            assert_eq!(report(other), None, "{other:?}");
        }
    }
}
