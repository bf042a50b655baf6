//! Which proxies are used at all.

use super::*;

async fn set_with(dialer: &RealDialer, config: ProxyConfig, facts: &HostFacts) -> ProxyStatus {
    dialer.set_egress(Egress::Proxies(ProxyList::new(vec![config]).unwrap()), facts).await;
    dialer.status().remove(0)
}

fn config(url: &str, allow_local: bool) -> ProxyConfig {
    ProxyConfig { url: url.parse().unwrap(), credentials: None, allow_local }
}

#[tokio::test]
async fn nothing_is_dialled_without_a_proxy() {
    let binder = FakeBinder::default();
    let dialer = dialer(binder.clone());
    assert_eq!(dialer.connect(destination()).await.err(), Some(DialError::Closed));
    dialer.set_egress(Egress::Closed, &HostFacts::default()).await;
    assert_eq!(dialer.connect(destination()).await.err(), Some(DialError::Closed));
    assert_eq!(dialer.associate().await.err(), Some(DialError::Closed));
    assert_eq!(binder.marked(), 0);
    assert!(ProxyList::new(Vec::new()).is_none());
    assert!(ProxyList::new(vec![local("socks5", 1); MAX_PROXY_COUNT + 1]).is_none());
}

#[tokio::test]
async fn a_proxy_on_this_host_needs_leave_and_is_shown_as_such() {
    let dialer = dialer(FakeBinder::default());
    let facts = HostFacts { own_addresses: [Ipv4Addr::new(11, 0, 0, 7)].into(), tunnelled: Vec::new() };
    for url in ["socks5://127.0.0.1:1080", "http://11.0.0.7:80", "socks5://localhost:1080"] {
        let status = set_with(&dialer, config(url, false), &facts).await;
        assert!(matches!(status.health, Health::Down(ProxyFailure::Address(_))), "{url}");
        assert!(status.addresses.is_empty());
        let error = dialer.connect(destination()).await.unwrap_err();
        assert!(error.to_string().contains("allow a local proxy"), "{error}");
        let status = set_with(&dialer, config(url, true), &facts).await;
        assert!(status.is_local && status.health == Health::Unknown, "{url}");
    }
}

#[tokio::test]
async fn a_name_is_resolved_by_the_host_and_bad_answers_are_left_out() {
    let hosts = "11.0.0.8 good.test\n100.64.0.9 mixed.test\n11.0.0.9 mixed.test\n100.64.0.9 bad.test\n";
    let hosts_file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(hosts_file.path(), hosts).unwrap();
    let dialer = RealDialer::new(Arc::new(FakeBinder::default()), net(hosts_file.path()));
    let facts = HostFacts::default();
    let addresses = async |url: &str| set_with(&dialer, config(url, true), &facts).await.addresses;
    assert_eq!(addresses("socks5://good.test").await, [Ipv4Addr::new(11, 0, 0, 8)]);
    assert_eq!(dialer.proxy_addresses(), [Ipv4Addr::new(11, 0, 0, 8)].into());
    assert_eq!(addresses("socks5://mixed.test").await, [Ipv4Addr::new(11, 0, 0, 9)]);
    assert!(addresses("socks5://bad.test").await.is_empty());
    assert!(dialer.proxy_addresses().is_empty());
    let error = dialer.connect(destination()).await.unwrap_err();
    assert!(error.to_string().contains("through the tunnel"), "{error}");
    let unknown = set_with(&dialer, config("socks5://unknown.test", true), &facts).await;
    assert!(matches!(unknown.health, Health::Down(ProxyFailure::Name(_))));
}

