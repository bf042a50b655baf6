//! Connections of clients: how many there may be, who is at their other end, and how long they may take.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::Api;

/// Most connections at once, of all users together. Each costs a task and two small buffers. The official client uses
/// two; tray icons and exporters keep one.
const MAX_CONNECTIONS: usize = 512;

/// Most connections of one user, so that none shuts the others out.
const MAX_CONNECTIONS_PER_USER: usize = 128;

/// How long a client may take to send the head of a request, and to begin the next one.
const HEAD_LIMIT: Duration = Duration::from_secs(30);

/// Largest head of a request.
const MAX_HEAD_LEN: usize = 64 << 10;

/// Most headers of a request.
const MAX_HEADERS: usize = 64;

/// What the requests of one connection share.
pub(crate) struct Caller {
    /// The user at the other end; absent when the kernel does not say.
    pub(super) uid: Option<u32>,
    relay: Mutex<Option<BoxFuture<'static, ()>>>,
    _slot: Slot,
}

impl Caller {
    /// What to do with the connection once its last answer has upgraded it. It goes on counting as one meanwhile.
    pub(super) fn set_relay(&self, relay: BoxFuture<'static, ()>) {
        *self.relay.lock().unwrap_or_else(PoisonError::into_inner) = Some(relay);
    }

    fn take_relay(&self) -> Option<BoxFuture<'static, ()>> {
        self.relay.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Serves one connection to its end.
pub(super) async fn serve<S>(stream: S, api: Arc<Api>, uid: Option<u32>, slot: Slot)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let caller = Arc::new(Caller { uid, relay: Mutex::default(), _slot: slot });
    let service = service_fn(|request| {
        let (api, caller) = (Arc::clone(&api), Arc::clone(&caller));
        async move { Ok::<_, Infallible>(api.answer(request, caller).await.into_response()) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(MAX_HEAD_LEN)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        // Clients leave in the middle all the time: that is how a watch ends.
        tracing::debug!(%error, "a LocalAPI connection ended");
    }
    if let Some(relay) = caller.take_relay() {
        relay.await;
    }
}

/// How many connections there are, by user.
#[derive(Debug, Default)]
pub(crate) struct Slots(Mutex<HashMap<Option<u32>, usize>>);

#[cfg(test)]
impl Slots {
    /// Whether nobody is connected.
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

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
        assert!(slots.is_empty());
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
