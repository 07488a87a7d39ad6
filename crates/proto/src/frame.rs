//! Length-prefixed messages on a byte stream, between a bridge process and a shim and between the server and an init. The length is a
//! little-endian `u32`.

use prost::Message;

/// The largest message, in bytes: a launch carries a command of 1 MiB and an environment.
pub const LIMIT: usize = 4 * 1024 * 1024;
/// Size of the length prefix, in bytes.
pub const HEAD: usize = 4;

/// Why received bytes are not a valid message.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The announced size exceeds the limit.
    #[error("message too large: {size} bytes, the limit is {limit}")]
    TooLarge {
        /// Announced size, in bytes.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The bytes do not decode as the expected message type.
    #[error("malformed message")]
    Malformed(#[from] prost::DecodeError),
}

/// Encodes a message with its length prefix.
pub fn encode(message: &impl Message) -> Vec<u8> {
    let size = message.encoded_len();
    let mut frame = Vec::with_capacity(HEAD + size);
    frame.extend_from_slice(&u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes());
    // Encoding into a vector cannot run out of room.
    let _ = message.encode(&mut frame);
    frame
}

/// The message size that a length prefix announces, at most `limit`.
///
/// # Errors
/// [`FrameError::TooLarge`].
pub fn size(head: [u8; HEAD], limit: usize) -> Result<usize, FrameError> {
    let size = usize::try_from(u32::from_le_bytes(head)).unwrap_or(usize::MAX);
    if size > limit { Err(FrameError::TooLarge { size, limit }) } else { Ok(size) }
}

/// Reassembles messages from chunks of any size.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
}

impl Decoder {
    /// Appends received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes the next complete message; `None` until all of its bytes have arrived.
    ///
    /// # Errors
    /// When the received bytes are not a valid message. The stream cannot be decoded from there on.
    pub fn message<M: Message + Default>(&mut self) -> Result<Option<M>, FrameError> {
        let Some(head) = self.bytes.first_chunk::<HEAD>() else { return Ok(None) };
        let size = size(*head, LIMIT)?;
        let Some(body) = self.bytes.get(HEAD..HEAD + size) else { return Ok(None) };
        let message = M::decode(body)?;
        self.bytes.drain(..HEAD + size);
        if self.bytes.is_empty() {
            // Release the memory of one large message: the connection lives as long as the task.
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
