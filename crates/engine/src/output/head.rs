//! The first bytes of the output, for notifications that show them.

use errand_bridge::OutputPiece;

/// The beginning of the output, as far as it was kept.
#[derive(Default)]
pub(super) struct Head {
    limit: usize,
    bytes: Vec<u8>,
}

impl Head {
    /// Keeps at most this many bytes from now on. `beginning` is what is still known otherwise.
    pub(super) fn keep(&mut self, limit: usize, beginning: Option<Vec<u8>>) {
        self.limit = limit;
        if let Some(beginning) = beginning.filter(|beginning| beginning.len() > self.bytes.len()) {
            self.bytes = beginning;
        }
        self.bytes.truncate(limit);
        self.bytes.shrink_to_fit();
    }

    /// Takes in output. Bytes behind a gap are not the beginning.
    pub(super) fn append(&mut self, piece: &OutputPiece) {
        if piece.offset == self.bytes.len() as u64 {
            let room = self.limit.saturating_sub(self.bytes.len());
            self.bytes.extend_from_slice(&piece.bytes[..room.min(piece.bytes.len())]);
        }
    }

    /// The first bytes; none when they were not all kept.
    pub(super) fn first(&self, wanted: usize) -> Option<&[u8]> {
        self.bytes.get(..wanted)
    }
}
