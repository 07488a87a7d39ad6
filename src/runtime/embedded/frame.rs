//! Messages as the init takes and gives them: the size in four bytes, the lowest first, then the message.

use std::io;

use prost::Message;

/// What comes before a message.
pub(super) const HEAD: usize = 4;
/// The largest answer, in bytes.
const LIMIT: usize = 4096;

/// A message as it travels.
pub(super) fn encode(message: &impl Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    [&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes()[..], &body].concat()
}

/// The size of the message that a head announces.
pub(super) fn size(head: [u8; HEAD]) -> io::Result<usize> {
    let size = usize::try_from(u32::from_le_bytes(head)).unwrap_or(usize::MAX);
    if size > LIMIT { Err(io::Error::other(format!("an answer of {size} bytes"))) } else { Ok(size) }
}

/// The message.
pub(super) fn decode<M: Message + Default>(body: &[u8]) -> io::Result<M> {
    M::decode(body).map_err(io::Error::other)
}
