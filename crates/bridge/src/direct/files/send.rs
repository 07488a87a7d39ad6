//! Sends the content of a file into a sandbox.

use bytes::BytesMut;
use futures_util::StreamExt as _;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::super::ANSWER_LIMIT;
use crate::{Abandoned, FileSource};

/// How many bytes of a file are sent at a time. Each frame costs a process in the sandbox, and the receiving tool holds the whole frame in
/// memory.
const FRAME: usize = 1024 * 1024;

/// Why a file was not sent completely.
pub(super) enum Unsent {
    Abandoned,
    /// The sandbox accepted nothing for [`ANSWER_LIMIT`].
    NotTaken,
    Broken(std::io::Error),
}

/// Waits for the sandbox to accept bytes.
async fn taken(writing: impl Future<Output = std::io::Result<()>>) -> Result<(), Unsent> {
    match tokio::time::timeout(ANSWER_LIMIT, writing).await {
        Ok(written) => written.map_err(Unsent::Broken),
        Err(_) => Err(Unsent::NotTaken),
    }
}

/// Sends a file's content in frames. Without a final `end`, the file is never created.
pub(super) async fn send(input: &mut (impl AsyncWrite + Unpin), mut content: FileSource) -> Result<(), Unsent> {
    let mut frame = BytesMut::new();
    loop {
        let piece = content.next().await.transpose().map_err(|Abandoned| Unsent::Abandoned)?;
        if let Some(piece) = &piece {
            frame.extend_from_slice(piece);
        }
        while frame.len() >= FRAME || (piece.is_none() && !frame.is_empty()) {
            let bytes = frame.split_to(frame.len().min(FRAME));
            let head = format!("{}\n", bytes.len());
            taken(input.write_all(head.as_bytes())).await?;
            taken(input.write_all(&bytes)).await?;
        }
        if piece.is_none() {
            taken(input.write_all(b"end\n")).await?;
            return taken(input.flush()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use bytes::Bytes;
    use futures_util::stream;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn upload_fails_when_the_sandbox_reads_nothing() {
        let (mut input, _untaken) = tokio::io::duplex(16);
        let source = stream::iter([Ok(Bytes::from(vec![b'x'; FRAME]))]);
        assert!(matches!(send(&mut input, Box::pin(source)).await, Err(Unsent::NotTaken)));
    }

    #[tokio::test]
    async fn upload_is_framed_and_ends_only_if_complete() {
        let pieces = || vec![Bytes::from(vec![b'x'; FRAME - 1]), Bytes::from_static(b"yz")];
        let mut whole = Vec::new();
        let source = stream::iter(pieces().into_iter().map(Ok));
        assert!(send(&mut whole, Box::pin(source)).await.is_ok());
        assert!(whole.starts_with(format!("{FRAME}\nxxx").as_bytes()) && whole.ends_with(b"y1\nzend\n"));
        let mut cut = Vec::new();
        let source = stream::iter(pieces().into_iter().map(Ok).chain([Err(Abandoned)]));
        assert!(matches!(send(&mut cut, Box::pin(source)).await, Err(Unsent::Abandoned)));
        assert!(!cut.ends_with(b"end\n"));
    }
}
