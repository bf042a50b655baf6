//! `watch-ipn-bus`: what happens, as one JSON object a line, for as long as the client stays (client sheet §2.4).

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use http::StatusCode;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use rand_core::{OsRng, RngCore};
use tokio::sync::broadcast::error::RecvError;
use tsrs_agent_core::bus::{self, RateLimiter};
use tsrs_agent_core::status::{LiveStatus, engine_status, netmap_json, status};
use tsrs_agent_localapi::{Notify, WatchMask};

use super::request::Call;
use super::response::{self, Outcome, Refused};
use crate::ask::{Ask, AskSender, BusItem, Watch};

/// How often a watcher that asks for statistics gets them.
const ENGINE_PERIOD: Duration = Duration::from_secs(2);

/// Bits with which no rate limit is applied: the deltas of peers would lose their order.
const UNLIMITED: WatchMask = WatchMask(0b1111 << 12);

pub(super) async fn watch(call: Call) -> Outcome {
    let mask = Some(call.query.value("mask")).filter(|mask| !mask.is_empty());
    let mask = bus::parse_mask(mask).map_err(Refused::bad)?;
    let watch = call.api.asks.ask(|reply| Ask::Watch(mask, reply)).await?;
    let session_id = format!("{:016x}", OsRng.next_u64());
    let watcher = Watcher {
        mask,
        first: bus::first(mask, everything(mask, &watch, session_id)),
        limiter: (mask.has(WatchMask::RATE_LIMIT) && !mask.has(UNLIMITED)).then(RateLimiter::default),
        next_engine: mask.has(WatchMask::ENGINE_UPDATES).then(|| Instant::now() + ENGINE_PERIOD),
        version: watch.snapshot.version.clone(),
        watch,
        asks: call.api.asks.clone(),
    };
    let lines = stream::unfold(watcher, |mut watcher| async {
        let notify = watcher.next().await?;
        let mut line = serde_json::to_vec(&notify).unwrap_or_default();
        line.push(b'\n');
        Some((Ok(Frame::data(Bytes::from(line))), watcher))
    });
    Ok(response::typed(StatusCode::OK, response::JSON, StreamBody::new(lines).boxed_unsync()))
}

/// A message with everything that a first message may hold, as far as it is asked for.
fn everything(mask: WatchMask, watch: &Watch, session_id: String) -> Notify {
    let snapshot = &watch.snapshot;
    let netmap = snapshot.netmap.as_ref().filter(|_| mask.has(WatchMask::INITIAL_NETMAP));
    Notify {
        version: snapshot.version.clone(),
        session_id,
        state: Some(snapshot.state),
        browse_to_url: snapshot.auth_url.clone(),
        prefs: Some(Box::new(snapshot.prefs.clone())),
        self_change: netmap.map(|netmap| Box::new(netmap.self_node().as_ref().clone())),
        net_map: netmap.map(|netmap| netmap_json(netmap, snapshot.node_key)),
        health: Some(snapshot.health.clone()),
        initial_status: mask
            .has(WatchMask::INITIAL_STATUS)
            .then(|| Box::new(status(snapshot, &watch.live, true))),
        ..Notify::default()
    }
}

struct Watcher {
    mask: WatchMask,
    watch: Watch,
    first: Option<Notify>,
    limiter: Option<RateLimiter>,
    next_engine: Option<Instant>,
    version: String,
    asks: AskSender,
}

impl Watcher {
    /// The next message for this watcher; `None` ends the watch: the daemon ends, or the watcher is too slow.
    async fn next(&mut self) -> Option<Notify> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        loop {
            let held = self.limiter.as_ref().and_then(RateLimiter::poll_timeout);
            let wake = [held, self.next_engine].into_iter().flatten().min();
            tokio::select! {
                item = self.watch.items.recv() => {
                    let notify = match item {
                        Ok(item) => self.cut(&item),
                        Err(RecvError::Closed) => return None,
                        Err(RecvError::Lagged(missed)) => {
                            tracing::info!(missed, "a watcher of the bus is too slow and was dropped");
                            return None;
                        }
                    };
                    if let Some(notify) = notify.and_then(|notify| self.limited(notify)) {
                        return Some(notify);
                    }
                }
                () = sleep_until(wake) => {
                    if let Some(notify) = self.handle_timeout().await {
                        return Some(notify);
                    }
                }
            }
        }
    }

    fn cut(&self, item: &BusItem) -> Option<Notify> {
        let netmap = item.netmap.as_ref().filter(|_| !self.mask.has(WatchMask::NO_NETMAP));
        match netmap {
            None => bus::later(self.mask, &item.notify),
            Some((netmap, key)) => {
                let net_map = Some(netmap_json(netmap, *key));
                bus::later(self.mask, &Notify { net_map, ..item.notify.as_ref().clone() })
            }
        }
    }

    fn limited(&mut self, notify: Notify) -> Option<Notify> {
        match &mut self.limiter {
            Some(limiter) => limiter.handle(notify, Instant::now()),
            None => Some(notify),
        }
    }

    async fn handle_timeout(&mut self) -> Option<Notify> {
        let now = Instant::now();
        if self.next_engine.is_some_and(|at| at <= now) {
            self.next_engine = Some(now + ENGINE_PERIOD);
            let live: LiveStatus = self.asks.ask(Ask::Live).await.ok()?;
            let engine = Some(engine_status(&live));
            return self.limited(Notify { version: self.version.clone(), engine, ..Notify::default() });
        }
        self.limiter.as_mut()?.handle_timeout(now)
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
