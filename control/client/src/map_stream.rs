//! Reading one map stream, with its watchdog (control protocol sheet §10).

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tsrs_control_tailcfg::{MapRequest, MapResponse};

use crate::calls::open_map;
use crate::connection::{Connector, chain};
use crate::error::Error;
use crate::frames::{Decoded, FrameCutter, KeepAliveCache, decode};

const WHAT: &str = "reading the map stream";
/// The stream is given up when nothing comes for so long. Servers send a keep-alive about once a minute.
const WATCHDOG: Duration = Duration::from_secs(120);
/// From this length on, a frame is decoded on a thread of its own: it takes long enough to hold others up.
const LARGE_FRAME_LEN: usize = 64 * 1024;

/// What a map stream gives.
#[derive(Debug)]
pub(crate) enum MapItem {
    /// A frame with content.
    Response(Box<MapResponse>),
    /// The stream ended. Nothing follows.
    Ended(Error),
}

/// Reads a stream until it ends. While the receiver does not take an item, nothing is read and the watchdog stands.
pub(crate) async fn read_map(connector: &Connector, request: &MapRequest, items: mpsc::Sender<MapItem>) {
    let error = match read(connector, request, &items).await {
        Ok(never) => match never {},
        Err(error) => error,
    };
    // Nobody may listen any more.
    let _ = items.send(MapItem::Ended(error)).await;
}

enum Never {}

async fn read(
    connector: &Connector,
    request: &MapRequest,
    items: &mpsc::Sender<MapItem>,
) -> Result<Never, Error> {
    let mut body = watched(open_map(connector, request)).await?;
    read_frames(&mut body, items).await
}

async fn read_frames<B>(body: &mut B, items: &mpsc::Sender<MapItem>) -> Result<Never, Error>
where
    B: Body<Data = Bytes, Error: std::error::Error + 'static> + Unpin,
{
    let mut cutter = FrameCutter::default();
    let mut keep_alives = KeepAliveCache::default();
    loop {
        while let Some(frame) = cutter.next().map_err(|error| garbage(&error))? {
            if keep_alives.is_keep_alive(&frame) {
                continue;
            }
            match decode_and_parse(&frame).await? {
                Some(response) => {
                    if items.send(MapItem::Response(response)).await.is_err() {
                        return Err(Error::Broken("nobody reads the map stream".to_owned()));
                    }
                }
                None => keep_alives.remember(&frame),
            }
        }
        match watched(next_chunk(body)).await? {
            Some(chunk) => cutter.push(&chunk),
            None if cutter.is_between_frames() => {
                return Err(Error::Broken("the server ended the map stream".to_owned()));
            }
            None => return Err(Error::Broken("the server ended the map stream within a frame".to_owned())),
        }
    }
}

async fn watched<T>(step: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(WATCHDOG, step).await.unwrap_or(Err(Error::Timeout { what: WHAT, after: WATCHDOG }))
}

async fn next_chunk<B>(body: &mut B) -> Result<Option<Bytes>, Error>
where
    B: Body<Data = Bytes, Error: std::error::Error + 'static> + Unpin,
{
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(|error| Error::Broken(chain(&error)))?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// The map response in a frame; `None` for a bare keep-alive.
async fn decode_and_parse(frame: &Bytes) -> Result<Option<Box<MapResponse>>, Error> {
    if frame.len() < LARGE_FRAME_LEN {
        return parse(frame);
    }
    let frame = frame.clone();
    let parsed = tokio::task::spawn_blocking(move || parse(&frame)).await;
    parsed.unwrap_or_else(|error| Err(Error::Garbage { what: WHAT, reason: error.to_string() }))
}

pub(crate) fn parse(frame: &Bytes) -> Result<Option<Box<MapResponse>>, Error> {
    match decode(frame).map_err(|error| garbage(&error))? {
        Decoded::KeepAlive => Ok(None),
        Decoded::Json(json) => serde_json::from_slice(&json).map(Some).map_err(|error| garbage(&error)),
    }
}

fn garbage(error: &dyn std::error::Error) -> Error {
    Error::Garbage { what: WHAT, reason: error.to_string() }
}

#[cfg(test)]
mod tests;
