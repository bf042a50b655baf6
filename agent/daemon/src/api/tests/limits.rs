//! Clients that are slow, many, or gone; the clock is virtual.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

use super::bench::{Bench, OTHER, ROOT, head};

/// How long a connection stays open if the client does nothing more.
async fn open_for(stream: &mut DuplexStream) -> (Duration, Vec<u8>) {
    tokio::time::pause();
    let began = Instant::now();
    let mut answer = Vec::new();
    // A reset is an end, too.
    let _ = stream.read_to_end(&mut answer).await;
    let lasted = began.elapsed();
    tokio::time::resume();
    (lasted, answer)
}

#[tokio::test]
async fn a_head_that_does_not_come_ends_the_connection() {
    let bench = Bench::new().await;
    for start in ["", "GET /localapi/v0/status HT", "GET /localapi/v0/status HTTP/1.1\r\nHost: local-"] {
        let mut stream = bench.connect(OTHER);
        stream.write_all(start.as_bytes()).await.unwrap();
        let (lasted, _) = open_for(&mut stream).await;
        assert!(
            (Duration::from_secs(25)..Duration::from_secs(40)).contains(&lasted),
            "{start:?}: {lasted:?}"
        );
    }
}

#[tokio::test]
async fn a_connection_may_be_kept_but_not_for_ever() {
    let bench = Bench::new().await;
    let mut stream = bench.connect(ROOT);
    let request = "GET /localapi/v0/prefs HTTP/1.1\r\nHost: local-tailscaled.sock\r\n\r\n";
    for _ in 0..3 {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 64 << 10];
        let len = stream.read(&mut answer).await.unwrap();
        assert!(answer[..len].starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
    let (lasted, _) = open_for(&mut stream).await;
    assert!((Duration::from_secs(25)..Duration::from_secs(40)).contains(&lasted), "{lasted:?}");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_refused() {
    let bench = Bench::new().await;
    let mut stream = bench.connect(ROOT);
    let request = format!("{}Content-Length: 100\r\n\r\n{{", head("PATCH", "/localapi/v0/prefs"));
    stream.write_all(request.as_bytes()).await.unwrap();
    let (lasted, answer) = open_for(&mut stream).await;
    assert!(answer.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&answer));
    assert!(lasted < Duration::from_secs(40), "{lasted:?}");
}

#[tokio::test]
async fn a_watcher_that_leaves_makes_room_at_once() {
    let bench = Bench::new().await;
    let mut stream = bench.connect(OTHER);
    stream.write_all(format!("{}\r\n", head("GET", "/localapi/v0/watch-ipn-bus")).as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    while !bench.bus.is_watched() {
        tokio::task::yield_now().await;
    }
    drop(stream);
    let gone = async {
        while bench.bus.is_watched() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
}
