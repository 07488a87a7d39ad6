//! Messages between a bridge process and a shim: splitting the bytes differently decodes the same messages, and decoded messages can be
//! encoded again.

#![no_main]

use errand_proto::{
    bridge::{ShimOrder, ShimReport},
    frame::{Decoder, encode},
};
use libfuzzer_sys::fuzz_target;

/// All messages, and whether what comes after them is no message.
#[derive(Debug, PartialEq)]
struct Decoded<M> {
    messages: Vec<M>,
    broken: bool,
}

fn decode<'a, M: Message>(pieces: impl Iterator<Item = &'a [u8]>) -> Decoded<M> {
    let mut decoder = Decoder::default();
    let mut messages = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        loop {
            match M::next(&mut decoder) {
                Some(Some(message)) => messages.push(message),
                Some(None) => break,
                None => return Decoded { messages, broken: true },
            }
        }
    }
    Decoded { messages, broken: false }
}

/// A message in either direction.
trait Message: Sized + PartialEq + std::fmt::Debug {
    /// The next one, if it is whole; none at all when there is no way on.
    fn next(decoder: &mut Decoder) -> Option<Option<Self>>;
    fn frame(&self) -> Vec<u8>;
}

macro_rules! message {
    ($type:ty) => {
        impl Message for $type {
            fn next(decoder: &mut Decoder) -> Option<Option<Self>> {
                decoder.message().ok()
            }
            fn frame(&self) -> Vec<u8> {
                encode(self)
            }
        }
    };
}

message!(ShimOrder);
message!(ShimReport);

fn check<M: Message>(bytes: &[u8], cuts: &[u8]) {
    let whole = decode::<M>(std::iter::once(bytes));
    let mut rest = bytes;
    let mut cuts = cuts.iter().cycle();
    let pieces = std::iter::from_fn(|| {
        let size = cuts.next().map_or(1, |cut| usize::from(*cut).max(1)).min(rest.len());
        let (piece, after) = rest.split_at_checked(size).filter(|(piece, _)| !piece.is_empty())?;
        rest = after;
        Some(piece)
    });
    assert_eq!(decode::<M>(pieces), whole);
    let again: Vec<u8> = whole.messages.iter().flat_map(M::frame).collect();
    assert_eq!(decode::<M>(std::iter::once(&again[..])), Decoded { messages: whole.messages, broken: false });
}

fuzz_target!(|input: (&[u8], Vec<u8>)| {
    let (bytes, cuts) = input;
    check::<ShimOrder>(bytes, &cuts);
    check::<ShimReport>(bytes, &cuts);
});
