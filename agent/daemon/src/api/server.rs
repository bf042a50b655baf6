//! Connections: how many there may be, who opened them, and how long they may take.

use std::collections::HashMap;
use std::convert::Infallible;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixListener;
use tokio::task::JoinSet;

use super::{Api, routes};

/// Most connections at once, all users together. The official client uses two; tray icons and exporters keep one.
const MAX_CONNECTIONS: usize = 512;

/// Most connections of one user, so that no user shuts the others out.
const MAX_CONNECTIONS_PER_USER: usize = 128;

/// How long the head of a request may take, and how long a connection may rest between requests.
pub(super) const HEAD_LIMIT: Duration = Duration::from_secs(30);

/// Largest head of a request: ours are below one kilobyte.
const MAX_HEAD_LEN: usize = 32 << 10;

/// Most headers of a request.
const MAX_HEADERS: usize = 64;

/// How long to wait when the system has no room for another connection.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

/// Serves the sockets for as long as it is polled; dropping it ends every connection.
pub(crate) async fn serve(api: Arc<Api>, listeners: Vec<UnixListener>) {
    let slots = Arc::new(Slots::default());
    join_all(listeners.into_iter().map(|listener| accept(Arc::clone(&api), listener, Arc::clone(&slots)))).await;
}

async fn accept(api: Arc<Api>, listener: UnixListener, slots: Arc<Slots>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let uid = match api.credentials.peer(stream.as_fd()) {
                        Ok(peer) => Some(peer.uid),
                        Err(error) => {
                            tracing::debug!(%error, "the peer of a connection is unknown; it may read");
                            None
                        }
                    };
                    match Slot::take(&slots, uid) {
                        Some(slot) => drop(connections.spawn(serve_connection(Arc::clone(&api), stream, uid, slot))),
                        None => tracing::warn!(uid, "too many connections; one more was closed"),
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

/// What the calls of one connection share.
pub(super) struct Connection {
    /// The user at the other end, where the kernel tells.
    pub(super) uid: Option<u32>,
    relay: Mutex<Option<BoxFuture<'static, ()>>>,
    _slot: Slot,
}

impl Connection {
    /// What is done with the connection after its last answer, which upgrades it.
    pub(super) fn set_relay(&self, relay: BoxFuture<'static, ()>) {
        *self.relay.lock().unwrap_or_else(PoisonError::into_inner) = Some(relay);
    }

    fn take_relay(&self) -> Option<BoxFuture<'static, ()>> {
        self.relay.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Serves one connection to its end.
pub(super) async fn serve_connection<S>(api: Arc<Api>, stream: S, uid: Option<u32>, slot: Slot)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let connection = Arc::new(Connection { uid, relay: Mutex::default(), _slot: slot });
    let service = service_fn(|request| {
        let answer = routes::answer(Arc::clone(&api), Arc::clone(&connection), request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(MAX_HEAD_LEN)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended early");
    }
    if let Some(relay) = connection.take_relay() {
        relay.await;
    }
}

/// How many connections there are, by user.
#[derive(Debug, Default)]
pub(super) struct Slots(Mutex<HashMap<Option<u32>, usize>>);

/// The right to one connection; given back on drop.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Arc<Slots>,
    uid: Option<u32>,
}

impl Slot {
    /// `None` when there are too many.
    pub(super) fn take(slots: &Arc<Slots>, uid: Option<u32>) -> Option<Self> {
        let mut taken = slots.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.get(&uid).copied().unwrap_or_default();
        if own >= MAX_CONNECTIONS_PER_USER || taken.values().sum::<usize>() >= MAX_CONNECTIONS {
            return None;
        }
        taken.insert(uid, own + 1);
        drop(taken);
        Some(Self { slots: Arc::clone(slots), uid })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.uid) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_user_takes_the_room_of_the_others() {
        let slots = Arc::new(Slots::default());
        let greedy: Vec<Slot> = std::iter::from_fn(|| Slot::take(&slots, Some(1000))).collect();
        assert_eq!(greedy.len(), MAX_CONNECTIONS_PER_USER);
        assert!(Slot::take(&slots, Some(0)).is_some());
        drop(greedy);
        assert!(slots.0.lock().unwrap().is_empty());
    }

    #[test]
    fn all_users_together_are_bounded() {
        let slots = Arc::new(Slots::default());
        let all: Vec<Slot> = (0..10)
            .flat_map(|uid| std::iter::from_fn(|| Slot::take(&slots, Some(uid))).collect::<Vec<_>>())
            .collect();
        assert_eq!(all.len(), MAX_CONNECTIONS);
    }
}
