//! The fence as nftables rules: each outgoing packet is checked against the rules in order, and then refused or let through.

use std::net::IpAddr;

use super::{
    Fence, Range,
    netlink::{Batch, attribute, nested, number, text},
};

const TABLE: &str = "errand";
const OUTPUT: &str = "output";
const REFUSED: &str = "refused";

// See linux/netfilter/nf_tables.h. Messages and their flags.
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
// Registers, verdicts, comparisons.
const VERDICT: u32 = 0;
const REGISTER: u32 = 1;
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
const JUMP: u32 = (-3i32).cast_unsigned();
const EQUAL: u32 = 0;
const AT_MOST: u32 = 3;
const AT_LEAST: u32 = 5;
// Offsets and keys of what the rules compare.
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
const META_DEVICE: u32 = 5;
const META_PROTOCOL: u32 = 16;
// The hook: packets sent by processes of this network namespace.
const HOOK: u32 = 3;
const PRIORITY: u32 = 0;
/// The loopback interface has index 1 in every network namespace.
const LOOPBACK: u32 = 1;
const TCP: u8 = 6;
const ICMP6: u8 = 58;
/// ICMPv6 types from router solicitation to multicast listener reports: neighbour discovery needs them.
const NEIGHBOURS: [u8; 2] = [133, 143];
const NAMES: u16 = 53;
// Constants of the `reject` expression.
const BY_ICMP: u32 = 0;
const BY_RESET: u32 = 1;

/// How a packet is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// The sender gets an error at once.
    Refuse,
    /// The sender gets no answer.
    Drop,
}

/// An address family.
struct Family {
    number: u8,
    /// The offset of the destination address in the packet.
    destination: u32,
    /// The ICMP code for administratively prohibited.
    forbidden: u8,
}

const FOUR: Family = Family { number: 2, destination: 16, forbidden: 13 };
const SIX: Family = Family { number: 10, destination: 24, forbidden: 1 };

/// Composes all messages of a fence.
pub(super) fn compose(fence: &Fence, refused: &[Range], manner: Manner) -> Batch {
    let mut batch = Batch::new();
    for family in [FOUR, SIX] {
        let is_of = |address: &IpAddr| address.is_ipv4() == (family.number == FOUR.number);
        let of = |ranges: &[Range]| ranges.iter().copied().filter(|range| is_of(&range.address)).collect::<Vec<_>>();
        let table = [text(1, TABLE)];
        // Deletes an existing table. Deleting a table that does not exist is an error, so the table is created first.
        batch.add(NEW_TABLE, CREATE, family.number, &table);
        batch.add(DELETE_TABLE, 0, family.number, &table);
        batch.add(NEW_TABLE, CREATE, family.number, &table);
        chain(&mut batch, &family, REFUSED, &[]);
        let hook = nested(4, &[number(1, HOOK), number(2, PRIORITY)]);
        chain(&mut batch, &family, OUTPUT, &[hook, number(5, ACCEPT), text(7, "filter")]);
        let mut rule = |chain: &str, parts: &[Vec<Vec<u8>>]| {
            let parts = nested(4, &parts.concat());
            batch.add(NEW_RULE, CREATE | APPEND, family.number, &[text(1, TABLE), text(2, chain), parts]);
        };
        if manner == Manner::Refuse {
            let reset = expression("reject", &[number(1, BY_RESET), attribute(2, &[0])]);
            rule(REFUSED, &[protocol(TCP), vec![reset]]);
            let forbidden = expression("reject", &[number(1, BY_ICMP), attribute(2, &[family.forbidden])]);
            rule(REFUSED, &[vec![forbidden]]);
        }
        rule(REFUSED, &[verdict(DROP, None)]);

        let device = expression("meta", &[number(1, REGISTER), number(2, META_DEVICE)]);
        rule(OUTPUT, &[vec![device, compare(EQUAL, &LOOPBACK.to_ne_bytes())], verdict(ACCEPT, None)]);
        if family.number == SIX.number {
            let [first, last] = NEIGHBOURS;
            let kind = vec![payload(TRANSPORT, 0, 1), compare(AT_LEAST, &[first]), compare(AT_MOST, &[last])];
            rule(OUTPUT, &[protocol(ICMP6), kind, verdict(ACCEPT, None)]);
        }
        for range in of(&fence.allowed) {
            rule(OUTPUT, &[to(&family, range), verdict(ACCEPT, None)]);
        }
        for resolver in fence.resolvers.iter().filter(|address| is_of(address)) {
            let port = vec![payload(TRANSPORT, 2, 2), compare(EQUAL, &NAMES.to_be_bytes())];
            rule(OUTPUT, &[to(&family, Range::one(*resolver)), port, verdict(ACCEPT, None)]);
        }
        for range in of(refused) {
            rule(OUTPUT, &[to(&family, range), verdict(JUMP, Some(REFUSED))]);
        }
    }
    batch
}

