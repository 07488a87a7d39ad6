//! The location of a file: in a bot's sandbox, on this machine, or standard input or output.

use std::{path::PathBuf, str::FromStr};

/// The bot that is used when none is named.
const BOT: &str = "default";

/// A file of a sandbox: `BOT:/PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// The bot that has the sandbox.
    pub bot: String,
    /// An absolute path.
    pub path: String,
}

/// A file anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a sandbox.
    Sandbox(Remote),
    /// On this machine.
    Here(PathBuf),
    /// Standard input or output: `-`.
    Standard,
}

impl Remote {
    /// The last name of the path.
    pub(super) fn name(&self) -> &str {
        self.path.rsplit('/').find(|name| !name.is_empty()).unwrap_or_default()
    }
}

/// Text that ends in a colon before the first slash is a bot, because a bot's name contains no slash.
fn remote(text: &str) -> Option<Remote> {
    let (before, _) = text.split_once('/')?;
    let bot = before.strip_suffix(':')?;
    let bot = if bot.is_empty() { BOT } else { bot };
    Some(Remote { bot: bot.to_owned(), path: text[before.len()..].to_owned() })
}

impl FromStr for Remote {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        remote(text).ok_or_else(|| "expected BOT:/PATH, such as helper:/workspace/notes.txt".to_owned())
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, remote(text)) {
            ("", _) => Err("expected BOT:/PATH, a local file, or -".to_owned()),
            ("-", _) => Ok(Self::Standard),
            (_, Some(remote)) => Ok(Self::Sandbox(remote)),
            (here, None) => Ok(Self::Here(here.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    #[test]
    fn colon_before_first_slash_means_a_sandbox() {
        let remote = |bot: &str, path: &str| Place::Sandbox(Remote { bot: bot.to_owned(), path: path.to_owned() });
        assert_eq!("bot:/a/b:/c".parse(), Ok(remote("bot", "/a/b:/c")));
        assert_eq!("a:b@c:/".parse(), Ok(remote("a:b@c", "/")));
        assert_eq!(":/a".parse(), Ok(remote(BOT, "/a")));
        for here in ["a", "./bot:/a", "/bot:/a", "bot:a"] {
            assert_eq!(here.parse(), Ok(Place::Here(here.into())));
        }
        assert_eq!("-".parse(), Ok(Place::Standard));
        assert!("".parse::<Place>().is_err() && "/a".parse::<Remote>().is_err());
        assert_eq!("b:/x/y/".parse::<Remote>().unwrap().name(), "y");
    }
}
