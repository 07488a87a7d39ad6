//! `errand logs` with lines, a search, or text as a terminal would show it.

use clap::{Args, ValueEnum};

use super::{connection::Tasks, console::Console, error::CliError, outcome, text};
use errand_proto::v1::{
    LineSearch, LineSelection, OutputFormat, OutputLine, OutputStream, OutputTail, ReadOutputRequest,
    ReadOutputResponse, StreamOutputRequest, line_search::Pattern, read_output_request::Selection,
    stream_output_response::Event,
};

/// How output is shown, other than as it is.
#[derive(Debug, Default, Args)]
pub struct Reading {
    /// Show the text as a terminal would: without colours, and of progress bars only the last state.
    #[arg(long)]
    pub rendered: bool,
    /// Show the whole output in at most 16000 characters: rendered, with repeated lines and progress bars folded.
    #[arg(long, conflicts_with_all = ["rendered", "follow", "offset"])]
    pub condensed: bool,
    /// With --condensed: the most characters, 200 to 200000.
    #[arg(long, value_name = "N", requires = "condensed")]
    pub characters: Option<i32>,
    /// Show these lines with their numbers: 100:50 are 50 lines from line 100 on, -50 the last 50 lines. At most 2000 [default count: 200].
    #[arg(
        long, value_name = "FIRST[:COUNT]", value_parser = parse_lines, allow_hyphen_values = true,
        conflicts_with_all = ["rendered", "condensed", "follow", "offset", "tail"]
    )]
    pub lines: Option<Lines>,
    /// Show the lines that match this regular expression, with their numbers. The log is searched in the sandbox.
    #[arg(long, value_name = "PATTERN", conflicts_with_all = ["rendered", "condensed", "lines", "follow", "offset", "tail"])]
    pub grep: Option<String>,
    /// With --grep: the pattern is the text itself.
    #[arg(short = 'F', long, requires = "grep")]
    pub fixed_strings: bool,
    /// With --grep: upper and lower case are the same.
    #[arg(short, long, requires = "grep")]
    pub ignore_case: bool,
    /// With --grep: show so many lines after each match, at most 20.
    #[arg(short = 'A', long, value_name = "N", requires = "grep")]
    pub after: Option<i32>,
    /// With --grep: show so many lines before each match, at most 20.
    #[arg(short = 'B', long, value_name = "N", requires = "grep")]
    pub before: Option<i32>,
    /// With --grep: show so many lines before and after each match, at most 20.
    #[arg(short = 'C', long, value_name = "N", requires = "grep")]
    pub context: Option<i32>,
    /// With --grep: the most matching lines, the first ones; at most 1000 [default: 100].
    #[arg(long, value_name = "N", requires = "grep", value_parser = clap::value_parser!(i32).range(1..))]
    pub max: Option<i32>,
    /// With --lines or --grep: only this stream of a task that records its streams separately.
    #[arg(long, value_name = "STREAM", value_enum, conflicts_with_all = ["rendered", "condensed", "follow", "offset", "tail"])]
    pub stream: Option<StreamName>,
}

/// A stream by name.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum StreamName {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Which lines to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lines {
    /// How many lines to skip; if negative, how many lines before the end to begin.
    pub offset: i64,
    /// How many lines to show; 0: the default.
    pub limit: i32,
}

/// Reads `100`, `100:50`, `-50` or `-50:10`.
fn parse_lines(text: &str) -> Result<Lines, String> {
    let wrong = || "expected a line and a number of lines, such as 100:50, or -50 for the last 50 lines".to_owned();
    let (first, count) = text.split_once(':').unwrap_or((text, ""));
    let first: i64 = first.parse().map_err(|_| wrong())?;
    let limit = if count.is_empty() { 0 } else { count.parse().ok().filter(|count| *count > 0).ok_or_else(wrong)? };
    match first {
        0 => Err("the first line is 1".to_owned()),
        1.. => Ok(Lines { offset: first - 1, limit }),
        _ => Ok(Lines { offset: first, limit }),
    }
}

impl Reading {
    /// Shows what was asked for. False if output is to be shown as it is.
    pub(super) async fn show(
        &self,
        task_id: &str,
        (tail, offset, follow): (Option<i64>, i64, bool),
        tasks: &mut Tasks,
        console: &mut Console,
    ) -> Result<bool, CliError> {
        if self.stream.is_some() && self.lines.is_none() && self.grep.is_none() {
            return Err(CliError::Usage("--stream needs --lines or --grep".to_owned()));
        }
        if let Some(selection) = self.line_selection() {
            let answer = read(task_id, Some(selection), (OutputFormat::Unspecified, 0), tasks).await?;
            self.print_lines(&answer, console).await?;
            return Ok(true);
        }
        if self.condensed {
            let selection = tail.map(|limit| Selection::Tail(OutputTail { limit }));
            let format = (OutputFormat::Condensed, self.characters.unwrap_or_default());
            let answer = read(task_id, selection, format, tasks).await?;
            print_condensed(&answer, console).await?;
            return Ok(true);
        }
        if self.rendered {
            let request = StreamOutputRequest {
                task_id: task_id.to_owned(),
                offset,
                no_follow: !follow,
                format: OutputFormat::Rendered.into(),
                ..StreamOutputRequest::default()
            };
            stream(request, tasks, console).await?;
            return Ok(true);
        }
        Ok(false)
    }

