//! Parses the text of a setting into its value. If a text breaks the rule, each function returns the rule itself: a noun phrase that
//! completes "this is not …".

use std::{
    fmt::Display,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use tracing_subscriber::EnvFilter;

use errand_task::{Patterns, byte_size};

/// A value, or the rule that the text breaks.
pub(super) type Parsed<T> = Result<T, String>;

/// The shortest allowed duration where 0 would make no sense.
pub(super) const SHORTEST: Duration = Duration::from_millis(1);
/// The longest duration of any setting. Far beyond it, adding one to a time would overflow.
pub(super) const LONGEST: Duration = Duration::from_hours(24 * 365);

/// IP address and port.
pub(super) fn socket_addr(text: &str) -> Parsed<SocketAddr> {
    text.parse().map_err(|_| "an IP address and port, such as 127.0.0.1:7543".to_owned())
}

/// A path on this machine.
pub(super) fn path(text: &str) -> Parsed<PathBuf> {
    Ok(PathBuf::from(word(text, "a path")?))
}

/// Any text that is not empty and has no surrounding white space.
pub(super) fn word(text: &str, rule: &str) -> Parsed<String> {
    if text.is_empty() || text.trim() != text || text.contains(char::is_control) {
        return Err(rule.to_owned());
    }
    Ok(text.to_owned())
}

/// One of a few names.
pub(super) fn one_of<T: Copy>(text: &str, choices: &[(&str, T)]) -> Parsed<T> {
    choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        names.join(" or ")
    })
}

/// `true` or `false`.
pub(super) fn switch(text: &str) -> Parsed<bool> {
    one_of(text, &[("true", true), ("false", false)])
}

/// A whole number within limits.
pub(super) fn whole<T: FromStr + PartialOrd + Display>(text: &str, limits: RangeInclusive<T>) -> Parsed<T> {
    let number = text.parse().ok().filter(|number| limits.contains(number));
    number.ok_or_else(|| format!("a whole number from {} to {}", limits.start(), limits.end()))
}

/// A number of CPU cores.
pub(super) fn cores(text: &str) -> Parsed<f64> {
    let number = text.parse().ok().filter(|number| (0.01..=1024.0).contains(number));
    number.ok_or_else(|| "a number of cores from 0.01 to 1024".to_owned())
}

/// A duration with its unit, within limits.
pub(super) fn duration(text: &str, limits: RangeInclusive<Duration>) -> Parsed<Duration> {
    let duration = humantime::parse_duration(text).ok().filter(|duration| limits.contains(duration));
    duration.ok_or_else(|| {
        let (shortest, longest) = limits.into_inner();
        let [shortest, longest] = [shortest, longest].map(short_duration);
        format!("a duration from {shortest} to {longest} with its unit, such as 30s")
    })
}

/// A duration of at least [`SHORTEST`].
pub(super) fn some_duration(text: &str) -> Parsed<Duration> {
    duration(text, SHORTEST..=LONGEST)
}

/// A duration in its largest whole unit: `365d` rather than `1year 18h`.
pub(super) fn short_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")].into_iter().find(|(unit, _)| seconds.is_multiple_of(*unit))
    {
        Some((unit, name)) if seconds > 0 && duration.subsec_nanos() == 0 => format!("{}{name}", seconds / unit),
        _ => humantime::format_duration(duration).to_string(),
    }
}

/// A number of bytes, or of KiB, MiB, GiB or TiB, of memory.
pub(crate) fn memory(text: &str) -> Parsed<i64> {
    const LEAST: i64 = 6 << 20;
    let bytes = byte_size(text).and_then(|bytes| i64::try_from(bytes).ok()).filter(|bytes| *bytes >= LEAST);
    bytes.ok_or_else(|| "a size such as 512MiB, 2GiB or a plain number of bytes, at least 6MiB".to_owned())
}

/// A size of retained output, in bytes.
pub(super) fn retained(text: &str) -> Parsed<usize> {
    const MOST: usize = 16 << 20;
    let bytes = byte_size(text).and_then(|bytes| usize::try_from(bytes).ok()).filter(|bytes| *bytes <= MOST);
    bytes.ok_or_else(|| "a size such as 1MiB or a plain number of bytes, at most 16MiB".to_owned())
}

/// A size of a sandbox's disk, in bytes.
pub(super) fn disk(text: &str) -> Parsed<u64> {
    const LEAST: u64 = 64 << 20;
    let bytes = byte_size(text).filter(|bytes| *bytes >= LEAST && i64::try_from(*bytes).is_ok());
    bytes.ok_or_else(|| "a size such as 10GiB or a plain number of bytes, at least 64MiB".to_owned())
}

/// Names that are allowed, separated by commas.
pub(super) fn patterns(text: &str) -> Parsed<Patterns> {
    Patterns::parse(text).ok_or_else(|| "a list of names separated by commas; * matches any text".to_owned())
}

/// Patterns of secrets, one a line.
pub(super) fn mask_patterns(text: &str) -> Parsed<Vec<String>> {
    let mut patterns = Vec::new();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match lines[..] {
        [] => return Err("a list of regular expressions, one a line, or `none`".to_owned()),
        ["none"] => return Ok(patterns),
        _ => {}
    }
    for line in lines {
        match line {
            "default" => patterns.extend(errand_masks::Patterns::known().map(str::to_owned)),
            pattern => patterns.push(pattern.to_owned()),
        }
    }
    match errand_masks::Patterns::new(patterns.iter().map(String::as_str)) {
        Ok(_) => Ok(patterns),
        Err(error) => Err(format!("a list of regular expressions, one a line: {error}")),
    }
}

/// A network that a sandbox may be on.
pub(super) fn network(text: &str) -> Parsed<String> {
    let rule = "`bridge`, `none` or the name of a network; `host` and `container:…` are refused";
    if text == "host" || text.starts_with("container:") {
        return Err(rule.to_owned());
    }
    word(text, rule)
}

/// Address ranges, separated by commas.
pub(super) fn ranges(text: &str) -> Parsed<Vec<String>> {
    let one = |text: &str| {
        let (address, bits) = text.split_once('/')?;
        let most = if address.parse::<IpAddr>().ok()?.is_ipv4() { 32 } else { 128 };
        bits.parse().is_ok_and(|bits: u8| bits <= most).then(|| text.to_owned())
    };
    let ranges: Option<Vec<String>> = text.split(',').map(|text| one(text.trim())).collect();
    ranges.ok_or_else(|| "address ranges separated by commas, such as 10.1.0.0/16,192.168.7.4/32".to_owned())
}

/// An absolute path in the sandbox, returned without its trailing slashes.
pub(super) fn sandbox_path(text: &str) -> Parsed<String> {
    let rule = "an absolute path in the sandbox other than /, without `..`";
    let path = word(text, rule)?;
    let path = path.trim_end_matches('/');
    if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err(rule.to_owned());
    }
    Ok(path.to_owned())
}

/// The address of a container engine.
pub(super) fn engine_address(text: &str) -> Parsed<String> {
    let rule = "the address of an engine, such as unix:///var/run/docker.sock";
    match word(text, rule)?.split_once("://") {
        Some((scheme, rest)) if !scheme.is_empty() && !rest.is_empty() => Ok(text.to_owned()),
        _ => Err(rule.to_owned()),
    }
}

/// A filter of log lines.
pub(super) fn log_filter(text: &str) -> Parsed<String> {
    let rule = "a log filter such as info or errand=debug,info";
    match EnvFilter::try_new(text) {
        Ok(_) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err(rule.to_owned()),
    }
}