#[tokio::test]
async fn plain_credentials_are_shown_unless_they_stay_on_this_host() {
    let dialer = dialer(FakeBinder::default());
    let credentials = || Some(Arc::new(Credentials::parse(b"user:hunter2").unwrap()));
    for (url, expected) in [
        ("socks5://11.0.0.8:1080", true),
        ("http://11.0.0.8:3128", true),
        ("https://11.0.0.8:3129", false),
        ("socks5://127.0.0.1:1080", false),
    ] {
        let config = ProxyConfig { credentials: credentials(), ..config(url, true) };
        assert!(!format!("{config:?}").contains("hunter2"));
        let status = set_with(&dialer, config, &HostFacts::default()).await;
        assert_eq!(status.sends_plain_credentials, expected, "{url}");
        assert!(!format!("{status:?}").contains("hunter2"));
        assert!(
            !set_with(&dialer, self::config(url, true), &HostFacts::default()).await.sends_plain_credentials
        );
    }
}

#[tokio::test]
async fn a_new_setting_ends_what_the_old_one_dialled() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let dialer = dialer(FakeBinder::default());
    set(&dialer, vec![local("socks5", port)]).await;
    let proxy = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_exact(&mut [0; 3]).await.unwrap();
        stream.write_all(b"\x05\0").await.unwrap();
        stream.read_exact(&mut [0; 10]).await.unwrap();
        stream.write_all(b"\x05\0\0\x01\0\0\0\0\0\0").await.unwrap();
        stream
    };
    let (dialled, _stream) = tokio::join!(dialer.connect(destination()), proxy);
    let mut retired = dialled.unwrap().retired;
    assert!(!*retired.borrow_and_update());
    dialer.set_egress(Egress::Closed, &HostFacts::default()).await;
    retired.changed().await.unwrap();
    assert!(*retired.borrow());
}

#[tokio::test]
async fn a_setting_that_changes_during_a_dial_ends_the_dial() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let dialer = dialer(FakeBinder::default());
    set(&dialer, vec![local("socks5", port)]).await;
    let proxy = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_exact(&mut [0; 3]).await.unwrap();
        stream.write_all(b"\x05\0").await.unwrap();
        stream.read_exact(&mut [0; 10]).await.unwrap();
        dialer.set_egress(Egress::Closed, &HostFacts::default()).await;
        stream.write_all(b"\x05\0\0\x01\0\0\0\0\0\0").await.unwrap();
        stream
    };
    let (dialled, _stream) = tokio::join!(dialer.connect(destination()), proxy);
    assert_eq!(dialled.err(), Some(DialError::Closed));
}

#[tokio::test]
async fn a_proxy_that_moves_is_followed_and_its_old_streams_end() {
    let hosts_file = tempfile::NamedTempFile::new().unwrap();
    let hosts = |text: &str| std::fs::write(hosts_file.path(), text).unwrap();
    let dialer = RealDialer::new(Arc::new(FakeBinder::default()), net(hosts_file.path()));
    let facts = HostFacts::default();
    let retired = |dialer: &RealDialer| dialer.state.load().retired.subscribe();
    hosts("11.0.0.8 proxy.test\n11.0.0.9 proxy.test\n");
    set_with(&dialer, config("socks5://proxy.test", false), &facts).await;
    let first = retired(&dialer);

    hosts("11.0.0.9 proxy.test\n11.0.0.8 proxy.test\n");
    assert!(!dialer.refresh(&facts).await, "only the order changed");
    hosts("");
    assert!(!dialer.refresh(&facts).await, "nobody knows better");
    assert!(!*first.borrow());

    hosts("11.0.0.10 proxy.test\n");
    assert!(dialer.refresh(&facts).await);
    assert!(*first.borrow());
    assert_eq!(dialer.proxy_addresses(), [Ipv4Addr::new(11, 0, 0, 10)].into());

    // The address becomes this host's own.
    let own = HostFacts { own_addresses: [Ipv4Addr::new(11, 0, 0, 10)].into(), tunnelled: Vec::new() };
    let second = retired(&dialer);
    assert!(dialer.refresh(&own).await);
    assert!(*second.borrow() && dialer.proxy_addresses().is_empty());
    assert!(matches!(dialer.connect(destination()).await, Err(DialError::Proxies(_))));
}
