//! Sizes and durations as people say them.

use std::time::Duration;

/// A size with at most one decimal: `512 bytes`, `1.5 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let Some((shift, unit)) = UNITS.into_iter().find(|(shift, _)| bytes >> shift > 0) else {
        return if bytes == 1 { "1 byte".to_owned() } else { format!("{bytes} bytes") };
    };
    // Tenths, rounded down, so that nothing is said to be larger than it is.
    let tenths = (u128::from(bytes) * 10) >> shift;
    match (tenths / 10, tenths % 10) {
        (whole, 0) => format!("{whole} {unit}"),
        (whole, tenth) => format!("{whole}.{tenth} {unit}"),
    }
}

/// A duration in its two largest units: `2 min 3 s`; below 10 s with a decimal, below 1 s in milliseconds.
pub fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let tenths = duration.subsec_millis() / 100;
    let two = |whole: u64, unit: &str, rest: u64, smaller: &str| match rest {
        0 => format!("{whole} {unit}"),
        rest => format!("{whole} {unit} {rest} {smaller}"),
    };
    match seconds {
        0 if duration.is_zero() => "0 s".to_owned(),
        0 => format!("{} ms", duration.subsec_millis().max(1)),
        1..10 if tenths > 0 => format!("{seconds}.{tenths} s"),
        1..60 => format!("{seconds} s"),
        60..3600 => two(seconds / 60, "min", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds % 3600 / 60, "min"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit_and_one_decimal() {
        let sizes = [
            (0, "0 bytes"),
            (1, "1 byte"),
            (1023, "1023 bytes"),
            (1024, "1 KiB"),
            (1_572_864, "1.5 MiB"),
            ((1 << 30) - 1, "1023.9 MiB"),
            (3 << 29, "1.5 GiB"),
            (u64::MAX, "16777215.9 TiB"),
        ];
        for (bytes, said) in sizes {
            assert_eq!(size(bytes), said);
        }
    }

    #[test]
    fn durations_have_their_two_largest_units() {
        let spans = [
            (0, "0 s"),
            (120, "120 ms"),
            (1_000, "1 s"),
            (1_549, "1.5 s"),
            (42_900, "42 s"),
            (60_000, "1 min"),
            (123_000, "2 min 3 s"),
            (3_600_000, "1 h"),
            (3_725_000, "1 h 2 min"),
            (183_600_000, "2 d 3 h"),
        ];
        for (millis, said) in spans {
            assert_eq!(span(Duration::from_millis(millis)), said);
        }
        assert_eq!(span(Duration::from_nanos(1)), "1 ms");
        assert_eq!(span(Duration::MAX), "213503982334601 d 7 h");
    }
}
