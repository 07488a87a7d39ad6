//! What each tenant may have: the server's default allowance, and the exceptions set for some tenants.
//!
//! Owns the table of allowances, which can change while the server runs. The API and the `SandboxKeeper` check requests against it and
//! answer the caller.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use errand_task::{Patterns, SandboxBounds, TenantId};

/// What a tenant may have.
#[derive(Debug, Clone, PartialEq)]
pub struct Allowance {
    /// The limits of each of the tenant's sandboxes.
    pub sandbox: SandboxBounds,
    /// The most sandboxes, counted over all bots of the tenant.
    pub sandboxes: u32,
}

/// One tenant's exceptions. A field that is unset takes the server's default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TenantRules {
    /// The most memory of one sandbox, in bytes.
    pub max_memory_bytes: Option<u64>,
    /// The most CPU of one sandbox, in cores.
    pub max_cpus: Option<f64>,
    /// The most processes in one sandbox.
    pub max_pids_limit: Option<u64>,
    /// The most sandboxes of the tenant.
    pub max_sandboxes: Option<u32>,
    /// Images that the tenant may request.
    pub allow_images: Option<Patterns>,
    /// Networks that the tenant may request.
    pub allow_networks: Option<Patterns>,
}

impl TenantRules {
    fn over(&self, usual: &Allowance) -> Allowance {
        let bounds = &usual.sandbox;
        Allowance {
            sandbox: SandboxBounds {
                memory_bytes: self.max_memory_bytes.unwrap_or(bounds.memory_bytes),
                cpus: self.max_cpus.unwrap_or(bounds.cpus),
                pids_limit: self.max_pids_limit.unwrap_or(bounds.pids_limit),
                images: self.allow_images.clone().unwrap_or_else(|| bounds.images.clone()),
                networks: self.allow_networks.clone().unwrap_or_else(|| bounds.networks.clone()),
            },
            sandboxes: self.max_sandboxes.unwrap_or(usual.sandboxes),
        }
    }
}

/// The allowances of all tenants. Cheap to clone; clones share the table.
#[derive(Debug, Clone)]
pub struct Allowances {
    table: Arc<Table>,
}

#[derive(Debug)]
struct Table {
    usual: Arc<Allowance>,
    others: RwLock<HashMap<TenantId, Arc<Allowance>>>,
}

impl Allowances {
    /// Gives every tenant the same allowance.
    pub fn new(usual: Allowance) -> Self {
        Self { table: Arc::new(Table { usual: Arc::new(usual), others: RwLock::default() }) }
    }

    /// A tenant's current allowance.
    pub fn of(&self, tenant: &TenantId) -> Arc<Allowance> {
        let others = self.table.others.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(others.get(tenant).unwrap_or(&self.table.usual))
    }

    /// Replaces all exceptions: a tenant that `rules` does not name gets the default again.
    pub fn replace(&self, rules: &HashMap<TenantId, TenantRules>) {
        let usual = &self.table.usual;
        let others = rules.iter().map(|(tenant, rules)| (tenant.clone(), Arc::new(rules.over(usual)))).collect();
        *self.table.others.write().unwrap_or_else(PoisonError::into_inner) = others;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    #[test]
    fn tenant_rules_override_the_server_default() {
        let sandbox = SandboxBounds {
            memory_bytes: 1 << 30,
            cpus: 2.0,
            pids_limit: 100,
            images: Patterns::all(),
            networks: Patterns::parse("none").unwrap(),
        };
        let usual = Allowance { sandbox, sandboxes: 10 };
        let allowances = Allowances::new(usual.clone());
        let (red, blue) = (TenantId::new("red").unwrap(), TenantId::new("blue").unwrap());
        let rules = TenantRules { max_cpus: Some(8.0), max_sandboxes: Some(1), ..TenantRules::default() };
        allowances.replace(&[(red.clone(), rules)].into());
        let of_red = allowances.of(&red);
        assert_eq!((of_red.sandbox.cpus, of_red.sandboxes, of_red.sandbox.memory_bytes), (8.0, 1, 1 << 30));
        assert_eq!(*allowances.of(&blue), usual);
        allowances.replace(&HashMap::new());
        assert_eq!(*allowances.of(&red), usual);
    }
}
