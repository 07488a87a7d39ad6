//! `errand watch`, and the watches of `errand run`.

use std::str::FromStr;

use clap::Args;

use super::{connection::Connection, console::Console, error::CliError, exit_code, text};
use errand_proto::v1::{OutputWatch, OutputWatchState, SetWatchesRequest, output_watch::Kind};

/// Arguments of `watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Watch the output from this byte on, also what was printed before [default: only new output].
    #[arg(long, value_name = "BYTE", value_parser = clap::value_parser!(i64).range(0..), conflicts_with = "clear")]
    pub from: Option<i64>,
    /// Watch for nothing any more.
    #[arg(long)]
    pub clear: bool,
    /// Id of the task.
    pub task: String,
    /// Patterns, at most 8: TEXT, regex:PATTERN, or either after `once:` for its first match only.
    #[arg(value_name = "PATTERN", required_unless_present = "clear", conflicts_with = "clear")]
    pub patterns: Vec<Pattern>,
}

/// A pattern to watch for: a text; after `regex:`, a regular expression; after `once:`, only its first match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    once: bool,
    regex: bool,
    text: String,
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        let (once, given) = given.strip_prefix("once:").map_or((false, given), |rest| (true, rest));
        let (regex, given) = given.strip_prefix("regex:").map_or((false, given), |rest| (true, rest));
        // For a text that begins like one of these words.
        let text = if regex { given } else { given.strip_prefix("text:").unwrap_or(given) };
        if text.is_empty() {
            return Err(
                "expected TEXT, text:TEXT or regex:PATTERN, with once: before it for the first match only".to_owned()
            );
        }
        Ok(Self { once, regex, text: text.to_owned() })
    }
}

impl From<Pattern> for OutputWatch {
    fn from(pattern: Pattern) -> Self {
        let Pattern { once, regex, text } = pattern;
        Self { kind: Some(if regex { Kind::Regex(text) } else { Kind::Substring(text) }), once }
    }
}

/// Replaces the watches of a task.
pub(super) async fn watch(args: WatchArgs, connection: &Connection, console: &mut Console) -> Result<u8, CliError> {
    let request = SetWatchesRequest {
        task_id: args.task,
        watches: args.patterns.into_iter().map(Into::into).collect(),
        from_offset: args.from,
        ..SetWatchesRequest::default()
    };
    let answer = connection.tasks().set_watches(request).await?.into_inner();
    console.each(&answer.watches, line).await?;
    Ok(exit_code::SUCCESS)
}

fn line(state: &OutputWatchState) -> String {
    let pattern = state.watch.clone().unwrap_or_default();
    let once = if pattern.once { "once " } else { "" };
    format!("{once}{} from byte {}", shown(&pattern), state.next_offset)
}

/// A pattern for people.
pub(super) fn shown(watch: &OutputWatch) -> String {
    match &watch.kind {
        Some(Kind::Substring(text)) => format!("{:?}", text::one_line(text, 60)),
        Some(Kind::Regex(pattern)) => format!("/{}/", text::one_line(pattern, 60)),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    #[test]
    fn patterns_are_texts_unless_marked() {
        let read = |text: &str| OutputWatch::from(text.parse::<Pattern>().unwrap());
        let watch = |kind, once| OutputWatch { kind: Some(kind), once };
        assert_eq!(read("error: x"), watch(Kind::Substring("error: x".to_owned()), false));
        assert_eq!(read("once:ready"), watch(Kind::Substring("ready".to_owned()), true));
        assert_eq!(read("regex:^a+$"), watch(Kind::Regex("^a+$".to_owned()), false));
        assert_eq!(read("once:regex:text:"), watch(Kind::Regex("text:".to_owned()), true));
        assert_eq!(read("text:regex:"), watch(Kind::Substring("regex:".to_owned()), false));
        for wrong in ["", "once:", "regex:", "text:"] {
            assert!(wrong.parse::<Pattern>().unwrap_err().contains("expected"), "{wrong}");
        }
    }
}
