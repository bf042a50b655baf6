//! The handshake over a stream, under a clock that stands still.

use tokio::io::{DuplexStream, duplex};

use super::*;

fn handshake(url: &str, purpose: Purpose) -> Handshake {
    Handshake::new(&url.parse().unwrap(), purpose, None, now()).unwrap()
}

/// Runs the handshake against the proxy `role`; gives its end and how long it took.
async fn against<F: Future>(
    url: &str,
    role: impl FnOnce(DuplexStream) -> F,
) -> (Result<Outcome, ProxyError>, Duration) {
    let (mut near, far) = duplex(64);
    let mut handshake = handshake(url, Purpose::Connect(destination()));
    let start = Instant::now();
    let ends = tokio::select! {
        ends = negotiate(&mut near, &mut handshake) => ends,
        _ = role(far) => panic!("the proxy gave up first"),
    };
    (ends.map(|(outcome, _)| outcome), start.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_silent_proxy_is_given_up_at_the_limit() {
    let silent = |far| async move {
        let _far = far;
        std::future::pending::<()>().await;
    };
    let (ends, after) = against("socks5://11.0.0.8:1080", silent).await;
    assert_eq!((ends, after.as_secs()), (Err(ProxyError::Silent), 5));
    let (ends, after) = against("http://11.0.0.8:3128", silent).await;
    assert_eq!((ends, after.as_secs()), (Err(ProxyError::NoAnswer), 15));
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_drips_is_given_up_at_the_same_limit() {
    let dripping = |mut far: DuplexStream| async move {
        far.write_all(b"HTTP/1.1 200 OK\r\nA: ").await.unwrap();
        loop {
            tokio::time::sleep(Duration::from_millis(900)).await;
            far.write_all(b"x").await.unwrap();
        }
    };
    let (ends, after) = against("http://11.0.0.8:3128", dripping).await;
    assert_eq!((ends, after.as_secs()), (Err(ProxyError::NoAnswer), 15));
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_reads_nothing_is_given_up() {
    let (mut near, _far) = duplex(1);
    let mut handshake = handshake("socks5://11.0.0.8:1080", Purpose::Health);
    assert_eq!(negotiate(&mut near, &mut handshake).await.err(), Some(ProxyError::Silent));
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_lets_in_and_then_hangs_is_no_fault_of_its_own() {
    let hanging = |mut far: DuplexStream| async move {
        far.read_exact(&mut [0; 3]).await.unwrap();
        far.write_all(b"\x05\0").await.unwrap();
        let _far = far;
        std::future::pending::<()>().await;
    };
    let (ends, after) = against("socks5://11.0.0.8:1080", hanging).await;
    assert_eq!((ends, after.as_secs()), (Err(ProxyError::NoAnswer), 15));
}
