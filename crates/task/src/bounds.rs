//! The maxima of a sandbox, and the images and networks that it may use.

use std::fmt;

use super::SandboxSpec;

/// The bounds of a tenant's sandboxes. A specification beyond them is refused, never reduced silently.
#[derive(Debug, Clone, PartialEq)]
pub struct SandboxBounds {
    /// The most memory, in bytes.
    pub memory_bytes: u64,
    /// The most CPU, in cores.
    pub cpus: f64,
    /// The most processes at the same time.
    pub pids_limit: u64,
    /// The allowed images.
    pub images: Patterns,
    /// The allowed networks.
    pub networks: Patterns,
}

impl SandboxBounds {
    /// Every field that breaks a bound, with the rule as text that follows the field's name: `must …`.
    pub fn broken_by(&self, spec: &SandboxSpec) -> Vec<(&'static str, String)> {
        let mut broken = Vec::new();
        let Self { memory_bytes, cpus, pids_limit, images, networks } = self;
        if spec.memory_bytes > *memory_bytes {
            let given = spec.memory_bytes;
            broken.push(("memory_bytes", format!("must be at most {memory_bytes}, the maximum here, is {given}")));
        }
        if spec.cpus > *cpus {
            broken.push(("cpus", format!("must be at most {cpus}, the maximum here, is {}", spec.cpus)));
        }
        if spec.pids_limit > *pids_limit {
            let given = spec.pids_limit;
            broken.push(("pids_limit", format!("must be at most {pids_limit}, the maximum here, is {given}")));
        }
        if !images.admit(&spec.image) {
            broken.push(("image", format!("must be one of {images}, is {:?}", spec.image)));
        }
        if !networks.admit(&spec.network_mode) {
            broken.push(("network_mode", format!("must be one of {networks}, is {:?}", spec.network_mode)));
        }
        broken
    }

    /// Fits the server's defaults to these bounds: lowers the limits to the maxima, and replaces a forbidden image or network by the first
    /// allowed pattern without `*`, if there is one.
    pub fn fit(&self, defaults: &SandboxSpec) -> SandboxSpec {
        SandboxSpec {
            image: self.images.instead_of(&defaults.image),
            memory_bytes: defaults.memory_bytes.min(self.memory_bytes),
            cpus: defaults.cpus.min(self.cpus),
            pids_limit: defaults.pids_limit.min(self.pids_limit),
            network_mode: self.networks.instead_of(&defaults.network_mode),
            ..defaults.clone()
        }
    }
}

/// Patterns of names, in which `*` matches any text, including none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patterns(Vec<String>);

impl Patterns {
    /// Patterns that match every name.
    pub fn all() -> Self {
        Self(vec!["*".to_owned()])
    }

    /// `None` if there is no pattern, or one is empty or holds a blank, a comma or a control character.
    pub fn new(patterns: impl IntoIterator<Item = impl Into<String>>) -> Option<Self> {
        let patterns: Vec<String> = patterns.into_iter().map(Into::into).collect();
        let is_right = |pattern: &String| {
            !pattern.is_empty() && !pattern.contains(|c: char| c == ',' || c.is_whitespace() || c.is_control())
        };
        (!patterns.is_empty() && patterns.iter().all(is_right)).then_some(Self(patterns))
    }

    /// Parses patterns separated by commas. `None` as for [`Patterns::new`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::new(text.split(',').map(str::trim))
    }

    /// True if a pattern matches the name.
    pub fn admit(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| fits(pattern, name))
    }

    /// Adds one name.
    pub fn and(mut self, name: &str) -> Self {
        if !self.admit(name) {
            self.0.push(name.to_owned());
        }
        self
    }

    /// The name if it is allowed, else the first pattern without `*`.
    fn instead_of(&self, name: &str) -> String {
        let other = || self.0.iter().find(|pattern| !pattern.contains('*')).cloned();
        if self.admit(name) { name.to_owned() } else { other().unwrap_or_else(|| name.to_owned()) }
    }
}

impl fmt::Display for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

/// Whether a pattern matches a whole name. Takes linear time for each `*`: matching a part at its first place is always sufficient.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match name.find(part) {
            Some(at) => name = &name[at + part.len()..],
            None => return false,
        }
    }
    name.ends_with(last)
}

/// Parses a size: a number of bytes, or a number with the unit KiB, MiB, GiB or TiB.
pub fn byte_size(text: &str) -> Option<u64> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
    let (digits, shift) = units
        .into_iter()
        .find_map(|(unit, shift)| text.strip_suffix(unit).map(|digits| (digits.trim_end(), shift)))
        .unwrap_or((text, 0));
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    fn spec() -> SandboxSpec {
        SandboxSpec {
            image: "debian:bookworm-slim".to_owned(),
            memory_bytes: 2 << 30,
            cpus: 2.0,
            pids_limit: 2048,
            network_mode: "bridge".to_owned(),
            writable_root: false,
            user: None,
            env: Default::default(),
            idle_stop_after: None,
        }
    }

    fn bounds() -> SandboxBounds {
        SandboxBounds {
            memory_bytes: 1 << 30,
            cpus: 1.0,
            pids_limit: 100,
            images: Patterns::parse("acme/*, alpine:3").unwrap(),
            networks: Patterns::parse("none").unwrap(),
        }
    }

    #[test]
    fn star_matches_any_text() {
        for (pattern, name, fit) in [
            ("*", "", true),
            ("debian:*", "debian:bookworm-slim", true),
            ("debian:*", "docker.io/debian:x", false),
            ("*/tools:*-slim", "acme/tools:1-slim", true),
            ("*/tools:*-slim", "acme/tools:1-slim-not", false),
            ("a*a", "a", false),
            ("a*b*b", "ab", false),
            ("a*b*b", "a-b-b", true),
            ("alpine", "alpine:3", false),
        ] {
            assert_eq!(fits(pattern, name), fit, "{pattern} {name}");
        }
    }

    #[test]
    fn broken_bounds_name_field_and_maximum() {
        let broken = bounds().broken_by(&spec());
        let fields: Vec<_> = broken.iter().map(|(field, _)| *field).collect();
        assert_eq!(fields, ["memory_bytes", "cpus", "pids_limit", "image", "network_mode"]);
        assert_eq!(broken[0].1, "must be at most 1073741824, the maximum here, is 2147483648");
        assert_eq!(broken[3].1, "must be one of acme/*, alpine:3, is \"debian:bookworm-slim\"");
    }

    #[test]
    fn defaults_fit_the_bounds_of_a_tenant() {
        let fitted = bounds().fit(&spec());
        assert_eq!(bounds().broken_by(&fitted), []);
        assert_eq!((fitted.image.as_str(), fitted.network_mode.as_str()), ("alpine:3", "none"));
        let images = Patterns::parse("acme/*").unwrap();
        let none_in_full = SandboxBounds { images, ..bounds() };
        assert_eq!(none_in_full.broken_by(&none_in_full.fit(&spec())).len(), 1);
    }

    #[test]
    fn pattern_lists_have_no_empty_entry() {
        for text in ["", "a,,b", "a b", " "] {
            assert_eq!(Patterns::parse(text), None, "{text:?}");
        }
        assert_eq!(Patterns::parse("a").unwrap().and("b").to_string(), "a, b");
        assert_eq!(Patterns::all().and("b"), Patterns::all());
    }
}
