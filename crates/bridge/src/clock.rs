//! Converts times that a sandbox reports.

use std::time::{Duration, SystemTime};

/// The time `since_boot` after the kernel started, where `boot` is the kernel's start since 1970. The sandbox may lie: a time in the
/// future, or one that cannot be represented, becomes the current time.
pub(super) fn moment(boot: Duration, since_boot: Duration) -> SystemTime {
    let now = SystemTime::now();
    let told = boot.checked_add(since_boot).and_then(|after| SystemTime::UNIX_EPOCH.checked_add(after));
    told.filter(|told| *told <= now).unwrap_or(now)
}

/// The time at which a clock that now shows `uptime` showed `since_boot`. Setting the wall clock changes neither.
pub(super) fn ago(uptime: Duration, since_boot: Duration) -> SystemTime {
    let now = SystemTime::now();
    now.checked_sub(uptime.saturating_sub(since_boot)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_is_measured_by_the_boot_clock() {
        let age = |uptime, since_boot| ago(uptime, since_boot).elapsed().expect("in the past");
        let second = Duration::from_secs(1);
        for (uptime, since_boot, wanted) in [
            (100 * second, 40 * second, 60 * second),
            (40 * second, 100 * second, Duration::ZERO),
            (Duration::MAX, Duration::ZERO, Duration::ZERO),
        ] {
            let age = age(uptime, since_boot);
            assert!(age >= wanted && age < wanted + second, "{age:?}");
        }
    }

    #[test]
    fn impossible_start_time_becomes_now() {
        let told = moment(Duration::from_secs(1000), Duration::from_millis(2500));
        assert_eq!(told, SystemTime::UNIX_EPOCH + Duration::from_millis(1_002_500));
        for boot in [u64::MAX, u64::MAX / 2, 1 << 60, 1 << 40] {
            let before = SystemTime::now();
            let told = moment(Duration::from_secs(boot), Duration::from_secs(5));
            assert!(before <= told && told <= SystemTime::now(), "{boot}");
        }
    }
}
