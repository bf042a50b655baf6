//! The reader with a virtual clock: time passes only when nothing else can happen.

use std::convert::Infallible;

use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::*;
use crate::error::ErrorKind;
use crate::test_server::framed;

/// A body that gives these chunks, each after a pause, and then ends or stays silent.
fn body(chunks: Vec<(Duration, Bytes)>, ends: bool) -> impl Body<Data = Bytes, Error = Infallible> + Unpin {
    let frames = stream::unfold(chunks.into_iter(), move |mut chunks| async move {
        match chunks.next() {
            Some((pause, chunk)) => {
                sleep(pause).await;
                Some((Ok(Frame::data(chunk)), chunks))
            }
            None if ends => None,
            None => std::future::pending().await,
        }
    });
    StreamBody::new(Box::pin(frames))
}

/// Reads a body to its end; gives the responses and why it ended.
async fn read_all(chunks: Vec<(Duration, Bytes)>, ends: bool) -> (Vec<MapResponse>, Error) {
    let (sender, mut items) = mpsc::channel(1);
    let mut body = body(chunks, ends);
    let reader = async move {
        match read_frames(&mut body, &sender).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    };
    let collector = async {
        let mut responses = Vec::new();
        while let Some(item) = items.recv().await {
            match item {
                MapItem::Response(response) => responses.push(*response),
                MapItem::Ended(error) => panic!("{error}"),
            }
        }
        responses
    };
    let (error, responses) = tokio::join!(reader, collector);
    (responses, error)
}

const MINUTE: Duration = Duration::from_secs(60);

fn keep_alive() -> Bytes {
    framed(&json!({"KeepAlive": true}))
}

#[tokio::test(start_paused = true)]
async fn keep_alives_feed_the_watchdog_and_silence_ends_the_stream() {
    let started = Instant::now();
    let (responses, error) = read_all(vec![(MINUTE, keep_alive()); 10], false).await;
    assert!(responses.is_empty());
    assert_eq!(started.elapsed(), 12 * MINUTE);
    assert!(matches!(error, Error::Timeout { after: WATCHDOG, .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_keep_alive_that_carries_something_is_passed_on() {
    let ping = json!({"KeepAlive": true, "PingRequest": {"URL": "http://x/1"}});
    let (responses, error) = read_all(vec![(MINUTE, keep_alive()), (MINUTE, framed(&ping))], true).await;
    assert_eq!(responses.len(), 1);
    assert!(responses[0].keep_alive && responses[0].ping_request.is_some());
    assert_eq!(error.kind(), ErrorKind::Broken);
}

#[tokio::test(start_paused = true)]
async fn the_watchdog_stands_while_a_message_is_processed() {
    let (sender, mut items) = mpsc::channel(1);
    let chunk = framed(&json!({"Domain": "lab.test"}));
    let mut body = body(vec![(Duration::ZERO, chunk); 4], true);
    let reader = tokio::spawn(async move { read_frames(&mut body, &sender).await.map(|_| ()) });
    // Each message takes an hour.
    let mut seen = 0;
    while let Some(MapItem::Response(response)) = items.recv().await {
        assert_eq!(response.domain, "lab.test");
        sleep(60 * MINUTE).await;
        seen += 1;
    }
    assert_eq!(seen, 4);
    assert!(matches!(reader.await.unwrap(), Err(Error::Broken(_))));
}

#[tokio::test(start_paused = true)]
async fn garbage_and_truncation_end_the_stream() {
    let whole = framed(&json!({"Domain": "lab.test"}));
    for len in 1..whole.len() {
        let (responses, error) = read_all(vec![(Duration::ZERO, whole.slice(..len))], true).await;
        assert!(responses.is_empty() && error.to_string().contains("within a frame"), "{len}: {error}");
    }
    for bad in [
        &b"\x03\0\0\0abc"[..],
        b"\x02\0\0\0[1",
        b"\0\0\0\0",
        b"\xff\xff\xff\xff",
        b"\x05\0\0\0\x28\xb5\x2f\xfd\0",
    ] {
        let (responses, error) = read_all(vec![(Duration::ZERO, Bytes::from_static(bad))], true).await;
        assert!(
            responses.is_empty() && error.kind() == ErrorKind::Garbage,
            "{}: {error}",
            bad.escape_ascii()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_frame_is_parsed_all_the_same() {
    let domain = "x".repeat(3 * LARGE_FRAME_LEN);
    let frame = framed(&json!({ "Domain": domain }));
    let chunks = frame.chunks(1000).map(|chunk| (Duration::ZERO, Bytes::copy_from_slice(chunk))).collect();
    let (responses, _) = read_all(chunks, true).await;
    assert_eq!(responses[0].domain, domain);
}
