//! Messages on a byte stream, between a bridge and a shim and between the server and an init: the size in four bytes, the lowest first, then
//! the message.

use prost::Message;

/// The largest message. A launch carries a command of 1 MiB and an environment.
pub const LIMIT: usize = 4 * 1024 * 1024;
/// The bytes before a message.
pub const HEAD: usize = 4;

/// Bytes that are not a message.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Larger than it may be.
    #[error("a message of {size} bytes, more than {limit}")]
    TooLarge {
        /// Its size.
        size: usize,
        /// What it may have.
        limit: usize,
    },
    /// Not one that is known.
    #[error("a message that cannot be decoded")]
    Malformed(#[from] prost::DecodeError),
}

/// A message as it travels.
pub fn encode(message: &impl Message) -> Vec<u8> {
    let size = message.encoded_len();
    let mut frame = Vec::with_capacity(HEAD + size);
    frame.extend_from_slice(&u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes());
    // A vector has room for everything.
    let _ = message.encode(&mut frame);
    frame
}

/// The size of the message that a head announces, at most `limit`.
///
/// # Errors
/// [`FrameError::TooLarge`].
pub fn size(head: [u8; HEAD], limit: usize) -> Result<usize, FrameError> {
    let size = usize::try_from(u32::from_le_bytes(head)).unwrap_or(usize::MAX);
    if size > limit { Err(FrameError::TooLarge { size, limit }) } else { Ok(size) }
}

/// Puts together what arrives in pieces.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
}

impl Decoder {
    /// Adds what has arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message.
    ///
    /// # Errors
    /// When what arrived is no message. Nothing after it can be understood.
    pub fn message<M: Message + Default>(&mut self) -> Result<Option<M>, FrameError> {
        let Some(head) = self.bytes.first_chunk::<HEAD>() else { return Ok(None) };
        let size = size(*head, LIMIT)?;
        let Some(body) = self.bytes.get(HEAD..HEAD + size) else { return Ok(None) };
        let message = M::decode(body)?;
        self.bytes.drain(..HEAD + size);
        if self.bytes.is_empty() {
            // One large message must not be paid for as long as the task runs.
            self.bytes = Vec::new();
        }
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bridge::{ShimOrder, WriteInputRequest, shim_order::Kind};

    fn order(data: Vec<u8>) -> ShimOrder {
        let input =
            WriteInputRequest { task_id: "t".to_owned(), offset: Some(1), data: data.into(), end: true, wait_ms: 7 };
        ShimOrder { kind: Some(Kind::Input(input)) }
    }

    proptest! {
        #[test]
        fn messages_survive_any_split(data in prop::collection::vec(any::<u8>(), 0..300), cut in 1usize..50) {
            let sent = [order(data), order(vec![])];
            let bytes: Vec<u8> = sent.iter().flat_map(encode).collect();
            let mut decoder = Decoder::default();
            let mut arrived = Vec::new();
            for piece in bytes.chunks(cut) {
                decoder.push(piece);
                while let Some(message) = decoder.message::<ShimOrder>().expect("a message") {
                    arrived.push(message);
                }
            }
            prop_assert_eq!(arrived, sent);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.message::<ShimOrder>() {}
        }
    }

    #[test]
    fn impossible_size_is_refused_at_once() {
        let mut decoder = Decoder::default();
        decoder.push(&u32::MAX.to_le_bytes());
        assert!(matches!(decoder.message::<ShimOrder>(), Err(FrameError::TooLarge { .. })));
    }
}
