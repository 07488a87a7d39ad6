//! Converts a command's process settings and its resource usage to the wire types.

use super::{count, duration};
use errand_proto::v1;
use errand_task::{Gap, Reads, ResourceLimits, ResourceUsage, TerminalSize, Waiting};

/// Converts the size of a terminal.
pub(super) fn terminal_size(size: TerminalSize) -> v1::TerminalSize {
    v1::TerminalSize { rows: i32::from(size.rows), columns: i32::from(size.columns) }
}

/// Converts resource limits; none when none is set.
pub(super) fn limits(limits: ResourceLimits) -> Option<v1::ResourceLimits> {
    (limits != ResourceLimits::default()).then(|| v1::ResourceLimits {
        open_files: limits.open_files.map(count),
        processes: limits.processes.map(count),
        file_bytes: limits.file_bytes.map(count),
        cpu_seconds: limits.cpu_seconds.map(count),
        address_space_bytes: limits.address_space_bytes.map(count),
        core_bytes: limits.core_bytes.map(count),
        stack_bytes: limits.stack_bytes.map(count),
    })
}

/// Converts what a command used.
pub(super) fn usage(usage: ResourceUsage) -> v1::ResourceUsage {
    v1::ResourceUsage {
        user_cpu: Some(duration(usage.user_cpu)),
        system_cpu: Some(duration(usage.system_cpu)),
        peak_memory_bytes: count(usage.peak_memory_bytes),
        read_bytes: count(usage.read_bytes),
        written_bytes: count(usage.written_bytes),
    }
}

/// Converts a gap in the output.
pub(super) fn gap(gap: Gap) -> v1::OutputGap {
    v1::OutputGap { start: count(gap.start), end: count(gap.end) }
}

/// Converts a process that waits for input.
pub(super) fn waiting(waiting: Waiting) -> v1::WaitingProcess {
    let reads = match waiting.reads {
        Reads::Terminal => v1::InputSource::Terminal,
        Reads::Stdin => v1::InputSource::Stdin,
    };
    v1::WaitingProcess {
        pid: i32::try_from(waiting.pid).unwrap_or(i32::MAX),
        command: waiting.command,
        reads: reads.into(),
    }
}
