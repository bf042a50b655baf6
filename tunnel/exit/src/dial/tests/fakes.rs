//! Against proxies on loopback that behave in one way or another.

use super::*;

/// A proxy that plays one role on each of its connections, and counts them.
struct Fake {
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl Fake {
    async fn start<F>(role: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(role(stream));
            }
        });
        Self { port, connections }
    }

    /// Lets in, and answers each request with these bytes. Then it echoes.
    async fn answering(answer: &'static [u8]) -> Self {
        Self::start(move |mut stream| async move {
            stream.read_exact(&mut [0; 3]).await?;
            stream.write_all(b"\x05\0").await?;
            stream.read_exact(&mut [0; 10]).await?;
            stream.write_all(answer).await?;
            let (mut reader, mut writer) = stream.split();
            tokio::io::copy(&mut reader, &mut writer).await.map(drop)
        })
        .await
    }

    /// Takes connections and sends these bytes without being asked.
    async fn shouting(bytes: &'static [u8]) -> Self {
        Self::start(move |mut stream| async move {
            stream.write_all(bytes).await?;
            stream.read_to_end(&mut Vec::new()).await.map(drop)
        })
        .await
    }

    fn count(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

const YES: &[u8] = b"\x05\0\0\x01\0\0\0\0\0\0";

/// A port of loopback where nobody listens.
async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn what_arrives_with_the_answer_is_read_first() {
    let proxy = Fake::answering(b"\x05\0\0\x01\0\0\0\0\0\0hello ").await;
    let binder = FakeBinder::default();
    let dialer = dialer(binder.clone());
    set(&dialer, vec![local("socks5", proxy.port)]).await;
    let mut dialled = dialer.connect(destination()).await.unwrap();
    dialled.stream.write_all(b"world").await.unwrap();
    dialled.stream.shutdown().await.unwrap();
    let mut text = String::new();
    dialled.stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hello world");
    assert_eq!(binder.marked(), 1);
    assert_eq!(dialer.status()[0].health, Health::Up);
}

#[tokio::test]
async fn a_broken_proxy_hands_over_to_the_next_and_is_asked_last_from_then_on() {
    let garbage = Fake::shouting(b"SSH-2.0-OpenSSH_9\r\n").await;
    let good = Fake::answering(YES).await;
    let dialer = dialer(FakeBinder::default());
    set(
        &dialer,
        vec![local("socks5", closed_port().await), local("socks5", garbage.port), local("socks5", good.port)],
    )
    .await;
    for _ in 0..3 {
        let dialled = dialer.connect(destination()).await.unwrap();
        assert_eq!(dialled.proxy.port, good.port);
    }
    assert_eq!(garbage.count(), 1);
    let healths: Vec<_> = dialer.status().into_iter().map(|status| status.health).collect();
    assert!(matches!(healths[0], Health::Down(ProxyFailure::Unreachable(_))), "{healths:?}");
    let garbage = ProxyFailure::Handshake(ProxyError::Garbage(Garbage::Version));
    assert_eq!(healths[1..], [Health::Down(garbage), Health::Up]);
}

#[tokio::test]
async fn a_destination_that_refuses_is_not_tried_through_the_next_proxy() {
    let refusing = Fake::answering(b"\x05\x05\0\x01\0\0\0\0\0\0").await;
    let other = Fake::answering(YES).await;
    let dialer = dialer(FakeBinder::default());
    set(&dialer, vec![local("socks5", refusing.port), local("socks5", other.port)]).await;
    let error = dialer.connect(destination()).await.unwrap_err();
    let expected = ProxyError::Refused(Reply::ConnectionRefused);
    assert!(matches!(error, DialError::Destination { error, .. } if error == expected), "{error}");
    assert_eq!(other.count(), 0);
    assert_eq!(dialer.status()[0].health, Health::Unknown);
}

#[tokio::test]
async fn a_proxy_that_forbids_a_destination_hands_over_and_stays_in_use() {
    let forbidding = Fake::answering(b"\x05\x02\0\x01\0\0\0\0\0\0").await;
    let other = Fake::answering(YES).await;
    let dialer = dialer(FakeBinder::default());
    set(&dialer, vec![local("socks5", forbidding.port), local("socks5", other.port)]).await;
    for _ in 0..2 {
        assert_eq!(dialer.connect(destination()).await.unwrap().proxy.port, other.port);
    }
    assert_eq!(forbidding.count(), 2);
}

#[tokio::test]
async fn without_a_working_proxy_every_reason_is_told_and_nothing_else_is_tried() {
    let garbage = Fake::shouting(b"garbage").await;
    let closing = Fake::start(|stream| async move {
        drop(stream);
        Ok(())
    })
    .await;
    let dialer = dialer(FakeBinder::default());
    set(&dialer, vec![local("socks5", garbage.port), local("http", closing.port)]).await;
    let text = dialer.connect(destination()).await.unwrap_err().to_string();
    assert!(text.contains("the version is another") && text.contains("closed the connection"), "{text}");
    assert!(text.contains(&format!("http://127.0.0.1:{}", closing.port)), "{text}");
}

#[tokio::test]
async fn an_endless_head_is_given_up() {
    let endless = Fake::start(|mut stream| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
        loop {
            stream.write_all(b"A: b\r\n").await?;
        }
    })
    .await;
    let dialer = dialer(FakeBinder::default());
    set(&dialer, vec![local("http", endless.port)]).await;
    let error = dialer.connect(destination()).await.unwrap_err();
    let DialError::Proxies(failures) = error else { panic!("{error}") };
    assert_eq!(failures[0].1, ProxyFailure::Handshake(ProxyError::Garbage(Garbage::TooManyFields)));
}

