//! The head of a connection's first request, read before anybody knows whose it is.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// Longest head; a request with a Noise initiation has some 300 bytes.
const MAX_HEAD_LEN: usize = 8 * 1024;

/// Reads until the empty line that ends a head; gives what was read and where the head ends. What comes after the
/// head may be in the same read.
pub(crate) async fn read_head<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<(Bytes, usize)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            return Ok((bytes.into(), end + 4));
        }
        if bytes.len() >= MAX_HEAD_LEN {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "request head too long"));
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// A stream that first gives some bytes again.
pub(crate) struct Rewind<S> {
    first: Bytes,
    inner: S,
}

impl<S> Rewind<S> {
    pub(crate) fn new(first: Bytes, inner: S) -> Self {
        Self { first, inner }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewind<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let count = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first[..count]);
        self.first.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewind<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_head_is_found_and_given_again_with_what_follows() {
        let mut input = &b"GET / HTTP/1.1\r\n\r\nrest"[..];
        let (bytes, end) = read_head(&mut input).await.unwrap();
        assert_eq!(&bytes[..end], b"GET / HTTP/1.1\r\n\r\n");
        let mut all = String::new();
        Rewind::new(bytes, input).read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "GET / HTTP/1.1\r\n\r\nrest");
    }

    #[tokio::test]
    async fn a_head_that_never_ends_is_refused() {
        let endless = vec![b'a'; MAX_HEAD_LEN * 3];
        assert_eq!(read_head(&mut &endless[..]).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(read_head(&mut &b"GET"[..]).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
