//! Bytes between a stream and the DERP machine.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tsrs_tunnel_derp::ClientMachine;

/// What [`Transport::poll`] waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    /// Bytes came in.
    Read(usize),
    /// All output was written: there is room for more.
    Written,
}

/// A stream and whether it holds bytes that it was given and has not sent.
pub(super) struct Transport<S> {
    stream: S,
    unflushed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Transport<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, unflushed: false }
    }

    /// Writes the output of the machine, and reads into its space, whichever can go on. An end of the stream is an error.
    pub(super) fn poll<R: rand_core::CryptoRngCore>(
        &mut self,
        machine: &mut ClientMachine<R>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Moved>> {
        if !machine.output().is_empty() {
            while !machine.output().is_empty() {
                match Pin::new(&mut self.stream).poll_write(cx, machine.output()) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(count)) => {
                        machine.note_written(count);
                        self.unflushed = true;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => break,
                }
            }
            if machine.output().is_empty() {
                return Poll::Ready(Ok(Moved::Written));
            }
        }
        if self.unflushed && machine.output().is_empty() {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
        }
        let mut space = ReadBuf::new(machine.read_space());
        match Pin::new(&mut self.stream).poll_read(cx, &mut space) {
            Poll::Ready(Ok(())) if space.filled().is_empty() => {
                Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()))
            }
            Poll::Ready(Ok(())) => Poll::Ready(Ok(Moved::Read(space.filled().len()))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }
}