/// Refuses the mark from the n-th socket on.
struct Refusing {
    after: usize,
    asked: AtomicUsize,
}

impl ExitBinder for Refusing {
    fn mark_exit(&self, _fd: BorrowedFd<'_>) -> io::Result<()> {
        if self.asked.fetch_add(1, Ordering::SeqCst) < self.after {
            Ok(())
        } else {
            Err(io::Error::other("the chain is gone"))
        }
    }
}

#[tokio::test]
async fn a_refused_mark_dials_nothing_not_even_the_next_proxy() {
    let (first, second) = (Fake::answering(YES).await, Fake::answering(YES).await);
    let dialer = dialer(Refusing { after: 0, asked: AtomicUsize::new(0) });
    set(&dialer, vec![local("socks5", first.port), local("socks5", second.port)]).await;
    for error in [dialer.connect(destination()).await.err(), dialer.associate().await.err()] {
        assert_eq!(error, Some(DialError::Mark("the chain is gone".to_owned())));
    }
    dialer.check_health().await;
    assert_eq!((first.count(), second.count()), (0, 0));
    assert_eq!(dialer.status()[0].health, Health::Unknown);
}

#[tokio::test]
async fn the_socket_of_a_relay_is_marked_too() {
    let proxy = Fake::answering(b"\x05\0\0\x01\x7f\0\0\x01\0\x09").await;
    let dialer = dialer(Refusing { after: 1, asked: AtomicUsize::new(0) });
    set(&dialer, vec![local("socks5", proxy.port)]).await;
    assert_eq!(dialer.associate().await.err(), Some(DialError::Mark("the chain is gone".to_owned())));
}

#[tokio::test]
async fn a_relay_somewhere_else_is_refused() {
    let proxy = Fake::answering(b"\x05\0\0\x01\x0b\0\0\x01\0\x09").await;
    let dialer = dialer(FakeBinder::default());
    set(&dialer, vec![local("socks5", proxy.port)]).await;
    let error = dialer.associate().await.err();
    let Some(DialError::Proxies(failures)) = error else { panic!("{error:?}") };
    assert_eq!(failures[0].1, ProxyFailure::Handshake(ProxyError::Garbage(Garbage::RelayAddress)));
}

#[tokio::test]
async fn an_association_ends_with_its_connection() {
    let relay = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = relay.local_addr().unwrap().port();
    let (end, mut ended) = watch::channel(false);
    ended.mark_unchanged();
    let proxy = Fake::start(move |mut stream| {
        let mut ended = ended.clone();
        async move {
            stream.read_exact(&mut [0; 3]).await?;
            stream.write_all(b"\x05\0").await?;
            stream.read_exact(&mut [0; 10]).await?;
            stream.write_all(&[b"\x05\0\0\x01\0\0\0\0".as_slice(), &port.to_be_bytes()].concat()).await?;
            ended.changed().await.map_err(io::Error::other)
        }
    })
    .await;
    let dialer = dialer(FakeBinder::default());
    set(&dialer, vec![local("socks5", proxy.port)]).await;
    let mut association = dialer.associate().await.unwrap();
    association.send(destination(), b"ping").await.unwrap();
    let mut buffer = [0; 2048];
    let (len, from) = relay.recv_from(&mut buffer).await.unwrap();
    assert_eq!(buffer[..len], *b"\0\0\0\x01\x0b\x01\x02\x03\x01\xbbping");
    relay.send_to(b"\0\0\0\x01\x0b\x01\x02\x03\x01\xbbpong", from).await.unwrap();
    relay.send_to(b"\0\0\x01\x01\x0b\x01\x02\x03\x01\xbbpong", from).await.unwrap();
    let received = association.recv(&mut buffer).await.unwrap();
    let sender = destination().address();
    assert_eq!(received, Received::Datagram { sender, payload: b"pong".as_slice() });
    let received = association.recv(&mut buffer).await.unwrap();
    assert_eq!(received, Received::Bad(crate::proxy::UdpHeaderError::Fragment));
    let long = vec![0; MAX_DATAGRAM_LEN + 1];
    assert_eq!(association.send(destination(), &long).await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    end.send_replace(true);
    assert!(matches!(association.recv(&mut buffer).await, Err(AssociationError::Ended)));
}

#[tokio::test]
async fn health_is_a_login_and_no_request() {
    let (requests, mut seen) = watch::channel(0_usize);
    let proxy = Fake::start(move |mut stream| {
        let requests = requests.clone();
        async move {
            stream.read_exact(&mut [0; 3]).await?;
            stream.write_all(b"\x05\0").await?;
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await?;
            requests.send_modify(|sum| *sum += rest.len());
            Ok(())
        }
    })
    .await;
    let dialer = dialer(FakeBinder::default());
    set(&dialer, vec![local("socks5", proxy.port), local("http", closed_port().await)]).await;
    dialer.check_health().await;
    seen.changed().await.unwrap();
    assert_eq!(*seen.borrow(), 0, "the proxy was asked for something");
    let healths: Vec<_> = dialer.status().into_iter().map(|status| status.health).collect();
    assert_eq!(healths[0], Health::Up);
    assert!(matches!(healths[1], Health::Down(ProxyFailure::Unreachable(_))));
}
