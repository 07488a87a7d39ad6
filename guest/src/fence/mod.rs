//! The fence around the network of one sandbox: the addresses that no packet may leave it for.
//!
//! The launcher of an embedded sandbox, or a short-lived container beside a Docker sandbox, sets the nftables rules in the sandbox's network
//! namespace. Commands in the sandbox lack the capability to change them. Routes are not enough: a socket bound to a device bypasses them.

mod netlink;
mod rules;

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use rustix::io::Errno;

/// Refused in every sandbox: this network, private networks, carrier-grade NAT, link-local including cloud metadata services, protocol
/// assignments, benchmark networks, multicast, and the reserved range with the broadcast address.
const REFUSED: [&str; 16] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
    // The local NAT64 prefix, unique local, link-local, site-local and multicast addresses; then IPv4-mapped IPv6 addresses.
    "64:ff9b:1::/48",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
    "::ffff:0:0/96",
];
/// The most name servers that are used; the same limit as in the C library.
const NAME_SERVERS: usize = 3;

/// A range of addresses with a common prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first address of the range.
    pub address: IpAddr,
    /// The length of the common prefix in bits.
    pub bits: u8,
}

impl Range {
    /// The range that holds only this address.
    pub fn one(address: IpAddr) -> Self {
        Self { address, bits: if address.is_ipv4() { 32 } else { 128 } }
    }
}

impl FromStr for Range {
    type Err = io::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || io::Error::new(io::ErrorKind::InvalidInput, format!("invalid address range {text:?}"));
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let one = Self::one(address.parse().map_err(|_| wrong())?);
        let bits = bits.map_or(Ok(one.bits), str::parse).map_err(|_| wrong())?;
        if bits <= one.bits { Ok(Self { bits, ..one }) } else { Err(wrong()) }
    }
}

/// What a sandbox may and may not reach.
#[derive(Debug, Default)]
pub struct Fence {
    /// Ranges that may be reached even if they are refused below or by default.
    pub allowed: Vec<Range>,
    /// Ranges that are refused in addition to the default ones.
    pub refused: Vec<Range>,
    /// Name servers that may be reached on port 53 even if their address is refused.
    pub resolvers: Vec<IpAddr>,
}

impl Fence {
    /// Reads `allow=RANGE` and `refuse=RANGE`.
    ///
    /// # Errors
    /// For any other argument.
    pub fn parse(words: &[&str]) -> io::Result<Self> {
        let mut fence = Self::default();
        for word in words {
            match word.split_once('=') {
                Some(("allow", range)) => fence.allowed.push(range.parse()?),
                Some(("refuse", range)) => fence.refused.push(range.parse()?),
                _ => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidInput,
                        format!("unknown argument of fence: {word:?}"),
                    ));
                }
            }
        }
        Ok(fence)
    }

    /// Installs the fence, replacing an existing one. The kernel applies all of it or nothing.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn put_up(&self) -> io::Result<()> {
        let usual = REFUSED.iter().map(|range| range.parse()).collect::<io::Result<Vec<Range>>>()?;
        let refused = [&self.refused[..], &usual].concat();
        match rules::compose(self, &refused, rules::Manner::Refuse).send() {
            // This kernel lacks the reject expression, so packets are dropped instead: a refused connection runs into its timeout.
            Err(error) if is_not_known(&error) => rules::compose(self, &refused, rules::Manner::Drop).send(),
            other => other,
        }
    }
}

/// Installs the fence of a container from inside its network, and also refuses the networks the container itself is on. Reports success to
/// the server on stdout.
///
/// # Errors
/// As for [`Fence::parse`] and [`Fence::put_up`].
pub fn run(words: &[&str]) -> io::Result<()> {
    let mut fence = Fence::parse(words)?;
    fence.refused.extend(neighbours(&fs::read_to_string("/proc/net/route").unwrap_or_default()));
    fence.resolvers = resolvers(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
    fence.put_up()?;
    println!("fenced");
    Ok(())
}

/// Every address of this machine that this network namespace shows.
pub fn own_addresses() -> Vec<Range> {
    let old = fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let new = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    own_v4(&old).into_iter().chain(own_v6(&new)).map(Range::one).collect()
}

fn own_v4(text: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    let mut last = None;
    for line in text.lines() {
        match line.trim().strip_prefix("|-- ") {
            Some(address) => last = address.parse::<Ipv4Addr>().ok(),
            None if line.ends_with("/32 host LOCAL") => found.extend(last.map(IpAddr::from)),
            None => {}
        }
    }
    found.sort_unstable();
    found.dedup();
    found.retain(|address| !address.is_loopback());
    found
}

fn own_v6(text: &str) -> Vec<IpAddr> {
    let hex = text.lines().filter_map(|line| u128::from_str_radix(line.split_whitespace().next()?, 16).ok());
    hex.map(|number| IpAddr::from(Ipv6Addr::from(number))).filter(|address| !address.is_loopback()).collect()
}

/// The ranges that are reached without a gateway, and the gateways themselves.
fn neighbours(routes: &str) -> Vec<Range> {
    let mut found = Vec::new();
    for line in routes.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| Some(u32::from_str_radix(fields.get(at)?, 16).ok()?.swap_bytes());
        let (Some(destination), Some(gateway), Some(mask)) = (number(1), number(2), number(7)) else { continue };
        if gateway != 0 {
            found.push(Range::one(Ipv4Addr::from(gateway).into()));
        } else if mask != 0 {
            let bits = u8::try_from(mask.leading_ones()).unwrap_or(32);
            found.push(Range { address: Ipv4Addr::from(destination).into(), bits });
        }
    }
    found
}

fn resolvers(text: &str) -> Vec<IpAddr> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    lines.filter_map(|address| address.trim().parse().ok()).take(NAME_SERVERS).collect()
}

fn is_not_known(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::OPNOTSUPP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_or_refused() {
        let range = |text: &str| text.parse::<Range>().ok();
        assert_eq!(range("10.0.0.0/8").map(|range| range.bits), Some(8));
        assert_eq!(range("192.0.2.1").map(|range| range.bits), Some(32));
        assert_eq!(range("fd00::/7").map(|range| range.bits), Some(7));
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/", "x/8", "10.0.0.0/-1"] {
            assert_eq!(range(wrong), None, "{wrong:?}");
        }
        assert!(REFUSED.iter().all(|text| range(text).is_some()));
    }

    #[test]
    fn neighbours_and_gateways_are_read() {
        let routes = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\nshort\n";
        let expected = ["172.17.0.1", "172.17.0.0/16"].map(|text| text.parse::<Range>().expect("a range"));
        assert_eq!(neighbours(routes), expected);
    }

    #[test]
    fn own_addresses_are_read() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     |-- 127.0.0.1\n        \
            /32 host LOCAL\n     |-- 192.0.2.2\n        /32 host LOCAL\n     |-- 192.0.2.255\n        /32 link BROADCAST\n";
        assert_eq!(own_v4(trie), [IpAddr::from([192, 0, 2, 2])]);
        let new =
            "00000000000000000000000000000001 01 80 10 80 lo\nfd000000000000000000000000000002 04 40 00 80 eth0\n";
        assert_eq!(own_v6(new), ["fd00::2".parse::<IpAddr>().expect("an address")]);
        assert_eq!(resolvers("# x\nnameserver 10.0.0.53\nnameserver nonsense\n"), [IpAddr::from([10, 0, 0, 53])]);
    }
}
