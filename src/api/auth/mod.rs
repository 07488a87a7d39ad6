//! Identifies callers, and limits which bots they may use and how much of the server at a time.
//!
//! Owns [`Caller`], the tokens, and the [`Gate`] that every request of the three services passes. Health and reflection have no gate. The
//! services themselves check whether a caller may use a bot.

mod admission;
mod fields;
mod reload;
mod tenants;
mod tokens;
mod usage;

use std::{sync::Arc, time::Instant};

use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status,
    codegen::http::{self, HeaderMap},
};

use super::{connection::Peer, readiness::Readiness};
use errand_store::BotFilter;
use errand_task::{BotId, TenantId};

pub(super) use admission::Admission;
pub use tokens::{Tokens, TokensError};
pub use usage::RequestLimits;
pub(super) use usage::{Held, TenantUse};

use usage::Usage;

/// An identified caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The platform that the caller belongs to.
    pub tenant: TenantId,
    /// The bots that the caller may use.
    pub bots: BotFilter,
    /// Whether the caller may adopt containers that do not name its tenant.
    pub may_adopt_any: bool,
}

impl Caller {
    /// The caller of every request when no tokens are configured.
    pub fn local() -> Self {
        Self { tenant: TenantId::local(), bots: BotFilter::All, may_adopt_any: false }
    }

    /// The caller that the gate attached to the request.
    ///
    /// # Errors
    /// UNAUTHENTICATED when the request did not pass the gate.
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

/// Admits or refuses requests. Cheap to clone.
#[derive(Clone)]
pub(super) struct Gate {
    parts: Arc<Parts>,
}

struct Parts {
    tokens: Option<Tokens>,
    /// The caller of every request when there are no tokens.
    local: Caller,
    readiness: Readiness,
    usage: Usage,
}

/// An admitted request.
struct Admitted {
    caller: Caller,
    usage: Arc<TenantUse>,
    /// The request's slot among the tenant's calls.
    held: Held,
    /// Cancelled when the token is no longer valid; none when there are no tokens.
    revoked: Option<CancellationToken>,
}

impl Gate {
    pub(super) fn new(
        tokens: Option<Tokens>,
        may_adopt_any: bool,
        readiness: Readiness,
        limits: RequestLimits,
    ) -> Self {
        let local = Caller { may_adopt_any, ..Caller::local() };
        Self { parts: Arc::new(Parts { tokens, local, readiness, usage: Usage::new(limits) }) }
    }

    fn admit<B>(&self, request: &http::Request<B>) -> Result<Admitted, Status> {
        let Parts { tokens, local, readiness, usage } = &*self.parts;
        // Check the token before readiness: a caller without a valid token must not learn the server's state.
        let (caller, revoked, limits) = match tokens {
            None => (local.clone(), None, usage.usual()),
            Some(tokens) => {
                let known =
                    tokens.known(bearer(request.headers())?).ok_or_else(|| Status::unauthenticated("unknown token"))?;
                let limits = known.tenant.over(usage.usual());
                (known.caller, Some(known.revoked), limits)
            }
        };
        let of_tenant = usage.of(&caller.tenant);
        if let Some(peer) = request.extensions().get::<Peer>() {
            peer.belongs_to(&caller.tenant, &of_tenant, &limits)?;
        }
        of_tenant.count_request(&limits, Instant::now())?;
        let held = of_tenant.begin_call(&limits)?;
        readiness.check()?;
        Ok(Admitted { caller, usage: of_tenant, held, revoked })
    }
}

/// The token of an `authorization: Bearer TOKEN` header.
fn bearer(headers: &HeaderMap) -> Result<&str, Status> {
    let wanted = || Status::unauthenticated("a token is required: send the metadata `authorization: Bearer TOKEN`");
    let value = headers.get("authorization").and_then(|value| value.to_str().ok()).ok_or_else(wanted)?;
    let (scheme, token) = value.trim().split_once(' ').ok_or_else(wanted)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(wanted()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    fn header(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", value.parse().unwrap());
        headers
    }

    #[test]
    fn the_scheme_is_read_in_any_case() {
        for value in ["Bearer abc", "bearer abc", "BEARER  abc "] {
            assert_eq!(bearer(&header(value)).unwrap(), "abc");
        }
        for value in ["Basic abc", "abc", ""] {
            assert_eq!(bearer(&header(value)).unwrap_err().code(), tonic::Code::Unauthenticated);
        }
        assert!(bearer(&HeaderMap::new()).is_err());
    }

    #[test]
    fn a_caller_may_use_its_bots_only() {
        let bots = BotFilter::Matching(vec!["team-*".to_owned(), "solo".to_owned()]);
        let caller = Caller { bots, ..Caller::local() };
        for (bot, allowed) in [("team-1", true), ("solo", true), ("solo2", false), ("other", false)] {
            assert_eq!(caller.may_use(&BotId::new(bot).unwrap()).is_ok(), allowed, "{bot}");
        }
    }
}
