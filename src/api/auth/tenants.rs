//! The tables `[tenants.NAME]` of the tokens file: one tenant's exceptions from the server's settings.

use std::collections::HashMap;

use toml::Value;

use super::{
    RequestLimits,
    fields::{Fields, Problems, must_be},
};
use crate::toml_lines::Node;
use errand_engine::{MaskReads, MaskRules, TenantRules};
use errand_task::{Patterns, TenantId, byte_size};

/// The exceptions set for a tenant.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct TenantEntry {
    pub(super) rules: TenantRules,
    pub(super) masks: MaskRules,
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
pub(super) fn read(tables: Option<Node<'_>>, problems: &mut Problems) -> HashMap<TenantId, TenantEntry> {
    let Some(node) = tables else { return HashMap::new() };
    let Some(tables) = node.table() else {
        problems.add(node.line(), "tenants: must be tables, written as [tenants.NAME]");
        return HashMap::new();
    };
    let mut read = HashMap::new();
    for table in tables.entries() {
        let name = format!("tenants.{}", table.key);
        let tenant = TenantId::new(table.key)
            .map_err(|error| problems.add(table.line, format_args!("{name}: the name {error}")))
            .ok();
        let entry = Fields::of(table.node, name, problems).and_then(entry);
        read.extend(tenant.zip(entry));
    }
    read
}

fn entry(mut fields: Fields<'_>) -> Option<TenantEntry> {
    let size = |value: &Value| {
        let size = bytes(value).filter(|size| *size >= 6 << 20);
        must_be("a size such as \"4GiB\" or a number of bytes, at least 6MiB", size)
    };
    let cores = |value: &Value| {
        let cores = number(value).filter(|cores| *cores >= 0.01 && cores.is_finite());
        must_be("a number of cores, at least 0.01", cores)
    };
    let pids = |value: &Value| must_be("a whole number, at least 8", whole(value).filter(|pids| *pids >= 8));
    let count = |value: &Value| must_be("a whole number, at least 1", count(value));
    let names =
        |value: &Value| must_be("a list of names, in which * stands for any text, and not empty", patterns(value));
    let max_memory_bytes = fields.optional("max_memory_bytes", size);
    let max_cpus = fields.optional("max_cpus", cores);
    let max_pids_limit = fields.optional("max_pids_limit", pids);
    let max_sandboxes = fields.optional("max_sandboxes", count);
    let allow_images = fields.optional("allow_images", names);
    let allow_networks = fields.optional("allow_networks", names);
    let mask_patterns = fields.or("mask_patterns", Vec::new(), mask_patterns);
    let mask_reads = fields.optional("mask_reads", mask_reads);
    let max_requests_per_second = fields.optional("max_requests_per_second", count);
    let max_connections = fields.optional("max_connections", count);
    fields.finish();
    Some(TenantEntry {
        rules: TenantRules {
            max_memory_bytes: max_memory_bytes?,
            max_cpus: max_cpus?,
            max_pids_limit: max_pids_limit?,
            max_sandboxes: max_sandboxes?,
            allow_images: allow_images?,
            allow_networks: allow_networks?,
        },
        masks: MaskRules { patterns: mask_patterns?, reads: mask_reads? },
        max_requests_per_second: max_requests_per_second?,
        max_connections: max_connections?,
    })
}

fn mask_patterns(value: &Value) -> Result<Vec<String>, String> {
    let texts: Option<Vec<String>> =
        value.as_array().and_then(|list| list.iter().map(|text| text.as_str().map(str::to_owned)).collect());
    let texts = must_be("a list of regular expressions", texts)?;
    match errand_masks::Patterns::new(texts.iter().map(String::as_str)) {
        Ok(_) => Ok(texts),
        Err(error) => Err(error.to_string()),
    }
}

fn mask_reads(value: &Value) -> Result<MaskReads, String> {
    let choice = MaskReads::CHOICES.into_iter().find(|(name, _)| value.as_str() == Some(name));
    must_be("off, values or all", choice.map(|(_, choice)| choice))
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
    use crate::toml_lines::Document;

    fn parse(text: &str) -> (HashMap<TenantId, TenantEntry>, Vec<String>) {
        let (document, mut problems) = (Document::parse(text).unwrap(), Problems::default());
        let read = read(document.root().get("tenants"), &mut problems);
        (read, problems.0)
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
    fn tenant_table_names_what_is_masked() {
        let (read, problems) = parse("[tenants.acme]\nmask_patterns = [\"ACME-[0-9]+\"]\nmask_reads = \"all\"\n");
        assert_eq!(problems, Vec::<String>::new());
        let expected = MaskRules { patterns: vec!["ACME-[0-9]+".to_owned()], reads: Some(MaskReads::All) };
        assert_eq!(read[&TenantId::new("acme").unwrap()].masks, expected);
        let (_, problems) = parse("[tenants.acme]\nmask_patterns = [\"a\", \"hunter2(\"]\nmask_reads = 1\n");
        assert!(problems[0].starts_with("line 2: tenants.acme: mask_patterns: the pattern 2 is no regular expression"));
        assert!(problems[1].ends_with("mask_reads: must be off, values or all"), "{problems:?}");
    }

    #[test]
    fn all_mistakes_of_a_tenant_are_reported() {
        let text = "[tenants.acme]\nmax_memory_bytes = 1\nmax_cpus = \"2\"\nmax_pids_limit = 7\nmax_sandboxes = 0\nallow_images = []\n\
                    allow_networks = [\"a b\"]\nmax_connections = -1\ncolour = 1\n[tenants]\nother = 1\n";
        let text = text.replace("[tenants]\nother = 1\n", "[tenants.\"x y\"]\n");
        let (_, problems) = parse(&text);
        let said = problems.join("\n");
        for part in [
            "line 2: tenants.acme: max_memory_bytes: must be a size",
            "line 3: tenants.acme: max_cpus: must be a number of cores",
            "line 4: tenants.acme: max_pids_limit: must be a whole number, at least 8",
            "line 5: tenants.acme: max_sandboxes: must be",
            "line 6: tenants.acme: allow_images: must be a list of names",
            "line 7: tenants.acme: allow_networks: must be a list of names",
            "line 8: tenants.acme: max_connections: must be",
            "line 9: tenants.acme: colour: unknown key; the keys are max_memory_bytes, max_cpus,",
            "line 10: tenants.x y: the name must hold only",
        ] {
            assert!(said.contains(part), "{part} is not in:\n{said}");
        }
        assert_eq!(problems.len(), 9, "{said}");
    }
}
