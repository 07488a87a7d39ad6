//! What was seen of a command.

use std::time::{Duration, SystemTime};

use super::form::form;

form! {
    struct OutputSummary {
        bytes: u64,
        incomplete: bool,
        preview: String,
        #[serde(default)]
        gap: Option<Gap>,
    }
}

form! {
    struct Gap {
        start: u64,
        end: u64,
    }
}

form! {
    struct Stall {
        since: SystemTime,
        silent_for: Duration,
        last_line: String,
        #[serde(default)]
        waiting: Option<Waiting>,
    }
}

form! {
    struct Waiting {
        pid: u32,
        command: String,
        reads: Reads,
    }
}

form! {
    enum Reads {
        Terminal,
        Stdin,
    }
}

form! {
    #[derive(Default, PartialEq)]
    struct MemoryKills {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        before: Option<u64>,
        count: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<u64>,
    }
}

impl MemoryKills {
    pub(super) fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

form! {
    struct ResourceUsage {
        user_cpu: Duration,
        system_cpu: Duration,
        peak_memory_bytes: u64,
        read_bytes: u64,
        written_bytes: u64,
    }
}
