//! The arguments that say what a session is told about a task.

use std::{str::FromStr, time::Duration};

use clap::{Args, ValueEnum};

use super::text;
use errand_proto::v1::{CompletionPolicy, NotifyPolicy};

/// What the session is told.
#[derive(Debug, Default, Args)]
pub struct NotifyArgs {
    /// Whether the end of the task is announced [default: always].
    #[arg(long, value_name = "WHEN")]
    pub notify: Option<Completion>,
    /// Announce this often that the command still runs, at least 60s; off: never [default: off].
    #[arg(long, value_name = "DURATION")]
    pub heartbeat: Option<Interval>,
    /// Announce that the command has printed something and is silent for this long since, at least 1s; off: never [default: off].
    #[arg(long, value_name = "DURATION")]
    pub idle_after: Option<Interval>,
    /// The most bytes of the end of the output in a notification, at most 16KiB with --head-bytes [default: 4KiB].
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub tail_bytes: Option<i32>,
    /// The most bytes of the beginning of the output in a notification [default: 0].
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub head_bytes: Option<i32>,
}

/// Arguments of `notify`.
#[derive(Debug, Args)]
pub struct NotifyTaskArgs {
    /// What to change. The rest stays as it is.
    #[command(flatten)]
    pub policy: NotifyArgs,
    /// Id of the task.
    pub task: String,
}

/// Whether the end of a task is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Completion {
    /// Always.
    Always,
    /// Unless the command succeeded.
    Failure,
    /// Never.
    Never,
}

/// How often or after what time something is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interval {
    /// Never.
    Off,
    /// After this time.
    Every(Duration),
}

impl FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" { Ok(Self::Off) } else { text::parse_positive_duration(text).map(Self::Every) }
    }
}

impl Interval {
    fn on_the_wire(self) -> Option<prost_types::Duration> {
        match self {
            Self::Off => None,
            Self::Every(duration) => Some(text::wire_duration(duration)),
        }
    }
}

fn parse_bytes(text: &str) -> Result<i32, String> {
    i32::try_from(text::parse_size(text)?).map_err(|_| "expected at most 16KiB".to_owned())
}

impl NotifyArgs {
    /// The policy for a new task; none if no argument is given.
    pub(super) fn into_policy(self) -> Option<NotifyPolicy> {
        let Self { notify, heartbeat, idle_after, tail_bytes, head_bytes } = &self;
        let given = notify.is_some() || heartbeat.is_some() || idle_after.is_some();
        (given || tail_bytes.is_some() || head_bytes.is_some()).then(|| self.applied_to(NotifyPolicy::default()))
    }

    /// A policy with what these arguments change of it.
    pub(super) fn applied_to(self, mut policy: NotifyPolicy) -> NotifyPolicy {
        if let Some(completion) = self.notify {
            let completion = match completion {
                Completion::Always => CompletionPolicy::Always,
                Completion::Failure => CompletionPolicy::UnlessSucceeded,
                Completion::Never => CompletionPolicy::Never,
            };
            policy.completion = completion.into();
        }
        if let Some(heartbeat) = self.heartbeat {
            policy.heartbeat_every = heartbeat.on_the_wire();
        }
        if let Some(idle_after) = self.idle_after {
            policy.idle_after = idle_after.on_the_wire();
        }
        policy.tail_bytes = self.tail_bytes.or(policy.tail_bytes);
        policy.head_bytes = self.head_bytes.unwrap_or(policy.head_bytes);
        policy
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    #[test]
    fn arguments_change_only_what_they_name() {
        assert_eq!(NotifyArgs::default().into_policy(), None);
        let heartbeat = Some("5m".parse().unwrap());
        let made = NotifyArgs { notify: Some(Completion::Failure), heartbeat, ..NotifyArgs::default() }.into_policy();
        let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let expected = NotifyPolicy {
            completion: CompletionPolicy::UnlessSucceeded.into(),
            heartbeat_every: seconds(300),
            ..NotifyPolicy::default()
        };
        assert_eq!(made, Some(expected));
        let (idle_after, heartbeat) = (Some(Interval::Every(Duration::from_secs(20))), Some("off".parse().unwrap()));
        let changed = NotifyArgs { heartbeat, idle_after, tail_bytes: Some(0), ..NotifyArgs::default() };
        let changed = changed.applied_to(expected);
        assert_eq!((changed.heartbeat_every, changed.idle_after), (None, seconds(20)));
        assert_eq!((changed.completion, changed.tail_bytes), (expected.completion, Some(0)));
        assert!("5".parse::<Interval>().is_err() && "0s".parse::<Interval>().is_err());
        assert_eq!(parse_bytes("16KiB"), Ok(16_384));
    }
}
