//! The listening TCP ports: the arguments of `ports.sh`, and what it prints.

use std::collections::BTreeSet;

use crate::{PORTS_LIMIT, PORTS_WAIT};

/// The arguments after the root.
pub(super) fn arguments(known: Option<&BTreeSet<u16>>) -> Vec<String> {
    let Some(known) = known else { return vec!["0".to_owned()] };
    let mut arguments = vec![PORTS_WAIT.as_secs().to_string(), PORTS_LIMIT.to_string()];
    arguments.extend(known.iter().map(u16::to_string));
    arguments
}

/// Parses the answer: `ports` and the numbers, in any order and with repetitions. None when it is malformed.
pub(super) fn parse(answer: &[u8]) -> Option<BTreeSet<u16>> {
    let line = std::str::from_utf8(answer).ok()?.strip_suffix('\n')?;
    let ports = line.strip_prefix("ports")?.split_ascii_whitespace().map(|port| port.parse().ok());
    let mut ports = ports.collect::<Option<BTreeSet<u16>>>()?;
    while ports.len() > PORTS_LIMIT {
        ports.pop_last();
    }
    Some(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_ports_are_refused() {
        assert_eq!(parse(b"ports\n"), Some(BTreeSet::new()));
        assert_eq!(parse(b"ports 80 443 80\n"), Some(BTreeSet::from([80, 443])));
        for wrong in ["", "ports", "ports 80", "ports x\n", "ports 70000\n", "sh: not found\n", "ports -1\n"] {
            assert_eq!(parse(wrong.as_bytes()), None, "{wrong:?}");
        }
    }
}
