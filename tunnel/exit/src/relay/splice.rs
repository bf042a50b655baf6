//! Bytes between a flow and its connection to a proxy.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep, sleep_until};

use super::{Inner, Shared, now};
use crate::dial::Dialled;
use crate::flow::FlowId;

/// Bytes of one read.
pub(super) const SPLICE_LEN: usize = 64 * 1024;
/// Reads and writes in a row before others have their turn.
const TURN_COUNT: usize = 8;

/// How a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Both directions did.
    Finished,
    /// The proxy's connection failed.
    Failed,
    /// The proxy is no longer set.
    Retired,
    /// Nothing went through for too long.
    Idle,
    /// It lasted too long.
    TooOld,
}

impl End {
    /// Whether the peer has to be told by a reset.
    pub(super) const fn is_abort(self) -> bool {
        !matches!(self, Self::Finished)
    }
}

struct Splice<'a, S> {
    shared: &'a Arc<Shared>,
    flow: FlowId,
    stream: S,
    /// The peer's end was passed on.
    up_ended: bool,
    /// The destination's end was passed on.
    down_ended: bool,
    last_activity: Instant,
}

/// Moves bytes until both directions have ended, or a reason comes up to end it.
pub(super) async fn splice(shared: &Arc<Shared>, flow: FlowId, dialled: Dialled) -> End {
    let Dialled { stream, mut retired, .. } = dialled;
    let limits = &shared.limits;
    let mut lifetime = pin!(sleep(limits.tcp_lifetime));
    let mut splice =
        Splice { shared, flow, stream, up_ended: false, down_ended: false, last_activity: Instant::now() };
    loop {
        let half_closed = splice.up_ended || splice.down_ended;
        let idle = if half_closed { limits.tcp_half_closed_idle } else { limits.tcp_idle };
        let deadline = splice.last_activity + idle;
        tokio::select! {
            moved = poll_fn(|cx| splice.poll(cx)) => return match moved {
                Ok(()) => End::Finished,
                Err(error) => {
                    tracing::debug!(%error, "the connection of a flow failed");
                    End::Failed
                }
            },
            _ = retired.wait_for(|retired| *retired) => return End::Retired,
            () = &mut lifetime => return End::TooOld,
            () = sleep_until(deadline) => {
                // It may have moved on, or have ended one direction, since the deadline was set.
                let half_closed = splice.up_ended || splice.down_ended;
                let idle = if half_closed { limits.tcp_half_closed_idle } else { limits.tcp_idle };
                if Instant::now() >= splice.last_activity + idle {
                    return End::Idle;
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Splice<'_, S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shared = self.shared;
        let mut inner = shared.lock();
        let Some(entry) = inner.flows.get_mut(&self.flow) else { return Poll::Ready(Ok(())) };
        entry.waker = Some(cx.waker().clone());
        let finished = entry.finished;
        let up = self.poll_up(&mut inner, finished, cx)?;
        let down = if finished { Turn::Waits } else { self.poll_down(&mut inner, cx)? };
        shared.settle(&mut inner);
        if self.up_ended && (self.down_ended || finished) {
            return Poll::Ready(Ok(()));
        }
        if up == Turn::Over || down == Turn::Over {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// From the peer to the proxy.
    fn poll_up(&mut self, inner: &mut Inner, finished: bool, cx: &mut Context<'_>) -> io::Result<Turn> {
        for _ in 0..TURN_COUNT {
            if self.up_ended {
                return Ok(Turn::Waits);
            }
            let piece = inner.stack.peek(self.flow, 0);
            if piece.is_empty() {
                if !finished && !inner.stack.peer_ended(self.flow) {
                    // A stream that buffers, as TLS does, would wait for more.
                    return match Pin::new(&mut self.stream).poll_flush(cx) {
                        Poll::Ready(Err(error)) => Err(error),
                        Poll::Ready(Ok(())) | Poll::Pending => Ok(Turn::Waits),
                    };
                }
                return match self.poll_end(cx) {
                    Poll::Ready(result) => result.map(|()| Turn::Waits),
                    Poll::Pending => Ok(Turn::Waits),
                };
            }
            match Pin::new(&mut self.stream).poll_write(cx, piece) {
                Poll::Pending => return Ok(Turn::Waits),
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(len)) => {
                    self.last_activity = Instant::now();
                    inner.stack.consume(self.flow, len, now());
                }
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
        Ok(Turn::Over)
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        self.up_ended = true;
        Poll::Ready(Ok(()))
    }

    /// From the proxy to the peer.
    fn poll_down(&mut self, inner: &mut Inner, cx: &mut Context<'_>) -> io::Result<Turn> {
        for _ in 0..TURN_COUNT {
            if self.down_ended {
                return Ok(Turn::Waits);
            }
            let room = inner.stack.capacity(self.flow).min(SPLICE_LEN);
            if room == 0 {
                // The stack tells when there is some.
                return Ok(Turn::Waits);
            }
            let mut buffer = ReadBuf::new(&mut inner.scratch[..room]);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Pending => return Ok(Turn::Waits),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Ready(Ok(())) => {}
            }
            let read = buffer.filled();
            self.last_activity = Instant::now();
            if read.is_empty() {
                inner.stack.close(self.flow, now());
                self.down_ended = true;
                return Ok(Turn::Waits);
            }
            // There is room for all of it: nothing happened since it was asked for.
            inner.stack.push(self.flow, read, now());
        }
        Ok(Turn::Over)
    }
}

/// How a direction left off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Until somebody wakes it.
    Waits,
    /// Others are next.
    Over,
}
