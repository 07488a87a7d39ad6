//! What `errand wait --until` waits for.

use std::{str::FromStr, time::Duration};

use crate::cli::{error::CliError, text};
use errand_proto::v1::{OutputPattern, WaitTaskRequest, output_pattern::Kind};

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Until {
    /// The end of the task, which always ends a wait.
    Finished,
    /// A stall.
    Stalled,
    /// Output, and then none for this long.
    Idle(Duration),
    /// This text in the output.
    Match(String),
    /// A match of this regular expression in the output.
    Regex(String),
    /// A listening TCP port of the sandbox.
    Listening(u16),
}

impl FromStr for Until {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        match (name, value) {
            ("finished", None) => Ok(Self::Finished),
            ("stalled", None) => Ok(Self::Stalled),
            ("idle", Some(value)) => text::parse_positive_duration(value).map(Self::Idle),
            ("match", Some(value)) if !value.is_empty() => Ok(Self::Match(value.to_owned())),
            ("regex", Some(value)) if !value.is_empty() => Ok(Self::Regex(value.to_owned())),
            ("listening", Some(value)) => match value.parse() {
                Ok(port) if port > 0 => Ok(Self::Listening(port)),
                Ok(_) | Err(_) => Err("expected a port from 1 to 65535, such as listening=8080".to_owned()),
            },
            _ => Err("expected finished, stalled, idle=5s, match=TEXT, regex=PATTERN or listening=PORT".to_owned()),
        }
    }
}

/// The request that waits for these conditions, without a task.
///
/// # Errors
/// When one kind of condition is given twice.
pub(super) fn request(conditions: Vec<Until>) -> Result<WaitTaskRequest, CliError> {
    let mut request = WaitTaskRequest::default();
    let twice = |what: &str| CliError::Usage(format!("--until {what} can be given once"));
    for condition in conditions {
        match condition {
            Until::Finished => {}
            Until::Stalled => request.until_stalled = true,
            Until::Idle(idle) => {
                if request.until_idle.replace(text::wire_duration(idle)).is_some() {
                    return Err(twice("idle"));
                }
            }
            Until::Match(_) | Until::Regex(_) if request.until_match.is_some() => return Err(twice("match or regex")),
            Until::Match(text) => {
                request.until_match = Some(OutputPattern { offset: 0, kind: Some(Kind::Substring(text)) });
            }
            Until::Regex(pattern) => {
                request.until_match = Some(OutputPattern { offset: 0, kind: Some(Kind::Regex(pattern)) });
            }
            Until::Listening(_) if request.until_listening != 0 => return Err(twice("listening")),
            Until::Listening(port) => request.until_listening = i32::from(port),
        }
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    #[test]
    fn conditions_are_read_or_explained() {
        let read = |text: &str| text.parse::<Until>().unwrap();
        assert_eq!(read("idle=5s"), Until::Idle(Duration::from_secs(5)));
        assert_eq!(read("match=a=b"), Until::Match("a=b".to_owned()));
        assert_eq!(read("listening=8080"), Until::Listening(8080));
        for wrong in ["", "idle", "idle=5", "match=", "listening=0", "listening=x", "finished=1", "ended"] {
            assert!(wrong.parse::<Until>().unwrap_err().contains("expected"), "{wrong}");
        }
        assert!(request(vec![Until::Match("a".to_owned()), Until::Regex("b".to_owned())]).is_err());
        assert!(request(vec![Until::Listening(1), Until::Listening(2)]).is_err());
    }
}
