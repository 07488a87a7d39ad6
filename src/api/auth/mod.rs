//! Who calls, and which bots the caller may use.
//!
//! Owns [`Caller`], the tokens, and the [`Gate`] that every request of the three services passes. Health and reflection have no gate. What
//! a caller may do with a bot is for the services to ask.

mod tokens;

use tonic::{Request, Status, metadata::MetadataMap, service::Interceptor};

use super::readiness::Readiness;
use crate::{
    store::BotFilter,
    task::{BotId, TenantId},
};

pub use tokens::{Tokens, TokensError};

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The platform that the caller belongs to.
    pub tenant: TenantId,
    /// The bots that the caller may use.
    pub bots: BotFilter,
}

impl Caller {
    /// Everybody, where no tokens are configured.
    pub fn local() -> Self {
        Self { tenant: TenantId::local(), bots: BotFilter::All }
    }

    /// The caller that the gate found.
    ///
    /// # Errors
    /// UNAUTHENTICATED when the request came by no gate.
    pub(super) fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        request.extensions().get().cloned().ok_or_else(|| Status::unauthenticated("the request has no caller"))
    }

    /// Refuses a bot that the caller may not use.
    ///
    /// # Errors
    /// PERMISSION_DENIED.
    pub(super) fn may_use(&self, bot: &BotId) -> Result<(), Status> {
        if self.bots.admits(bot) {
            Ok(())
        } else {
            Err(Status::permission_denied(format!("the token may not use the bot {bot}")))
        }
    }
}

/// Lets a request pass, with its [`Caller`] among its extensions, or turns it away.
#[derive(Clone)]
pub(super) struct Gate {
    tokens: Option<Tokens>,
    readiness: Readiness,
}

impl Gate {
    pub(super) fn new(tokens: Option<Tokens>, readiness: Readiness) -> Self {
        Self { tokens, readiness }
    }

    fn caller(&self, metadata: &MetadataMap) -> Result<Caller, Status> {
        let Some(tokens) = &self.tokens else { return Ok(Caller::local()) };
        let token = bearer(metadata)?;
        tokens.caller(token).ok_or_else(|| Status::unauthenticated("the token is not known to this server"))
    }
}

impl Interceptor for Gate {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        // Who may not come in does not learn either how the server is.
        let caller = self.caller(request.metadata())?;
        self.readiness.check()?;
        request.extensions_mut().insert(caller);
        Ok(request)
    }
}

/// The token of an `authorization: Bearer TOKEN` header.
fn bearer(metadata: &MetadataMap) -> Result<&str, Status> {
    let wanted = || Status::unauthenticated("a token is required: send the metadata `authorization: Bearer TOKEN`");
    let value = metadata.get("authorization").and_then(|value| value.to_str().ok()).ok_or_else(wanted)?;
    let (scheme, token) = value.trim().split_once(' ').ok_or_else(wanted)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(wanted()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    fn header(value: &str) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        metadata.insert("authorization", value.parse().unwrap());
        metadata
    }

    #[test]
    fn the_scheme_is_read_in_any_case() {
        for value in ["Bearer abc", "bearer abc", "BEARER  abc "] {
            assert_eq!(bearer(&header(value)).unwrap(), "abc");
        }
        for value in ["Basic abc", "abc", ""] {
            assert_eq!(bearer(&header(value)).unwrap_err().code(), tonic::Code::Unauthenticated);
        }
        assert!(bearer(&MetadataMap::new()).is_err());
    }

    #[test]
    fn a_caller_may_use_its_bots_only() {
        let bots = BotFilter::Matching(vec!["team-*".to_owned(), "solo".to_owned()]);
        let caller = Caller { tenant: TenantId::local(), bots };
        for (bot, allowed) in [("team-1", true), ("solo", true), ("solo2", false), ("other", false)] {
            assert_eq!(caller.may_use(&BotId::new(bot).unwrap()).is_ok(), allowed, "{bot}");
        }
    }
}
