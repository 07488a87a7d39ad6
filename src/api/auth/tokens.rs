//! The tokens file: which tokens exist and what each may do. The file holds only the tokens' hashes.

use std::{
    collections::HashMap,
    fmt, fs, io,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};
use tokio_util::sync::CancellationToken;
use toml::Value;

use super::{
    Caller,
    fields::{Fields, Problems, must_be},
    tenants::{self, TenantEntry},
};
use crate::toml_lines::{Document, Node, Table};
use errand_engine::{MaskRules, TenantRules};
use errand_store::BotFilter;
use errand_task::{BotId, TenantId};

/// SHA-256 of a token.
type Hash = [u8; 32];

/// The known tokens, which can be replaced while the server runs. Clones share them and are cheap.
#[derive(Clone)]
pub struct Tokens {
    current: Arc<RwLock<Arc<File>>>,
}

/// The contents of the file as last read.
struct File {
    entries: Vec<(Hash, Entry)>,
    tenants: HashMap<TenantId, TenantEntry>,
}

/// What a token may do.
struct Entry {
    caller: Caller,
    /// Cancelled when the token is no longer valid.
    revoked: CancellationToken,
}

/// A known token, as the gate sees it.
pub(super) struct Known {
    pub(super) caller: Caller,
    pub(super) revoked: CancellationToken,
    /// The exceptions set for the token's tenant.
    pub(super) tenant: TenantEntry,
}

/// What is wrong with a tokens file; never empty. Displayed as one line for each problem.
#[derive(Debug, PartialEq, Eq)]
pub struct TokensError {
    problems: Vec<String>,
}

impl std::error::Error for TokensError {}

impl fmt::Display for TokensError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("entries", &self.file().entries.len()).finish()
    }
}

impl Tokens {
    /// Reads a tokens file.
    ///
    /// # Errors
    /// Everything that is wrong with the file, at once.
    pub fn read(path: &Path) -> Result<Self, TokensError> {
        let said =
            |error: io::Error| TokensError { problems: vec![format!("{}: cannot be read: {error}", path.display())] };
        let text = fs::read_to_string(path).map_err(said)?;
        Self::parse(&text).map_err(|error| TokensError {
            problems: error.problems.into_iter().map(|problem| format!("{}: {problem}", path.display())).collect(),
        })
    }

    /// Reads the text of a tokens file.
    ///
    /// # Errors
    /// Everything that is wrong with the text, at once.
    pub fn parse(text: &str) -> Result<Self, TokensError> {
        let document = Document::parse(text)
            .map_err(|error| TokensError { problems: vec![format!("line {}: {}", error.line, error.message)] })?;
        let mut problems = Problems::default();
        let mut entries: Vec<(Hash, Entry)> = Vec::new();
        let mut seen = HashMap::new();
        for (index, node) in token_tables(document.root(), &mut problems).into_iter().enumerate() {
            let number = index + 1;
            let Some((hash, caller)) = read_entry(number, node, &mut problems) else { continue };
            match seen.insert(hash, number) {
                Some(first) => {
                    problems.add(node.line(), format_args!("token {number}: has the same sha256 as token {first}"))
                }
                None => entries.push((hash, Entry { caller, revoked: CancellationToken::new() })),
            }
        }
        let tenants = tenants::read(document.root().get("tenants"), &mut problems);
        for tenant in tenants.keys() {
            if problems.0.is_empty() && !entries.iter().any(|(_, entry)| entry.caller.tenant == *tenant) {
                problems.0.push(format!("tenants.{tenant}: no token belongs to this tenant"));
            }
        }
        if problems.0.is_empty() {
            Ok(Self { current: Arc::new(RwLock::new(Arc::new(File { entries, tenants }))) })
        } else {
            Err(TokensError { problems: problems.0 })
        }
    }

    fn file(&self) -> Arc<File> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The tenants' exceptions from the server's own settings.
    pub fn tenant_rules(&self) -> HashMap<TenantId, TenantRules> {
        self.file().tenants.iter().map(|(tenant, entry)| (tenant.clone(), entry.rules.clone())).collect()
    }

    /// What the tenants want masked in addition.
    pub fn mask_rules(&self) -> HashMap<TenantId, MaskRules> {
        self.file().tenants.iter().map(|(tenant, entry)| (tenant.clone(), entry.masks.clone())).collect()
    }

