//! Coalesces all writes of one scheduler tick into one syscall.
//!
//! Several tokio tasks of the server write to one connection. The head of a call and its message come from two tasks, and each answer to a
//! caller comes from its own task. Every separate write wakes each process on its way, which costs more than handling most messages.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection that sends nothing until every task that is ready to run has had a turn to add to the write. The writer must keep its data
/// until then and offer it again together with what was added, as HTTP/2 does.
#[derive(Debug)]
pub struct Coalescing<S> {
    connection: S,
    /// Whether other tasks have had their turn since the last flush.
    waited: bool,
}

impl<S> Coalescing<S> {
    /// Wraps a connection.
    pub fn new(connection: S) -> Self {
        Self { connection, waited: false }
    }

    /// The wrapped connection.
    pub fn connection(&self) -> &S {
        &self.connection
    }

    /// Lets other tasks run first, once per flush.
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.waited {
            return Poll::Ready(());
        }
        self.waited = true;
        // A task that wakes itself runs after all tasks that are ready by then.
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Coalescing<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Coalescing<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.wait(context));
        Pin::new(&mut self.connection).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.wait(context));
        Pin::new(&mut self.connection).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.connection).poll_flush(context))?;
        self.waited = false;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use std::sync::{Arc, Mutex};

    use futures_util::future::poll_fn;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// Records each write.
    #[derive(Clone, Default)]
    struct Recorder(Arc<Mutex<Vec<Vec<u8>>>>);

    impl AsyncWrite for Recorder {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.0.lock().unwrap().push(bytes.to_vec());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn writes_of_one_tick_are_sent_together() {
        let sent = Recorder::default();
        let mut connection = Coalescing::new(sent.clone());
        for round in 1..=2 {
            let said = Arc::new(Mutex::new(b"head".to_vec()));
            let other = tokio::spawn({
                let said = Arc::clone(&said);
                async move { said.lock().unwrap().extend_from_slice(b" and message") }
            });
            // As HTTP/2 does: each attempt offers everything that has been added by then.
            poll_fn(|context| Pin::new(&mut connection).poll_write(context, &said.lock().unwrap())).await.unwrap();
            connection.write_all(b"more").await.unwrap();
            connection.flush().await.unwrap();
            other.await.unwrap();
            let sent = sent.0.lock().unwrap();
            assert_eq!(sent.concat(), b"head and messagemore".repeat(round));
            assert_eq!(sent.len(), 2 * round);
        }
    }
}
