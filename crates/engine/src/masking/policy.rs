//! What is masked beside the values that requests name as secret: by the operator's settings, and each tenant's exceptions from them.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use errand_masks::Patterns;
use errand_task::TenantId;

/// What is masked in output that callers read. Texts about a task are always masked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MaskReads {
    /// Nothing.
    Off,
    /// The values of `secret_env`.
    #[default]
    Values,
    /// These, and what the patterns match.
    All,
}

impl MaskReads {
    /// The choices by name.
    pub const CHOICES: [(&'static str, Self); 3] = [("off", Self::Off), ("values", Self::Values), ("all", Self::All)];
}

/// One tenant's exceptions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MaskRules {
    /// Patterns in addition to the server's.
    pub patterns: Vec<String>,
    /// Instead of the server's choice.
    pub reads: Option<MaskReads>,
}

/// What is masked for a tenant.
#[derive(Debug)]
pub(crate) struct MaskPolicy {
    pub(crate) patterns: Arc<Patterns>,
    pub(crate) reads: MaskReads,
}

/// The policies of all tenants. Cheap to clone; clones share the table.
#[derive(Debug, Clone)]
pub struct MaskPolicies {
    table: Arc<Table>,
}

#[derive(Debug)]
struct Table {
    usual: Arc<MaskPolicy>,
    others: RwLock<HashMap<TenantId, Arc<MaskPolicy>>>,
}

impl MaskPolicies {
    /// The same policy for every tenant.
    pub fn new(patterns: Patterns, reads: MaskReads) -> Self {
        let usual = Arc::new(MaskPolicy { patterns: Arc::new(patterns), reads });
        Self { table: Arc::new(Table { usual, others: RwLock::default() }) }
    }

    pub(crate) fn of(&self, tenant: &TenantId) -> Arc<MaskPolicy> {
        let others = self.table.others.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(others.get(tenant).unwrap_or(&self.table.usual))
    }

    /// Replaces all exceptions: a tenant that `rules` does not name gets the server's policy again.
    pub fn replace(&self, rules: &HashMap<TenantId, MaskRules>) {
        let usual = &self.table.usual;
        let policy = |(tenant, rules): (&TenantId, &MaskRules)| {
            let own = Patterns::new(rules.patterns.iter().map(String::as_str)).unwrap_or_else(|error| {
                // The tokens file was checked when it was read.
                tracing::error!(%tenant, %error, "the patterns of a tenant are left out");
                Patterns::default()
            });
            let patterns = Arc::new(usual.patterns.and(&own));
            (tenant.clone(), Arc::new(MaskPolicy { patterns, reads: rules.reads.unwrap_or(usual.reads) }))
        };
        let others = rules.iter().map(policy).collect();
        *self.table.others.write().unwrap_or_else(PoisonError::into_inner) = others;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use errand_masks::Masks;

    use super::*;

    #[test]
    fn tenant_patterns_add_to_the_servers() {
        let policies = MaskPolicies::new(Patterns::new(["server-[0-9]+"]).unwrap(), MaskReads::Values);
        let (red, blue) = (TenantId::new("red").unwrap(), TenantId::new("blue").unwrap());
        let rules = MaskRules { patterns: vec!["red-[0-9]+".to_owned()], reads: Some(MaskReads::All) };
        policies.replace(&[(red.clone(), rules)].into());
        let masked = |tenant: &TenantId| {
            let policy = policies.of(tenant);
            let text = Masks::none().and_patterns(&policy.patterns).text("server-1 red-2").into_owned();
            (text, policy.reads)
        };
        assert_eq!(masked(&red), ("[masked] [masked]".to_owned(), MaskReads::All));
        assert_eq!(masked(&blue), ("[masked] red-2".to_owned(), MaskReads::Values));
        policies.replace(&HashMap::new());
        assert_eq!(masked(&red), ("[masked] red-2".to_owned(), MaskReads::Values));
    }
}
