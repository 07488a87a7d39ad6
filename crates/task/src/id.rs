//! Newtype ids and names: tenants, bots, sessions, tasks, sandboxes, nonces and leases.

use std::{fmt, str::FromStr, sync::Arc};

use uuid::Uuid;

/// The most characters of a name that a caller chooses.
pub const NAME_LIMIT: usize = 128;

/// Why a text is not a valid name or id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty.
    #[error("must not be empty")]
    Empty,
    /// More than [`NAME_LIMIT`] characters.
    #[error("must be at most {NAME_LIMIT} characters, has {0}")]
    TooLong(usize),
    /// A character that is not allowed.
    #[error("must hold only A-Z a-z 0-9 . _ - : @, has {0:?}")]
    Character(char),
    /// Not a UUID.
    #[error("must be an id such as 019a2f9e-7c1b-7d53-8f0e-3a6f1f2b9c4d")]
    NotAnId,
}

fn check_name(name: &str) -> Result<(), IdError> {
    let length = name.chars().count();
    if length == 0 {
        return Err(IdError::Empty);
    }
    if length > NAME_LIMIT {
        return Err(IdError::TooLong(length));
    }
    match name.chars().find(|c| !(c.is_ascii_alphanumeric() || "._-:@".contains(*c))) {
        Some(character) => Err(IdError::Character(character)),
        None => Ok(()),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks a name that a caller chose.
            ///
            /// # Errors
            /// When it is empty, longer than [`NAME_LIMIT`] or has a character outside `A-Z a-z 0-9 . _ - : @`.
            pub fn new(name: impl AsRef<str> + Into<Arc<str>>) -> Result<Self, IdError> {
                check_name(name.as_ref())?;
                Ok(Self(name.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $type {
            type Err = IdError;
            fn from_str(name: &str) -> Result<Self, IdError> {
                Self::new(name)
            }
        }
    };
}

name! {
    /// A platform that uses this server. Tenants are isolated from each other.
    TenantId
}
name! {
    /// A bot of a tenant. It has one sandbox.
    BotId
}
name! {
    /// A conversation of a bot. Notifications go to it.
    SessionId
}

impl TenantId {
    /// The tenant of every call to a server without tokens.
    pub fn local() -> Self {
        Self("local".into())
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $type:ident, $make:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(Uuid);

        impl $type {
            /// Makes a new id.
            #[allow(clippy::new_without_default, reason = "an id is never a default value")]
            pub fn new() -> Self {
                Self(Uuid::$make())
            }

            /// The UUID itself.
            pub fn uuid(&self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $type {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Uuid::try_parse(text).map(Self).map_err(|_| IdError::NotAnId)
            }
        }
    };
}

id! {
    /// Identifies a task. UUID version 7: ids sort by creation time.
    TaskId, now_v7
}
id! {
    /// Identifies a sandbox.
    SandboxId, now_v7
}
id! {
    /// Identifies one launch, so that the exit file of another launch is not mistaken for its own.
    Nonce, new_v4
}
id! {
    /// Identifies a lease of notifications.
    LeaseId, new_v4
}

/// The owner of a task.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The tenant.
    pub tenant: TenantId,
    /// The tenant's bot.
    pub bot: BotId,
    /// The bot's session.
    pub session: SessionId,
}

impl LeaseId {
    /// The lease under which a task's completion is held back while an answer tells of it. Every such answer has the same one, because any of
    /// them is a proof that the end was told.
    pub fn of_task(task: TaskId) -> Self {
        Self(task.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn invalid_names_are_refused() {
        assert_eq!(BotId::new(""), Err(IdError::Empty));
        assert_eq!(BotId::new("a b"), Err(IdError::Character(' ')));
        assert_eq!(BotId::new("é"), Err(IdError::Character('é')));
        assert_eq!(BotId::new("x".repeat(129)), Err(IdError::TooLong(129)));
        assert_eq!(BotId::new("team:bot-1@eu.west_2").unwrap().as_str(), "team:bot-1@eu.west_2");
        assert!(BotId::new("x".repeat(128)).is_ok());
    }

    #[test]
    fn task_ids_round_trip_through_text() {
        let id = TaskId::new();
        assert_eq!(id.to_string().parse::<TaskId>().unwrap(), id);
        assert_eq!("17".parse::<TaskId>(), Err(IdError::NotAnId));
    }
}
