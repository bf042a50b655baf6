//! Answers to `POST /machine/map`: one map, or the stream (control sheet §10).

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tsrs_base_types::NodeId;
use tsrs_control_tailcfg::MapRequest;

use super::body::{Answer, answer, text};
use crate::shared::Shared;
use crate::tailnet::{Injected, View};

/// Frames that wait for a client before the stream waits for it.
const MAX_FRAMES_WAITING: usize = 16;
/// A keep-alive, as the reference writes it.
const KEEP_ALIVE: &[u8] = b"{\"KeepAlive\":true}";

/// How a client wants its frames.
#[derive(Clone, Copy)]
struct Framing {
    zstd: bool,
}

impl Framing {
    fn of(request: &MapRequest) -> Self {
        Self { zstd: request.compress == "zstd" }
    }

    fn frame(self, json: &[u8]) -> Bytes {
        let packed;
        let body = if self.zstd {
            packed = ruzstd::encoding::compress_to_vec(json, ruzstd::encoding::CompressionLevel::Fastest);
            packed.as_slice()
        } else {
            json
        };
        let mut frame = Vec::with_capacity(4 + body.len());
        // A map of 4 GiB does not fit in memory several times, so it never gets here.
        frame.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
        frame.extend_from_slice(body);
        frame.into()
    }

    fn message(self, message: &impl Serialize) -> Option<Bytes> {
        match serde_json::to_vec(message) {
            Ok(json) => Some(self.frame(&json)),
            Err(error) => {
                tracing::error!(%error, "map message cannot be written");
                None
            }
        }
    }
}

/// One map and the end.
pub(super) fn one(shared: &Shared, id: NodeId, request: &MapRequest) -> Answer {
    let now = Timestamp::now();
    let Some(view) = shared.read(|tailnet| tailnet.view(id, now)) else { return gone() };
    let frame = Framing::of(request).message(&view.full(now)).unwrap_or_default();
    answer(StatusCode::OK, "application/octet-stream", frame)
}

/// The stream; it lives until the client goes, the node is deleted, or another stream of the node begins.
pub(super) fn start(shared: &Arc<Shared>, id: NodeId, request: &MapRequest) -> Answer {
    let Some(number) = shared.change(|tailnet| tailnet.open_stream(id)) else { return gone() };
    let (frames, body) = channel(MAX_FRAMES_WAITING);
    let stream = MapStream { shared: Arc::clone(shared), id, number, framing: Framing::of(request), frames };
    tokio::spawn(stream.run());
    Response::new(StreamBody::new(futures_util::stream::unfold(body, next_frame)).boxed_unsync())
}

async fn next_frame(
    mut body: Receiver<Bytes>,
) -> Option<(Result<Frame<Bytes>, Infallible>, Receiver<Bytes>)> {
    let frame = body.recv().await?;
    Some((Ok(Frame::data(frame)), body))
}

fn gone() -> Answer {
    text(StatusCode::NOT_FOUND, "node not found\n")
}

struct MapStream {
    shared: Arc<Shared>,
    id: NodeId,
    number: u64,
    framing: Framing,
    frames: Sender<Bytes>,
}

impl MapStream {
    async fn run(self) {
        let mut cut = self.shared.cut.subscribe();
        tokio::select! {
            _ = self.send_all() => {}
            () = self.frames.closed() => {}
            _ = cut.changed() => {}
        }
        self.shared.change(|tailnet| tailnet.close_stream(self.id, Timestamp::now()));
    }

    /// Sends frames until the stream is to end, which is `None`.
    async fn send_all(&self) -> Option<()> {
        let mut version = self.shared.version.subscribe();
        let mut sent = None;
        loop {
            version.mark_unchanged();
            if !self.shared.faults.streams_are_silent() {
                let view = self.send_news(sent.as_ref()).await?;
                sent = Some(view);
            }
            self.wait(&mut version).await?;
        }
    }

    /// Sends what is new since the view `old`, and what was injected; gives the view that is then known.
    async fn send_news(&self, old: Option<&View>) -> Option<View> {
        let now = Timestamp::now();
        let (view, injected) = self.shared.change_quietly(|tailnet| {
            let latest = tailnet.nodes.get(&self.id)?.latest_stream;
            (latest == self.number).then_some(())?;
            Some((tailnet.view(self.id, now)?, tailnet.take_injected(self.id)))
        })?;
        let news = match old {
            None => Some(view.full(now)),
            Some(old) => view.since(old, now),
        };
        for frame in news.iter().filter_map(|message| self.framing.message(message)) {
            self.frames.send(frame).await.ok()?;
        }
        for injected in injected {
            let bytes = match injected {
                Injected::Message(message) => self.framing.message(&message)?,
                Injected::Raw(bytes) => bytes.into(),
            };
            self.frames.send(bytes).await.ok()?;
        }
        Some(view)
    }

    /// Waits for a change; sends keep-alives meanwhile.
    async fn wait(&self, version: &mut tokio::sync::watch::Receiver<u64>) -> Option<()> {
        loop {
            match tokio::time::timeout(self.shared.keep_alive, version.changed()).await {
                Ok(changed) => return changed.ok(),
                Err(_) if self.shared.faults.streams_are_silent() => {}
                Err(_) => self.frames.send(self.framing.frame(KEEP_ALIVE)).await.ok()?,
            }
        }
    }
}
