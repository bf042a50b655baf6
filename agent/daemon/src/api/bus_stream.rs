//! `watch-ipn-bus`: an endless answer of JSON lines (client sheet §2.4).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use rand_core::{OsRng, RngCore};
use tokio::sync::mpsc;
use tsrs_agent_core::agent::Snapshot;
use tsrs_agent_core::bus::{self, RateLimiter};
use tsrs_agent_core::status::{self, LiveStatus};
use tsrs_agent_localapi::{Notify, WatchMask};
use tsrs_control_tailcfg::Node;

use super::answer::Body;
use super::request::Asked;
use super::{Answer, Api};
use crate::bus::{BusItem, Watch};
use crate::tunnel::Tunnel;

/// How often a watcher that asks for statistics gets them.
const STATISTICS_EVERY: Duration = Duration::from_secs(2);

/// Bits with which no rate limit is applied (client sheet §2.4): deltas of peers must keep their order.
const UNLIMITED: WatchMask = WatchMask(0b1111 << 12);

impl Api {
    pub(super) fn watch_bus(&self, asked: &Asked) -> Answer {
        let mask = match bus::parse_mask(Some(asked.param("mask"))) {
            Ok(mask) => mask,
            Err(text) => return Answer::text(400, text),
        };
        // Listening begins before the first message is made, so that nothing falls in between.
        let Some(watch) = self.bus.watch(mask) else { return Answer::text(503, "too many watchers") };
        let (lines, body) = mpsc::channel(1);
        let watcher = Watcher {
            mask,
            watch,
            lines,
            snapshot: self.backend.snapshot(),
            tunnel: Arc::clone(&self.tunnel),
            limiter: (mask.has(WatchMask::RATE_LIMIT) && !mask.has(UNLIMITED)).then(RateLimiter::default),
        };
        tokio::spawn(watcher.run());
        Answer::json_lines(streamed(body))
    }
}

/// A body that ends when the sender is gone.
fn streamed(lines: mpsc::Receiver<Bytes>) -> Body {
    let frames = stream::unfold(lines, |mut lines| async move {
        let line = lines.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(line)), lines))
    });
    StreamBody::new(frames).boxed_unsync()
}

struct Watcher {
    mask: WatchMask,
    watch: Watch,
    lines: mpsc::Sender<Bytes>,
    snapshot: Arc<Snapshot>,
    tunnel: Arc<dyn Tunnel>,
    limiter: Option<RateLimiter>,
}

/// The connection is gone.
struct Gone;

impl Watcher {
    /// Ends when the client leaves, falls too far behind, or the daemon ends.
    async fn run(mut self) {
        let everything = self.everything().await;
        if let Some(first) = bus::first(self.mask, everything)
            && self.send(first).await.is_err()
        {
            return;
        }
        let mut statistics = tokio::time::interval(STATISTICS_EVERY);
        statistics.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let with_statistics = self.mask.has(WatchMask::ENGINE_UPDATES);
        loop {
            let due = self.limiter.as_ref().and_then(RateLimiter::poll_timeout);
            let sent = tokio::select! {
                () = self.lines.closed() => return,
                item = self.watch.items.recv() => match item {
                    Ok(item) => self.handle(&item).await,
                    // Too slow, or the daemon ends: either way the stream is over.
                    Err(_) => return,
                },
                _ = statistics.tick(), if with_statistics => {
                    let engine = Some(status::engine_status(&self.tunnel.live().await));
                    self.limited(Notify { engine, ..self.message() }).await
                }
                () = sleep_until(due), if due.is_some() => {
                    match self.limiter.as_mut().and_then(|limiter| limiter.handle_timeout(Instant::now())) {
                        Some(held) => self.send(held).await,
                        None => Ok(()),
                    }
                }
            };
            if sent.is_err() {
                return;
            }
        }
    }

    async fn handle(&mut self, item: &BusItem) -> Result<(), Gone> {
        let with_netmap;
        let notify = match &item.netmap {
            Some((netmap, key)) if !self.mask.has(WatchMask::NO_NETMAP) => {
                with_netmap = Notify {
                    net_map: Some(status::netmap_json(netmap, *key)),
                    ..Notify::clone(&item.notify)
                };
                &with_netmap
            }
            Some(_) | None => &*item.notify,
        };
        match bus::later(self.mask, notify) {
            Some(cut) => self.limited(cut).await,
            None => Ok(()),
        }
    }

    async fn limited(&mut self, notify: Notify) -> Result<(), Gone> {
        let now = Instant::now();
        let due = match &mut self.limiter {
            Some(limiter) => limiter.handle(notify, now),
            None => Some(notify),
        };
        match due {
            Some(notify) => self.send(notify).await,
            None => Ok(()),
        }
    }

    async fn send(&self, notify: Notify) -> Result<(), Gone> {
        let Ok(mut line) = serde_json::to_vec(&notify) else { return Ok(()) };
        line.push(b'\n');
        self.lines.send(Bytes::from(line)).await.map_err(|_| Gone)
    }

    fn message(&self) -> Notify {
        Notify { version: self.snapshot.version.clone(), ..Notify::default() }
    }

    /// A message with all that a first message may hold and that this watcher asked for.
    async fn everything(&self) -> Notify {
        let (mask, snapshot) = (self.mask, &self.snapshot);
        let mut session = [0; 8];
        OsRng.fill_bytes(&mut session);
        let netmap = snapshot.netmap.as_ref().filter(|_| mask.has(WatchMask::INITIAL_NETMAP));
        let live = match mask.has(WatchMask::INITIAL_STATUS) {
            true => self.tunnel.live().await,
            false => LiveStatus::default(),
        };
        let initial_status = mask.has(WatchMask::INITIAL_STATUS);
        Notify {
            session_id: HEXLOWER.encode(&session),
            state: Some(snapshot.state),
            browse_to_url: snapshot.auth_url.clone(),
            prefs: Some(Box::new(snapshot.prefs.clone())),
            self_change: netmap.map(|netmap| Box::new(Node::clone(netmap.self_node()))),
            net_map: netmap.map(|netmap| status::netmap_json(netmap, snapshot.node_key)),
            health: Some(snapshot.health.clone()),
            initial_status: initial_status.then(|| Box::new(status::status(snapshot, &live, true))),
            ..self.message()
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
