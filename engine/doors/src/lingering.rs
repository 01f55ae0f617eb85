//! Connections that close without losing the last answer. A socket that is closed before all was read of what the other
//! side sends is reset, and the other side loses an answer that it has not read yet: a refusal that comes before the whole
//! body has come would not arrive.

use crate::limits::{LINGER, LINGER_BYTES_MAX};
use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// The bytes that are thrown away at once.
const CHUNK_BYTES: usize = 16 << 10;

/// A stream that, once it is shut down, still takes for a moment what the other side has under way.
pub(crate) struct Lingering {
    stream: TcpStream,
    /// When it stops taking, once it is shut down.
    until: Option<Pin<Box<Sleep>>>,
    /// How many bytes it still takes.
    left: usize,
}

impl Lingering {
    pub(crate) fn new(stream: TcpStream) -> Lingering {
        Lingering { stream, until: None, left: LINGER_BYTES_MAX }
    }
}

impl AsyncRead for Lingering {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Lingering {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let Lingering { stream, until, left } = self.get_mut();
        if until.is_none() {
            ready!(Pin::new(&mut *stream).poll_shutdown(context))?;
        }
        let until = until.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        let mut bytes = [0; CHUNK_BYTES];
        while *left > 0 && until.as_mut().poll(context).is_pending() {
            let mut thrown_away = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(&mut *stream).poll_read(context, &mut thrown_away));
            match thrown_away.filled().len() {
                0 => break,
                count if read.is_ok() => *left = left.saturating_sub(count),
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
