//! The early payload: what a server may say before HTTP/2 (control protocol sheet §7).
//!
//! ```text
//! 0                5                9
//! | ff ff ff 54 53 | length u32 BE  | length bytes of JSON | HTTP/2 …
//! ```
//!
//! Without it the first nine bytes are already the header of an HTTP/2 frame. No client needs the content (a challenge
//! for proving possession of a node key), so it is skipped and never held in memory.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const MAGIC: [u8; 5] = [0xff, 0xff, 0xff, b'T', b'S'];
/// Magic and length; also the length of an HTTP/2 frame header.
const HEADER_LEN: usize = 9;
/// Longest payload that is skipped, as in the reference.
const MAX_PAYLOAD_LEN: u32 = 10 << 20;
/// Piece in which the payload is read.
const CHUNK_LEN: usize = 1024;

/// A stream whose reader never sees the early payload.
pub(crate) struct WithoutEarlyPayload<S> {
    inner: S,
    state: State,
}

enum State {
    /// The first bytes, as far as they are here.
    Header {
        bytes: [u8; HEADER_LEN],
        filled: usize,
    },
    /// Payload bytes that are still to come.
    Payload(usize),
    /// The first bytes are HTTP/2; those from `given` on were not given to the reader yet.
    GiveBack {
        bytes: [u8; HEADER_LEN],
        given: usize,
    },
    Done,
}

impl<S> WithoutEarlyPayload<S> {
    pub(crate) const fn new(inner: S) -> Self {
        Self { inner, state: State::Header { bytes: [0; HEADER_LEN], filled: 0 } }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WithoutEarlyPayload<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match &mut this.state {
                State::Header { bytes, filled } => {
                    if *filled == HEADER_LEN {
                        this.state = classify(*bytes)?;
                        continue;
                    }
                    let mut header = ReadBuf::new(&mut bytes[*filled..]);
                    ready!(Pin::new(&mut this.inner).poll_read(cx, &mut header))?;
                    match header.filled().len() {
                        0 if *filled == 0 => return Poll::Ready(Ok(())),
                        0 => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                        len => *filled += len,
                    }
                }
                State::Payload(0) => this.state = State::Done,
                State::Payload(left) => {
                    let mut chunk = [0; CHUNK_LEN];
                    let mut chunk = ReadBuf::new(&mut chunk[..CHUNK_LEN.min(*left)]);
                    ready!(Pin::new(&mut this.inner).poll_read(cx, &mut chunk))?;
                    match chunk.filled().len() {
                        0 => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                        len => *left -= len,
                    }
                }
                State::GiveBack { bytes, given } => {
                    let len = buf.remaining().min(HEADER_LEN - *given);
                    buf.put_slice(&bytes[*given..*given + len]);
                    *given += len;
                    if *given == HEADER_LEN {
                        this.state = State::Done;
                    }
                    return Poll::Ready(Ok(()));
                }
                State::Done => return Pin::new(&mut this.inner).poll_read(cx, buf),
            }
        }
    }
}

fn classify(bytes: [u8; HEADER_LEN]) -> io::Result<State> {
    if bytes[..MAGIC.len()] != MAGIC {
        return Ok(State::GiveBack { bytes, given: 0 });
    }
    let len = u32::from_be_bytes([bytes[5], bytes[6], bytes[7], bytes[8]]);
    if len > MAX_PAYLOAD_LEN {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("early payload of {len} bytes")));
    }
    let len = usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok(State::Payload(len))
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WithoutEarlyPayload<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const JSON: &[u8] = br#"{"nodeKeyChallenge":"chalpub:00"}"#;

    fn with_payload(payload: &[u8]) -> Vec<u8> {
        [&MAGIC, &u32::try_from(payload.len()).unwrap().to_be_bytes()[..], payload].concat()
    }

    /// What a reader sees of these writes.
    async fn seen(parts: &[&[u8]]) -> io::Result<Vec<u8>> {
        let (near, mut far) = duplex(1);
        let parts: Vec<Vec<u8>> = parts.iter().map(|part| part.to_vec()).collect();
        let writer = tokio::spawn(async move {
            for part in parts {
                if far.write_all(&part).await.is_err() {
                    return;
                }
            }
        });
        let mut got = Vec::new();
        let outcome = WithoutEarlyPayload::new(near).read_to_end(&mut got).await;
        writer.await.unwrap();
        outcome.map(|_| got)
    }

    #[tokio::test]
    async fn the_payload_is_skipped_wherever_it_is_split() {
        let bytes = [with_payload(JSON), b"HTTP/2 frames".to_vec()].concat();
        for at in 0..=bytes.len() {
            assert_eq!(seen(&[&bytes[..at], &bytes[at..]]).await.unwrap(), b"HTTP/2 frames", "{at}");
        }
        assert_eq!(seen(&[&with_payload(&[b' '; 100_000]), b"x"]).await.unwrap(), b"x");
        assert_eq!(seen(&[&with_payload(b""), b"x"]).await.unwrap(), b"x");
    }

    #[tokio::test]
    async fn without_a_payload_the_first_bytes_are_given_back() {
        // A SETTINGS frame.
        let bytes = b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64";
        for at in 0..=bytes.len() {
            assert_eq!(seen(&[&bytes[..at], &bytes[at..]]).await.unwrap(), bytes, "{at}");
        }
    }

    #[tokio::test]
    async fn truncations_and_huge_payloads_are_errors() {
        let bytes = with_payload(JSON);
        for len in 1..bytes.len() {
            assert!(seen(&[&bytes[..len]]).await.is_err(), "{len}");
        }
        assert_eq!(seen(&[]).await.unwrap(), b"");
        let huge = [&MAGIC[..], &(MAX_PAYLOAD_LEN + 1).to_be_bytes(), b"x"].concat();
        assert!(seen(&[&huge]).await.is_err());
    }
}