    fn line_selection(&self) -> Option<Selection> {
        let stream = match self.stream {
            None => OutputStream::Unspecified,
            Some(StreamName::Stdout) => OutputStream::Stdout,
            Some(StreamName::Stderr) => OutputStream::Stderr,
        };
        if let Some(Lines { offset, limit }) = self.lines {
            return Some(Selection::Lines(LineSelection { offset, limit, stream: stream.into() }));
        }
        let pattern = self.grep.clone()?;
        let context = self.context.unwrap_or_default();
        Some(Selection::Grep(LineSearch {
            pattern: Some(if self.fixed_strings { Pattern::Substring(pattern) } else { Pattern::Regex(pattern) }),
            ignore_case: self.ignore_case,
            before: self.before.unwrap_or(context),
            after: self.after.unwrap_or(context),
            max_matches: self.max.unwrap_or_default(),
            stream: stream.into(),
        }))
    }

    async fn print_lines(&self, answer: &ReadOutputResponse, console: &mut Console) -> Result<(), CliError> {
        if console.is_json() {
            return console.message(answer).await;
        }
        let mut last = None;
        for line in &answer.lines {
            // As grep does, between lines that do not follow each other.
            if last.is_some_and(|last| last + 1 != line.number) {
                console.line("--").await?;
            }
            last = Some(line.number);
            console.line(&self.numbered(line)).await?;
        }
        self.note_lines(answer, console).await;
        Ok(())
    }

    fn numbered(&self, line: &OutputLine) -> String {
        let mark = if line.matched || self.grep.is_none() { ':' } else { '-' };
        format!("{}{mark}{}", line.number, line.text)
    }

    /// Tells what is not shown.
    async fn note_lines(&self, answer: &ReadOutputResponse, console: &mut Console) {
        let ReadOutputResponse { omitted_lines, total_lines, matching_lines, .. } = answer;
        if self.grep.is_none()
            && let (Some(first), Some(last)) = (answer.lines.first(), answer.lines.last())
        {
            console.note(&format!("lines {} to {} of {total_lines}", first.number, last.number)).await;
        } else if self.grep.is_none() {
            console.note(&format!("no such lines; the output has {total_lines}")).await;
        }
        if *omitted_lines > 0 && self.grep.is_some() {
            console
                .note(&format!("{omitted_lines} of {matching_lines} matching lines are not shown (see --max)"))
                .await;
        } else if *omitted_lines > 0 {
            console.note(&format!("{omitted_lines} more of these lines are not shown: an answer has a limit")).await;
        }
        let cut: i64 = answer.lines.iter().map(|line| line.omitted_characters).sum();
        if cut > 0 {
            console.note(&format!("{cut} characters of long lines are not shown")).await;
        }
        if answer.scanned_bytes < answer.total_bytes {
            let searched = text::bytes_text(answer.scanned_bytes);
            console.note(&format!("only the first {searched} were looked through: the rest would take too long")).await;
        }
        outcome::not_kept(answer.output_gap.map_or(0, |gap| gap.end - gap.start), console).await;
    }
}

async fn read(
    task_id: &str,
    selection: Option<Selection>,
    (format, max_characters): (OutputFormat, i32),
    tasks: &mut Tasks,
) -> Result<ReadOutputResponse, CliError> {
    let request = ReadOutputRequest {
        task_id: task_id.to_owned(),
        selection,
        format: format.into(),
        max_characters,
        ..ReadOutputRequest::default()
    };
    Ok(tasks.read_output(request).await?.into_inner())
}

async fn print_condensed(answer: &ReadOutputResponse, console: &mut Console) -> Result<(), CliError> {
    if console.is_json() {
        return console.message(answer).await;
    }
    for part in &answer.parts {
        console.output(part).await?;
    }
    if answer.folded_lines > 0 {
        console.note(&format!("{} lines are folded", answer.folded_lines)).await;
    }
    if answer.omitted_characters > 0 {
        let (characters, lines) = (answer.omitted_characters, answer.omitted_lines);
        console.note(&format!("{characters} characters with {lines} line breaks are left out")).await;
    }
    if answer.omitted_bytes > 0 {
        let missing = text::bytes_text(answer.omitted_bytes);
        console.note(&format!("{missing} of the output were not read, or not kept")).await;
    }
    Ok(())
}

/// Shows a stream of rendered lines.
async fn stream(request: StreamOutputRequest, tasks: &mut Tasks, console: &mut Console) -> Result<(), CliError> {
    let mut position = request.offset;
    let mut missing = 0;
    let mut stream = tasks.stream_output(request).await?.into_inner();
    while let Some(message) = stream.message().await? {
        if let Some(Event::Output(part)) = &message.event {
            missing += part.offset - position;
            position = part.next_offset;
        }
        match (message.event.as_ref(), console.is_json()) {
            (_, true) => console.message(&message).await?,
            (Some(Event::Output(part)), false) => console.output(part).await?,
            (Some(Event::Finished(_)) | None, false) => {}
        }
    }
    outcome::not_kept(missing, console).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_count_from_both_ends() {
        let lines = |offset, limit| Ok(Lines { offset, limit });
        assert_eq!(parse_lines("100:50"), lines(99, 50));
        assert_eq!(parse_lines("1"), lines(0, 0));
        assert_eq!(parse_lines("-50"), lines(-50, 0));
        assert_eq!(parse_lines("-50:10"), lines(-50, 10));
        for wrong in ["", "0", "x", "1:0", "1:-5", ":5", "1:2:3"] {
            assert!(parse_lines(wrong).is_err(), "{wrong:?}");
        }
    }
}