    /// Replaces the tokens with those of `read`. Tokens that are gone or have other rights are revoked, and so are the calls that they
    /// began. Returns the number of revoked tokens.
    pub(super) fn replace(&self, read: Self) -> usize {
        let (read, before) = (read.file(), self.file());
        let kept = |hash: &Hash, caller: &Caller| {
            let found = before.entries.iter().find(|(known, entry)| known == hash && entry.caller == *caller);
            found.map(|(_, entry)| entry.revoked.clone())
        };
        let entries: Vec<_> = read
            .entries
            .iter()
            .map(|(hash, Entry { caller, revoked })| {
                let revoked = kept(hash, caller).unwrap_or_else(|| revoked.clone());
                (*hash, Entry { caller: caller.clone(), revoked })
            })
            .collect();
        let stays =
            |old: &Entry, hash: &Hash| entries.iter().any(|(known, new)| known == hash && new.caller == old.caller);
        let over: Vec<_> =
            before.entries.iter().filter(|(hash, old)| !stays(old, hash)).map(|(_, old)| old.revoked.clone()).collect();
        let file = Arc::new(File { tenants: read.tenants.clone(), entries });
        // Replace the tokens first, so that no new call begins, then end the running calls.
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = file;
        over.iter().for_each(CancellationToken::cancel);
        over.len()
    }

    /// Looks up a token. Takes the same time for every token of the same length, known or not.
    pub(super) fn known(&self, token: &str) -> Option<Known> {
        let file = self.file();
        let hash: Hash = Sha256::digest(token.as_bytes()).into();
        let mut found = u64::MAX;
        for (index, (known, _)) in (0_u64..).zip(file.entries.iter()) {
            let same: Choice = known.ct_eq(&hash);
            found.conditional_assign(&index, same);
        }
        let (_, Entry { caller, revoked }) = file.entries.get(usize::try_from(found).ok()?)?;
        let tenant = file.tenants.get(&caller.tenant).cloned().unwrap_or_default();
        Some(Known { caller: caller.clone(), revoked: revoked.clone(), tenant })
    }
}

/// The entries of `[[tokens]]`.
fn token_tables<'a>(root: Table<'a>, problems: &mut Problems) -> Vec<Node<'a>> {
    for entry in root.entries().filter(|entry| !matches!(entry.key, "tokens" | "tenants")) {
        let key = entry.key;
        problems.add(entry.line, format_args!("{key}: unknown key; the file holds [[tokens]] and [tenants.NAME]"));
    }
    match root.get("tokens").map(|node| (node, node.elements())) {
        Some((_, Some(entries))) if !entries.is_empty() => entries,
        Some((_, Some(_))) | None => {
            problems.0.push("there are no tokens: nobody could use the server".to_owned());
            Vec::new()
        }
        Some((node, None)) => {
            problems.add(node.line(), "tokens: must be a list of tables, written as [[tokens]]");
            Vec::new()
        }
    }
}

/// Reads one entry; `None` if something is wrong with it.
fn read_entry(number: usize, node: Node<'_>, problems: &mut Problems) -> Option<(Hash, Caller)> {
    let mut fields = Fields::of(node, format!("token {number}"), problems)?;
    let tenant = fields.required("tenant", read_tenant);
    let hash = fields.required("sha256", read_hash);
    let bots = fields.or("bots", BotFilter::All, read_bots);
    let may_adopt_any = fields.or("adopt", false, |value| must_be("true or false", value.as_bool()));
    fields.finish();
    Some((hash?, Caller { tenant: tenant?, bots: bots?, may_adopt_any: may_adopt_any? }))
}

fn read_tenant(value: &Value) -> Result<TenantId, String> {
    TenantId::new(must_be("text", value.as_str())?).map_err(|error| error.to_string())
}

fn read_hash(value: &Value) -> Result<Hash, String> {
    let mut hash = Hash::default();
    // The value may be a token in clear text, so the message does not repeat it.
    let read = hex::decode_to_slice(must_be("text", value.as_str())?, &mut hash).ok();
    must_be("the 64 hexadecimal digits of the token's SHA-256", read.map(|()| hash))
}

