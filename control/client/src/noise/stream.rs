//! Bytes over records over any stream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use zeroize::Zeroizing;

use super::HEADER_LEN;
use super::record::{MAX_CIPHERTEXT_LEN, Opener, RecordError, Sealer};

/// Sealed bytes that may wait for the stream below. A writer that runs ahead is held up there.
const MAX_PENDING_LEN: usize = 64 * 1024;

/// The transport after the handshake. It ends for good at the first error.
pub struct NoiseStream<S> {
    inner: S,
    sealer: Sealer,
    opener: Opener,
    /// Sealed bytes, of which the first `written` are gone.
    pending: Vec<u8>,
    written: usize,
    /// The record being read: header and ciphertext, of which `filled` bytes are here.
    record: Box<[u8; HEADER_LEN + MAX_CIPHERTEXT_LEN]>,
    filled: usize,
    /// Plaintext in `record` that was not taken yet.
    plain: std::ops::Range<usize>,
    broken: Option<RecordError>,
}

impl<S> NoiseStream<S> {
    /// A transport over `inner`, given the keys of the two directions.
    pub fn new(inner: S, send_key: &Zeroizing<[u8; 32]>, receive_key: &Zeroizing<[u8; 32]>) -> Self {
        Self {
            inner,
            sealer: Sealer::new(send_key),
            opener: Opener::new(receive_key),
            pending: Vec::new(),
            written: 0,
            record: Box::new([0; HEADER_LEN + MAX_CIPHERTEXT_LEN]),
            filled: 0,
            plain: 0..0,
            broken: None,
        }
    }

    fn break_with(&mut self, error: RecordError) -> io::Error {
        self.broken = Some(error);
        io::Error::new(io::ErrorKind::InvalidData, error)
    }

    fn check(&self) -> io::Result<()> {
        match self.broken {
            Some(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            None => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> NoiseStream<S> {
    /// Reads until `filled` is at least `want`; `false` at the end of the stream between two records.
    fn poll_fill(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<io::Result<bool>> {
        while self.filled < want {
            let mut buffer = ReadBuf::new(&mut self.record[self.filled..want]);
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buffer))?;
            match buffer.filled().len() {
                0 if self.filled == 0 => return Poll::Ready(Ok(false)),
                0 => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                len => self.filled += len,
            }
        }
        Poll::Ready(Ok(true))
    }

    /// Reads and opens the next record with content; `false` at the end of the stream.
    fn poll_record(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.plain.is_empty() {
            if !ready!(self.poll_fill(cx, HEADER_LEN))? {
                return Poll::Ready(Ok(false));
            }
            let mut header = [0; HEADER_LEN];
            header.copy_from_slice(&self.record[..HEADER_LEN]);
            let len = Opener::ciphertext_len(header).map_err(|error| self.break_with(error))?;
            ready!(self.poll_fill(cx, HEADER_LEN + len))?;
            let ciphertext = &mut self.record[HEADER_LEN..HEADER_LEN + len];
            let plain_len = self.opener.open(ciphertext).map_err(|error| self.break_with(error))?;
            self.filled = 0;
            self.plain = HEADER_LEN..HEADER_LEN + plain_len;
        }
        Poll::Ready(Ok(true))
    }
}

impl<S: AsyncWrite + Unpin> NoiseStream<S> {
    /// Writes sealed bytes until at most `leave` are left.
    fn poll_drain(&mut self, cx: &mut Context<'_>, leave: usize) -> Poll<io::Result<()>> {
        while self.pending.len() - self.written > leave {
            let len = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.pending[self.written..]))?;
            if len == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += len;
        }
        if self.written == self.pending.len() {
            self.pending.clear();
            self.written = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for NoiseStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check()?;
        if ready!(this.poll_record(cx))? {
            let len = this.plain.len().min(buf.remaining());
            buf.put_slice(&this.record[this.plain.start..this.plain.start + len]);
            this.plain.start += len;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for NoiseStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check()?;
        if this.pending.len() - this.written >= MAX_PENDING_LEN {
            ready!(this.poll_drain(cx, MAX_PENDING_LEN / 2))?;
        }
        // What was written must not pile up in front of what was not.
        this.pending.drain(..this.written);
        this.written = 0;
        let mut taken = 0;
        while taken < buf.len() && this.pending.len() < MAX_PENDING_LEN {
            let sealed = this.sealer.seal(&buf[taken..], &mut this.pending);
            taken += sealed.map_err(|error| this.break_with(error))?;
        }
        match this.poll_drain(cx, 0) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(taken)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check()?;
        ready!(this.poll_drain(cx, 0))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx, 0))?;
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}
