//! What a scan of a log found, independent of who made it.

use std::time::Duration;

use errand_reading::Scanned;
use errand_task::Gap;

/// How long a scan may take. It then ends wherever it is.
pub const SCAN_TIME: Duration = Duration::from_secs(20);

/// What a scan found in a log, as the log was when the scan began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScannedLog {
    /// The lines.
    pub found: Scanned,
    /// Size of all output in bytes, including what the log has not kept.
    pub size: u64,
    /// What the log has not kept because of the output limit.
    pub gap: Option<Gap>,
    /// True when the scan took too long: what comes after `found.position` was not looked at.
    pub cut_short: bool,
}
