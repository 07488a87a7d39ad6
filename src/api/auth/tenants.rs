//! The tables `[tenants.NAME]` of the tokens file: one tenant's exceptions from the server's settings.

use std::collections::HashMap;

use toml::{Table, Value};

use super::RequestLimits;
use errand_engine::TenantRules;
use errand_task::{Patterns, TenantId, byte_size};

/// The keys that a table may have.
const KEYS: [&str; 8] = [
    "max_memory_bytes",
    "max_cpus",
    "max_pids_limit",
    "max_sandboxes",
    "allow_images",
    "allow_networks",
    "max_requests_per_second",
    "max_connections",
];

/// The exceptions set for a tenant.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct TenantEntry {
    pub(super) rules: TenantRules,
    max_requests_per_second: Option<u32>,
    max_connections: Option<u32>,
}

impl TenantEntry {
    /// The server's limits, overridden by the tenant's.
    pub(super) fn over(&self, usual: RequestLimits) -> RequestLimits {
        RequestLimits {
            requests_per_second: self.max_requests_per_second.unwrap_or(usual.requests_per_second),
            connections: self.max_connections.unwrap_or(usual.connections),
            ..usual
        }
    }
}

/// Reads all tables. Adds what is wrong with them to `problems`.
pub(super) fn read(tables: Option<&Value>, problems: &mut Vec<String>) -> HashMap<TenantId, TenantEntry> {
    let tables = match tables {
        None => return HashMap::new(),
        Some(Value::Table(tables)) => tables,
        Some(_) => {
            problems.push("tenants: must be tables, written as [tenants.NAME]".to_owned());
            return HashMap::new();
        }
    };
    let mut read = HashMap::new();
    for (name, table) in tables {
        let mut wrong = |problem: String| problems.push(format!("tenants.{name}: {problem}"));
        let tenant = TenantId::new(name.as_str()).map_err(|error| wrong(format!("the name {error}"))).ok();
        let Value::Table(table) = table else {
            wrong("must be a table".to_owned());
            continue;
        };
        for key in table.keys().filter(|key| !KEYS.contains(&key.as_str())) {
            wrong(format!("{key}: unknown key; a tenant has {}", KEYS.join(", ")));
        }
        let entry = entry(table, &mut wrong);
        read.extend(tenant.map(|tenant| (tenant, entry)));
    }
    read
}

fn entry(table: &Table, wrong: &mut impl FnMut(String)) -> TenantEntry {
    let field = |key: &str, rule: &str| table.get(key).map(|value| (value.clone(), format!("{key}: must be {rule}")));
    let size = field("max_memory_bytes", "a size such as \"4GiB\" or a number of bytes, at least 6MiB");
    let cpus = field("max_cpus", "a number of cores, at least 0.01");
    let pids = field("max_pids_limit", "a whole number, at least 8");
    let [sandboxes, requests, connections] = ["max_sandboxes", "max_requests_per_second", "max_connections"]
        .map(|key| field(key, "a whole number, at least 1"));
    let [images, networks] = ["allow_images", "allow_networks"]
        .map(|key| field(key, "a list of names that is not empty; * matches any text"));
    TenantEntry {
        rules: TenantRules {
            max_memory_bytes: checked(size, |value| bytes(value).filter(|size| *size >= 6 << 20), wrong),
            max_cpus: checked(cpus, |value| number(value).filter(|cpus| *cpus >= 0.01 && cpus.is_finite()), wrong),
            max_pids_limit: checked(pids, |value| whole(value).filter(|pids| *pids >= 8), wrong),
            max_sandboxes: checked(sandboxes, count, wrong),
            allow_images: checked(images, patterns, wrong),
            allow_networks: checked(networks, patterns, wrong),
        },
        max_requests_per_second: checked(requests, count, wrong),
        max_connections: checked(connections, count, wrong),
    }
}

/// The value of a field, if it is present and valid.
fn checked<T>(
    field: Option<(Value, String)>,
    read: impl FnOnce(&Value) -> Option<T>,
    wrong: &mut impl FnMut(String),
) -> Option<T> {
    let (value, rule) = field?;
    let read = read(&value);
    if read.is_none() {
        wrong(rule);
    }
    read
}

fn bytes(value: &Value) -> Option<u64> {
    value.as_str().map_or_else(|| whole(value), byte_size).filter(|bytes| i64::try_from(*bytes).is_ok())
}

fn number(value: &Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|number| number as f64))
}

fn whole(value: &Value) -> Option<u64> {
    value.as_integer().and_then(|number| u64::try_from(number).ok())
}

fn count(value: &Value) -> Option<u32> {
    whole(value).and_then(|number| u32::try_from(number).ok()).filter(|number| *number > 0)
}

fn patterns(value: &Value) -> Option<Patterns> {
    let names: Option<Vec<&str>> = value.as_array()?.iter().map(Value::as_str).collect();
    Patterns::new(names?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    fn parse(text: &str) -> (HashMap<TenantId, TenantEntry>, Vec<String>) {
        let (table, mut problems): (Table, _) = (text.parse().unwrap(), Vec::new());
        let read = read(table.get("tenants"), &mut problems);
        (read, problems)
    }

    #[test]
    fn tenant_table_overrides_named_settings() {
        let text = "[tenants.acme]\nmax_memory_bytes = \"4GiB\"\nmax_cpus = 3\nallow_images = [\"acme/*\"]\nmax_sandboxes = 7\n\
                    max_requests_per_second = 5\n[tenants.\"a.b\"]\nmax_memory_bytes = 8388608\n";
        let (read, problems) = parse(text);
        assert_eq!(problems, Vec::<String>::new());
        let acme = &read[&TenantId::new("acme").unwrap()];
        let expected = TenantRules {
            max_memory_bytes: Some(4 << 30),
            max_cpus: Some(3.0),
            max_sandboxes: Some(7),
            allow_images: Patterns::parse("acme/*"),
            ..TenantRules::default()
        };
        assert_eq!(acme.rules, expected);
        let usual = RequestLimits { requests_per_second: 9, calls: 9, subscriptions_per_bot: 9, connections: 9 };
        assert_eq!(acme.over(usual), RequestLimits { requests_per_second: 5, ..usual });
        assert_eq!(read[&TenantId::new("a.b").unwrap()].rules.max_memory_bytes, Some(8 << 20));
    }

    #[test]
    fn all_mistakes_of_a_tenant_are_reported() {
        let text = "[tenants.acme]\nmax_memory_bytes = 1\nmax_cpus = \"2\"\nmax_pids_limit = 7\nmax_sandboxes = 0\nallow_images = []\n\
                    allow_networks = [\"a b\"]\nmax_connections = -1\ncolour = 1\n[tenants]\nother = 1\n";
        let text = text.replace("[tenants]\nother = 1\n", "[tenants.\"x y\"]\n");
        let (_, problems) = parse(&text);
        let said = problems.join("\n");
        for part in [
            "tenants.acme: max_memory_bytes: must be a size",
            "tenants.acme: max_cpus: must be a number of cores",
            "tenants.acme: max_pids_limit: must be a whole number, at least 8",
            "tenants.acme: max_sandboxes: must be",
            "tenants.acme: allow_images: must be a list of names",
            "tenants.acme: allow_networks: must be a list of names",
            "tenants.acme: max_connections: must be",
            "tenants.acme: colour: unknown key",
            "tenants.x y: the name must hold only",
        ] {
            assert!(said.contains(part), "{part} is not in:\n{said}");
        }
        assert_eq!(problems.len(), 9, "{said}");
    }
}
