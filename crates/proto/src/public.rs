//! The public protocol, package `errand.v1`.

use std::borrow::Cow;

/// Package `errand.v1`.
#[allow(missing_docs, clippy::all, reason = "generated code; the comments are in proto/")]
pub mod v1 {
    tonic::include_proto!("errand.v1");
}

/// The most bytes of output in one LZ4 block, uncompressed.
const LZ4_LIMIT: usize = 1024 * 1024;

/// An output part whose content does not match its offsets.
#[derive(Debug, thiserror::Error)]
#[error("malformed output at offset {offset}: decompression failed")]
pub struct Malformed {
    /// Position of its first byte in all output.
    pub offset: i64,
}

impl v1::OutputPart {
    /// The bytes of this part, decompressed if necessary. For text: its UTF-8 bytes.
    ///
    /// # Errors
    /// [`Malformed`] when the content is not an LZ4 block of the size that the offsets announce.
    pub fn bytes(&self) -> Result<Cow<'_, [u8]>, Malformed> {
        use v1::output_part::Content;
        match &self.content {
            None => Ok(Cow::Borrowed(&[])),
            Some(Content::Data(data)) => Ok(Cow::Borrowed(data)),
            Some(Content::Text(text)) => Ok(Cow::Borrowed(text.as_bytes())),
            Some(Content::Lz4(block)) => {
                let size = usize::try_from(self.next_offset - self.offset).ok().filter(|size| *size <= LZ4_LIMIT);
                let bytes =
                    size.and_then(|size| lz4_flex::block::decompress(block, size).ok().filter(|b| b.len() == size));
                bytes.map(Cow::Owned).ok_or(Malformed { offset: self.offset })
            }
        }
    }
}

/// The encoded `FileDescriptorSet` of `errand.v1` and all it imports, with comments.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/errand.v1.binpb"));

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::v1::{OutputPart, output_part::Content};

    #[test]
    fn every_encoding_yields_the_same_bytes() {
        let lines = b"one of many lines\n".repeat(100);
        let size = i64::try_from(lines.len()).unwrap();
        let part = |content, next_offset| OutputPart { offset: 7, content: Some(content), next_offset, stream: 0 };
        let packed = || Content::Lz4(lz4_flex::block::compress(&lines).into());
        let as_text = Content::Text(String::from_utf8(lines.clone()).unwrap());
        for content in [Content::Data(lines.clone().into()), as_text, packed()] {
            assert_eq!(part(content, 7 + size).bytes().unwrap(), lines);
        }
        for next_offset in [7 + size - 1, 7 + size + 1, 6, i64::MAX] {
            assert_eq!(part(packed(), next_offset).bytes().unwrap_err().offset, 7, "{next_offset}");
        }
        assert!(part(Content::Lz4("nonsense".into()), 7 + size).bytes().is_err());
    }
}
