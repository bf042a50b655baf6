//! A byte stream over records, for the HTTP/2 server.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::records::{RecordError, Records};
use super::{HEADER_LEN, MAX_CIPHERTEXT_LEN, MAX_FRAME_LEN, TYPE_RECORD};

/// Sealed bytes that may wait for the socket before the writer is held back.
const MAX_PENDING_BYTES: usize = 64 * 1024;

/// Plain bytes in and out, records underneath.
pub(crate) struct NoiseStream<S> {
    inner: S,
    records: Records,
    /// Raw bytes read and not yet opened.
    received: BytesMut,
    /// Opened bytes not yet handed out.
    plain: BytesMut,
    /// Sealed bytes not yet written.
    sealed: Vec<u8>,
    written: usize,
}

impl<S> NoiseStream<S> {
    /// A stream whose first bytes out are `first`, which is not sealed (the handshake's response).
    pub(crate) fn new(inner: S, records: Records, first: Vec<u8>) -> Self {
        Self { inner, records, received: BytesMut::new(), plain: BytesMut::new(), sealed: first, written: 0 }
    }

    /// Queues plain bytes in front of all that is written later.
    pub(crate) fn queue(&mut self, mut plain: &[u8]) -> io::Result<()> {
        while !plain.is_empty() {
            let taken = self.records.seal(plain, &mut self.sealed).map_err(broken)?;
            plain = &plain[taken..];
        }
        Ok(())
    }

    /// Opens the next whole record in `received`; gives whether there was one.
    fn open_next(&mut self) -> Result<bool, RecordError> {
        let Some(header) = self.received.first_chunk::<HEADER_LEN>() else { return Ok(false) };
        let [kind, high, low] = *header;
        if kind != TYPE_RECORD {
            return Err(RecordError::Type(kind));
        }
        let body_len = usize::from(u16::from_be_bytes([high, low]));
        if body_len > MAX_CIPHERTEXT_LEN {
            return Err(RecordError::TooLong(body_len));
        }
        let frame_len = HEADER_LEN + body_len;
        if self.received.len() < frame_len {
            return Ok(false);
        }
        let mut frame = self.received.split_to(frame_len);
        let plain = self.records.open(&mut frame)?;
        self.plain.extend_from_slice(plain);
        Ok(true)
    }
}

impl<S: AsyncWrite + Unpin> NoiseStream<S> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.sealed.len() {
            let count = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.sealed[self.written..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
        }
        self.sealed.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for NoiseStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.plain.is_empty() {
            if this.open_next().map_err(broken)? {
                continue;
            }
            let mut chunk = [0; MAX_FRAME_LEN];
            let mut chunk = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut chunk))?;
            if chunk.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.received.extend_from_slice(chunk.filled());
        }
        let count = this.plain.len().min(buf.remaining());
        buf.put_slice(&this.plain[..count]);
        this.plain.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for NoiseStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, plain: &[u8]) -> Poll<io::Result<usize>> {
        if self.sealed.len() >= MAX_PENDING_BYTES {
            ready!(self.poll_drain(cx))?;
        }
        let this = &mut *self;
        let taken = this.records.seal(plain, &mut this.sealed).map_err(broken)?;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

fn broken(error: RecordError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
