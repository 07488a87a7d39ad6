//! The TCP ports that listen in the sandbox, as `/proc/net` shows them. No packet is sent.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, BufRead as _, BufReader},
    time::{Duration, Instant},
};

/// How often the sockets are read while a difference is awaited. The kernel has no event for a socket that begins to listen.
const INTERVAL: Duration = Duration::from_millis(100);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(60);
/// The most ports that are returned, the lowest first.
const LIMIT: usize = 4096;
/// The most lines of a table that are read.
const LINES: usize = 65_536;

/// The listening ports, once they differ from `known` or the wait is over; at once if nothing is known.
///
/// # Errors
/// When the sandbox does not show its sockets.
pub(super) async fn differing(known: Option<Vec<u32>>, wait: Duration) -> io::Result<Vec<u32>> {
    let end = Instant::now() + wait.min(LONGEST);
    loop {
        let found = listening()?;
        if known.as_ref() != Some(&found) || Instant::now() >= end {
            return Ok(found);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// The listening ports in ascending order.
fn listening() -> io::Result<Vec<u32>> {
    let mut ports = BTreeSet::new();
    let ipv4 = read("/proc/net/tcp", &mut ports);
    // Not there when the kernel has no IPv6.
    let ipv6 = read("/proc/net/tcp6", &mut ports);
    ipv4.or(ipv6)?;
    Ok(ports.into_iter().take(LIMIT).collect())
}

/// Adds the listening ports of one table. The kernel lists listening sockets first, so the rest of a long table is never read.
fn read(table: &str, ports: &mut BTreeSet<u32>) -> io::Result<()> {
    for line in BufReader::with_capacity(4096, fs::File::open(table)?).lines().skip(1).take(LINES) {
        match parse(&line?) {
            Some(port) => ports.insert(port),
            None => break,
        };
    }
    Ok(())
}

/// The port of a listening socket; none for any other line.
fn parse(line: &str) -> Option<u32> {
    let mut fields = line.split_ascii_whitespace();
    let (_, port) = fields.nth(1)?.rsplit_once(':')?;
    (fields.nth(1)? == "0A").then_some(u32::from_str_radix(port, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn only_listening_sockets_have_a_port() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1";
        assert_eq!(parse(line), Some(8080));
        let ipv6 =
            "   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 1";
        assert_eq!(parse(ipv6), Some(80));
        assert_eq!(parse(&line.replace(" 0A ", " 01 ")), None);
        assert_eq!(parse("  sl  local_address rem_address   st tx_queue rx_queue"), None);
        assert_eq!(parse(""), None);
    }

    #[tokio::test]
    async fn new_listener_ends_the_wait() {
        let before = differing(None, Duration::from_secs(60)).await.expect("the sockets are shown");
        let waiting = tokio::spawn(differing(Some(before), Duration::from_secs(60)));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = u32::from(listener.local_addr().expect("an address").port());
        // Another program may have begun to listen first.
        let mut found = waiting.await.expect("no panic").expect("the sockets are shown");
        while !found.contains(&port) {
            found = differing(Some(found), Duration::from_secs(60)).await.expect("the sockets are shown");
        }
    }
}
