//! Validates requests about sandboxes.

use std::time::Duration;

use tonic::Status;

use super::{Violations, fields::Span};
use crate::api::{auth::Caller, page};
use errand_engine::Settings;
use errand_proto::v1::{self, AdoptSandboxRequest, EnsureSandboxRequest, ListActiveBotsRequest, ListSandboxesRequest};
use errand_task::{BotId, SandboxId, SandboxSpec};

/// The least memory, in bytes. Container engines make no smaller container.
const MEMORY_LEAST: u64 = 6 * 1024 * 1024;
/// The least share of a core.
const CPUS_LEAST: f64 = 0.01;
/// The least number of processes.
const PIDS_LEAST: u64 = 8;
/// The most bytes of the name of an image, a network, a user or a container.
const NAME_LIMIT: usize = 255;
/// Entries of a page when the request does not say.
const PAGE_DEFAULT: u32 = 50;
/// The times after which a sandbox can be stopped for not being used.
const IDLE_SPAN: Span = Span { at_least: Duration::from_mins(1), at_most: Duration::from_hours(365 * 24) };
/// The ages of tasks that can be asked for.
const AGE_SPAN: Span = Span { at_least: Duration::from_millis(1), at_most: Duration::MAX };

/// Reads an EnsureSandbox request.
pub(in crate::api) fn ensure(
    request: EnsureSandboxRequest,
    caller: &Caller,
    settings: &Settings,
) -> Result<(BotId, Option<SandboxSpec>), Status> {
    let mut violations = Violations::new();
    let bot = violations.id("bot_id", &request.bot_id);
    let spec = match request.spec {
        Some(given) => violations.within("spec", |violations| spec(given, caller, settings, violations).map(Some)),
        None => Some(None),
    };
    violations.or(bot.zip(spec))
}

/// Reads an AdoptSandbox request.
pub(in crate::api) fn adopt(request: AdoptSandboxRequest) -> Result<(BotId, String), Status> {
    let mut violations = Violations::new();
    let bot = violations.id("bot_id", &request.bot_id);
    if !is_engine_name(&request.container) {
        violations.add("container", "must be the name or the id of a container");
    }
    violations.bytes("container", request.container.len(), NAME_LIMIT);
    violations.or(bot.map(|bot| (bot, request.container)))
}

/// Reads a request that names a bot and nothing else.
pub(in crate::api) fn bot(bot_id: &str) -> Result<BotId, Status> {
    let mut violations = Violations::new();
    let bot = violations.id("bot_id", bot_id);
    violations.or(bot)
}

/// Reads a ListSandboxes request: where the page begins, and its size.
pub(in crate::api) fn list(request: &ListSandboxesRequest) -> Result<(Option<SandboxId>, u32), Status> {
    let mut violations = Violations::new();
    let after = violations.page_token(&request.page_token);
    let limit = violations.page_size("page_size", request.page_size, PAGE_DEFAULT);
    violations.or(after.zip(limit))
}

/// A ListActiveBots request.
pub(in crate::api) struct ActiveBots {
    /// The age from which on tasks do not count.
    pub(in crate::api) max_age: Option<Duration>,
    /// The bot after which the page begins.
    pub(in crate::api) after: Option<BotId>,
    /// The most bots.
    pub(in crate::api) limit: u32,
}

/// Reads a ListActiveBots request.
pub(in crate::api) fn active_bots(request: &ListActiveBotsRequest) -> Result<ActiveBots, Status> {
    let mut violations = Violations::new();
    let max_age = violations.duration("max_age", request.max_age, AGE_SPAN);
    let limit = violations.page_size("page_size", request.page_size, PAGE_DEFAULT);
    let after = match request.page_token.as_str() {
        "" => Some(None),
        token => page::place(token).map(Some),
    };
    if after.is_none() {
        violations.add("page_token", "must be the next_page_token of the page before");
    }
    let read = (|| Some(ActiveBots { max_age: max_age?, after: after?, limit: limit? }))();
    violations.or(read)
}

/// Reads a specification. Unset fields take the tenant's defaults.
pub(super) fn spec(
    given: v1::SandboxSpec,
    caller: &Caller,
    settings: &Settings,
    violations: &mut Violations,
) -> Option<SandboxSpec> {
    let bounds = &settings.allowances.of(&caller.tenant).sandbox;
    let defaults = bounds.fit(&settings.sandbox);
    let before = violations.found;
    words("image", &given.image, violations);
    let memory_bytes = amount("memory_bytes", given.memory_bytes, MEMORY_LEAST, defaults.memory_bytes, violations);
    let cpus = if given.cpus == 0.0 { defaults.cpus } else { given.cpus };
    if !cpus.is_finite() || cpus < CPUS_LEAST {
        violations.add("cpus", format!("must be at least {CPUS_LEAST}, is {cpus}"));
    }
    let pids_limit = amount("pids_limit", given.pids_limit, PIDS_LEAST, defaults.pids_limit, violations);
    network(&given.network_mode, violations);
    words("user", &given.user, violations);
    violations.env("env", &given.env);
    let never = given.idle_stop_after.is_some_and(|given| given.seconds == 0 && given.nanos == 0);
    let idle_stop_after = match never {
        true => Some(Some(Duration::ZERO)),
        false => violations.duration("idle_stop_after", given.idle_stop_after, IDLE_SPAN),
    };
    let spec = SandboxSpec {
        image: or_default(given.image, &defaults.image),
        memory_bytes: memory_bytes?,
        cpus,
        pids_limit: pids_limit?,
        network_mode: or_default(given.network_mode, &defaults.network_mode),
        writable_root: given.writable_root,
        user: if given.user.is_empty() { defaults.user.clone() } else { Some(given.user) },
        env: given.env.into_iter().collect(),
        idle_stop_after: idle_stop_after?,
    };
    // Check the tenant's bounds only if the fields themselves are valid, so that no field is reported twice.
    if violations.found == before {
        for (field, rule) in bounds.broken_by(&spec) {
            violations.add(field, rule);
        }
    }
    Some(spec)
}

fn or_default(given: String, default: &str) -> String {
    if given.is_empty() { default.to_owned() } else { given }
}

/// Checks a name for the container engine: one word.
fn words(field: &str, text: &str, violations: &mut Violations) {
    violations.bytes(field, text.len(), NAME_LIMIT);
    if text.chars().any(|character| character.is_whitespace() || character.is_control()) {
        violations.add(field, "must not hold blanks or control characters");
    }
}

fn amount(field: &str, given: i64, least: u64, default: u64, violations: &mut Violations) -> Option<u64> {
    match u64::try_from(given) {
        Ok(0) => Some(default),
        Ok(amount) if amount >= least => Some(amount),
        Ok(_) | Err(_) => {
            violations.add(field, format!("must be at least {least}, is {given}"));
            None
        }
    }
}

/// Checks that a network isolates the sandbox from the host and from other containers.
fn network(mode: &str, violations: &mut Violations) {
    violations.bytes("network_mode", mode.len(), NAME_LIMIT);
    if mode == "host" || mode.starts_with("container:") {
        violations.add("network_mode", "must not be host or container:…, which would share another's network");
    } else if !mode.is_empty() && !is_engine_name(mode) {
        violations.add("network_mode", "must be bridge, none, or the name of a network of the engine");
    }
}

/// Whether container engines allow this name for a container or a network.
fn is_engine_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.chars().all(|character| character.is_ascii_alphanumeric() || "_.-@".contains(character))
}