fn chain(batch: &mut Batch, family: &Family, name: &str, more: &[Vec<u8>]) {
    let named = [text(1, TABLE), text(3, name)];
    batch.add(NEW_CHAIN, CREATE, family.number, &[&named, more].concat());
}

fn expression(name: &str, parts: &[Vec<u8>]) -> Vec<u8> {
    nested(1, &[text(1, name), nested(2, parts)])
}

fn payload(base: u32, offset: u32, size: u32) -> Vec<u8> {
    expression("payload", &[number(1, REGISTER), number(2, base), number(3, offset), number(4, size)])
}

fn compare(how: u32, value: &[u8]) -> Vec<u8> {
    expression("cmp", &[number(1, REGISTER), number(2, how), nested(3, &[attribute(1, value)])])
}

fn protocol(wanted: u8) -> Vec<Vec<u8>> {
    vec![expression("meta", &[number(1, REGISTER), number(2, META_PROTOCOL)]), compare(EQUAL, &[wanted])]
}

fn verdict(code: u32, chain: Option<&str>) -> Vec<Vec<u8>> {
    let said: Vec<Vec<u8>> = [number(1, code)].into_iter().chain(chain.map(|chain| text(2, chain))).collect();
    vec![expression("immediate", &[number(1, VERDICT), nested(2, &[nested(2, &said)])])]
}

/// Matches packets to addresses of this range.
fn to(family: &Family, range: Range) -> Vec<Vec<u8>> {
    let address = match range.address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let mask: Vec<u8> = (0..address.len()).map(|at| mask(range.bits, at)).collect();
    let first: Vec<u8> = address.iter().zip(&mask).map(|(byte, mask)| byte & mask).collect();
    let size = u32::try_from(address.len()).unwrap_or_default();
    let nothing = vec![0; address.len()];
    let data = |kind: u16, bytes: &[u8]| nested(kind, &[attribute(1, bytes)]);
    let masked = expression(
        "bitwise",
        &[number(1, REGISTER), number(2, REGISTER), number(3, size), data(4, &mask), data(5, &nothing)],
    );
    vec![payload(NETWORK, family.destination, size), masked, compare(EQUAL, &first)]
}

/// The byte at index `at` of a mask of this many bits.
fn mask(bits: u8, at: usize) -> u8 {
    let ones = usize::from(bits).saturating_sub(at * 8).min(8);
    u8::try_from(0xff00_u16 >> ones & 0xff).unwrap_or(0xff)
}

#[cfg(test)]
mod tests {
    use super::mask;

    #[test]
    fn mask_covers_the_given_number_of_bits() {
        let bytes = |bits: u8| [0, 1, 2, 3].map(|at| mask(bits, at));
        assert_eq!(bytes(0), [0, 0, 0, 0]);
        assert_eq!(bytes(8), [255, 0, 0, 0]);
        assert_eq!(bytes(12), [255, 240, 0, 0]);
        assert_eq!(bytes(31), [255, 255, 255, 254]);
        assert_eq!(bytes(32), [255, 255, 255, 255]);
    }
}
