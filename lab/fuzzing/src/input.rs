//! Cutting the fuzzer's bytes into what a target needs.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use rand_core::{CryptoRng, RngCore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Records of one script at most, so that a long input does not take long.
const MAX_RECORD_COUNT: usize = 64;

/// Bytes that are taken from the front; there is always something to take, at the end zeros.
#[derive(Clone, Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// All of the fuzzer's bytes.
    pub const fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// An array.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    /// What is left.
    pub const fn rest(self) -> &'a [u8] {
        self.0
    }

    /// A script: each record is a kind, a length in little-endian, and as many bytes, fewer if there are fewer.
    pub fn records(self) -> impl Iterator<Item = (u8, &'a [u8])> {
        let mut input = self;
        std::iter::from_fn(move || {
            let kind = *input.0.first()?;
            input.byte();
            let len = usize::from(u16::from_le_bytes(input.array())).min(input.0.len());
            let (record, rest) = input.0.split_at(len);
            input.0 = rest;
            Some((kind, record))
        })
        .take(MAX_RECORD_COUNT)
    }

    /// What is left, as text with damage replaced.
    pub fn text(self) -> String {
        String::from_utf8_lossy(self.0).into_owned()
    }
}

/// A script of records, as [`Input::records`] reads it.
pub fn script<'a>(records: impl IntoIterator<Item = (u8, &'a [u8])>) -> Vec<u8> {
    let mut out = Vec::new();
    for (kind, record) in records {
        let len = u16::try_from(record.len()).unwrap_or(u16::MAX);
        out.push(kind);
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(record);
    }
    out
}

/// A connection whose other end has sent some bytes, in chunks, and is then closed. What is written to it is lost.
#[derive(Clone, Debug)]
pub struct Connection {
    bytes: Vec<u8>,
    at: usize,
    chunk_len: usize,
}

impl Connection {
    /// The first byte tells the size of chunks.
    pub fn new(data: &[u8]) -> Self {
        let mut input = Input::new(data);
        let chunk_len = usize::from(input.byte()).max(1);
        Self { bytes: input.rest().to_vec(), at: 0, chunk_len }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let len = self.chunk_len.min(buf.remaining()).min(self.bytes.len() - self.at);
        let chunk = self.at..self.at + len;
        buf.put_slice(&self.bytes[chunk.clone()]);
        self.at = chunk.end;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Runs a future that waits for nothing but a [`Connection`], which is always ready.
pub fn run<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a connection that is ready was waited for"),
    }
}

/// A seeded generator (SplitMix64): a run of a target depends on its input alone.
#[derive(Clone, Debug)]
pub struct Seeded(pub u64);

impl RngCore for Seeded {
    fn next_u32(&mut self) -> u32 {
        let [b0, b1, b2, b3, ..] = self.next_u64().to_be_bytes();
        u32::from_be_bytes([b0, b1, b2, b3])
    }

    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn fill_bytes(&mut self, dest: &mut [u8]) {
        for chunk in dest.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(dest);
        Ok(())
    }
}

impl CryptoRng for Seeded {}