fn read_bots(value: &Value) -> Result<BotFilter, String> {
    let patterns = must_be("a list of names or prefixes such as \"team-*\"", value.as_array())?;
    if patterns.is_empty() {
        return Err("must not be empty; leave it out for all bots".to_owned());
    }
    let (mut read, mut wrong) = (Vec::new(), Vec::new());
    for pattern in patterns {
        let Some(pattern) = pattern.as_str() else {
            wrong.push(format!("{pattern} is not text"));
            continue;
        };
        match BotId::new(pattern.strip_suffix('*').unwrap_or(pattern)) {
            Err(error) if pattern != "*" => wrong.push(format!("{pattern:?}: {error}; a `*` may stand at the end")),
            Ok(_) | Err(_) => read.push(pattern.to_owned()),
        }
    }
    if !wrong.is_empty() {
        return Err(wrong.join("; "));
    }
    Ok(if read.iter().any(|pattern| pattern == "*") { BotFilter::All } else { BotFilter::Matching(read) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    /// SHA-256 of `abc`.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn token_is_recognised_by_its_hash() {
        let text =
            format!("[[tokens]]\ntenant = \"acme\"\nsha256 = \"{}\"\nbots = [\"team-*\", \"x\"]\n", ABC.to_uppercase());
        let caller = Tokens::parse(&text).unwrap().known("abc").unwrap().caller;
        assert_eq!(caller.tenant.as_str(), "acme");
        assert_eq!(caller.bots, BotFilter::Matching(vec!["team-*".to_owned(), "x".to_owned()]));
        assert!(Tokens::parse(&text).unwrap().known("abd").is_none());
        assert!(Tokens::parse(&text).unwrap().known("").is_none());
    }

    #[test]
    fn token_without_bots_may_use_all() {
        let with = |bots: &str| format!("[[tokens]]\ntenant = \"acme\"\nsha256 = \"{ABC}\"\n{bots}");
        for bots in ["", "bots = [\"*\"]", "bots = [\"a\", \"*\"]"] {
            assert_eq!(Tokens::parse(&with(bots)).unwrap().known("abc").unwrap().caller.bots, BotFilter::All);
        }
    }

    #[test]
    fn all_mistakes_are_reported_with_their_entry() {
        let text = format!(
            "colour = 1\n[[tokens]]\ntenant = \"a b\"\nsha256 = \"12\"\nbots = [\"*x\", 7]\nname = 1\nadopt = 1\n\
             [[tokens]]\ntenant = \"a\"\nsha256 = \"{ABC}\"\n[[tokens]]\ntenant = \"b\"\nsha256 = \"{ABC}\"\n[[tokens]]\nbots = []\n"
        );
        let said = Tokens::parse(&text).unwrap_err().to_string();
        for part in [
            "line 1: colour: unknown key; the file holds [[tokens]] and [tenants.NAME]",
            "line 3: token 1: tenant: must hold only",
            "line 4: token 1: sha256: must be the 64",
            "line 5: token 1: bots: \"*x\"",
            "; 7 is not text",
            "line 6: token 1: name: unknown key; the keys are tenant, sha256, bots, adopt",
            "line 7: token 1: adopt: must be true or false",
            "line 11: token 3: has the same sha256 as token 2",
            "line 14: token 4: tenant: is missing",
            "line 14: token 4: sha256: is missing",
            "line 15: token 4: bots: must not be empty",
        ] {
            assert!(said.contains(part), "{part} is not in:\n{said}");
        }
    }

    #[test]
    fn an_empty_or_broken_file_is_refused() {
        assert!(Tokens::parse("").unwrap_err().to_string().contains("there are no tokens"));
        assert!(Tokens::parse("tokens = []").unwrap_err().to_string().contains("there are no tokens"));
        assert!(Tokens::parse("\n[[tokens]\n").unwrap_err().to_string().starts_with("line 2: "));
        assert!(Tokens::parse("tokens = 1").unwrap_err().to_string().contains("list of tables"));
        assert!(Tokens::parse("tokens = [1]").unwrap_err().to_string().contains("token 1: must be a table"));
    }

    /// A file with these tokens of the tenant `acme`.
    fn file(tokens: &[(&str, &str)]) -> Tokens {
        let entry = |(token, more): &(&str, &str)| {
            let hash = hex::encode(Sha256::digest(token.as_bytes()));
            format!("[[tokens]]\ntenant = \"acme\"\nsha256 = \"{hash}\"\n{more}\n")
        };
        Tokens::parse(&tokens.iter().map(entry).collect::<String>()).unwrap()
    }

    #[test]
    fn only_tokens_that_changed_are_revoked() {
        let tokens = file(&[("stays", ""), ("goes", ""), ("changes", "bots = [\"a\", \"b\"]")]);
        let revoked = |token: &str| tokens.known(token).unwrap().revoked;
        let [stays, goes, changes] = ["stays", "goes", "changes"].map(revoked);
        let replaced = tokens.replace(file(&[("changes", "bots = [\"a\"]"), ("stays", ""), ("comes", "")]));
        assert_eq!(
            (replaced, stays.is_cancelled(), goes.is_cancelled(), changes.is_cancelled()),
            (2, false, true, true)
        );
        assert!(tokens.known("goes").is_none() && tokens.known("comes").is_some());
        assert!(!tokens.known("changes").unwrap().revoked.is_cancelled(), "with its new rights it is right");
        // A token that stayed through one change is revoked by a later one.
        tokens.replace(file(&[("stays", "adopt = true")]));
        assert!(stays.is_cancelled() && tokens.known("stays").unwrap().caller.may_adopt_any);
    }

    #[test]
    fn tenant_without_tokens_is_refused() {
        let text = format!("[[tokens]]\ntenant = \"acme\"\nsha256 = \"{ABC}\"\n[tenants.acne]\nmax_cpus = 1\n");
        let said = Tokens::parse(&text).unwrap_err().to_string();
        assert_eq!(said, "tenants.acne: no token belongs to this tenant");
        let tokens = Tokens::parse(&text.replace("acne", "acme")).unwrap();
        assert_eq!(tokens.known("abc").unwrap().tenant.rules.max_cpus, Some(1.0));
    }
}
