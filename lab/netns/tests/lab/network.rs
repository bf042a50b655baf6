//! The network itself: routers do what their kind says, relays delay and lose, hosts are apart from the machine.

use std::net::{IpAddr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use tsrs_base_types::NodePrivate;
use tsrs_lab_netns::traffic::DnsServer;
use tsrs_lab_netns::{Host, Impairment, Nat, Net, Topology, WireguardPeer};

use crate::{SOON, Turn, turn_with};

/// The ports that two servers see of one socket of host `a`, if its datagrams come through.
fn mapped_ports(net: &Net) -> Option<(u16, u16, u16)> {
    let servers = net.server_addresses();
    let listeners: Vec<UdpSocket> = servers[..2]
        .iter()
        .map(|&address| net.servers().space().run(move || UdpSocket::bind((address, 9000))).unwrap())
        .collect();
    let socket = net.host("a").space().run(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    let own = socket.local_addr().unwrap().port();
    let mut seen = Vec::new();
    for listener in &listeners {
        listener.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let target = listener.local_addr().unwrap();
        // The first datagram may wait for an address look-up longer than the time-out.
        let from = (0..10).find_map(|_| {
            socket.send_to(b"x", target).unwrap();
            listener.recv_from(&mut [0; 16]).ok()
        });
        seen.push(from?.1.port());
    }
    Some((own, seen[0], seen[1]))
}

#[test]
fn routers_map_ports_as_their_kind_says() {
    let _turn = Turn::take();
    let net = Topology::pair(Nat::Easy, Nat::None).build().unwrap();
    let (own, first, second) = mapped_ports(&net).unwrap();
    assert_eq!((first, second), (own, own));

    net.router("ra").set_nat(Nat::Hard).unwrap();
    let (_, first, second) = mapped_ports(&net).unwrap();
    assert_ne!(first, second);

    net.router("ra").set_nat(Nat::Range).unwrap();
    let (_, first, second) = mapped_ports(&net).unwrap();
    assert_eq!(first, second);
    assert!((50000..=50100).contains(&first), "{first}");

    net.router("ra").set_nat(Nat::UdpBlocked).unwrap();
    assert_eq!(mapped_ports(&net), None);
    // TCP still passes; and DNS.
    let address = SocketAddr::new(IpAddr::V4(net.server_addresses()[0]), 8080);
    let server = net.servers().tcp_server(address).unwrap();
    net.host("a").tcp_transfer(server.address(), 100_000, SOON).unwrap();
    let resolver = SocketAddr::new(address.ip(), 53);
    let dns = DnsServer::start(net.servers().space(), resolver, &[("www.example", address.ip())]).unwrap();
    assert_eq!(net.host("a").resolve("www.example").unwrap(), [address.ip()]);
    assert!(dns.questions() > 0);

    // Behind no NAT a host is reached from outside; behind one it is not.
    net.servers().wait_ping(net.host("b").address(), SOON).unwrap();
    let stranger = net.servers().ping(net.host("a").address(), 1, Duration::from_millis(300)).unwrap();
    assert_eq!(stranger.received, 0);
}

#[test]
fn a_relay_delays_loses_and_cuts() {
    let _turn = Turn::take();
    let net = Topology::pair(Nat::Easy, Nat::Easy).build().unwrap();
    let server = net.server_addresses()[0];
    let a = net.host("a");
    a.wait_ping(server, SOON).unwrap();

    net.impair("ra", Impairment::delay(Duration::from_millis(40))).unwrap();
    let report = a.wait_ping(server, SOON).unwrap();
    assert!(report.best().unwrap() >= Duration::from_millis(80), "{report:?}");
    net.impair("ra", Impairment::default()).unwrap();
    let report = a.ping(server, 3, SOON).unwrap();
    assert!(report.best().unwrap() < Duration::from_millis(40), "{report:?}");

    // Of 400 datagrams, at 200 in a thousand lost each way, about 256 are answered.
    let echo = net.servers().udp_server((server, 9001).into()).unwrap();
    net.impair("ra", Impairment::loss(200)).unwrap();
    let answered = a.udp_echo(echo.address(), 400, 100, SOON).unwrap();
    assert!((180..330).contains(&answered), "{answered}");
    // TCP comes through intact all the same.
    let tcp = net.servers().tcp_server((server, 9002).into()).unwrap();
    net.impair("ra", Impairment::loss(10)).unwrap();
    a.tcp_transfer(tcp.address(), 1 << 20, SOON).unwrap();

    // In front of a host it leaves the router's translation alone.
    net.impair("a", Impairment::delay(Duration::from_millis(1))).unwrap();
    let (own, first, second) = mapped_ports(&net).unwrap();
    assert_eq!((first, second), (own, own));
    net.unimpair("a");

    net.impair("ra", Impairment::cut()).unwrap();
    assert_eq!(a.ping(server, 1, Duration::from_millis(500)).unwrap().received, 0);
    net.unimpair("ra");
    a.wait_ping(server, SOON).unwrap();
    assert_eq!(a.udp_echo(echo.address(), 100, 100, SOON).unwrap(), 100);
}

#[test]
fn a_host_sees_its_own_files_and_a_capture_sees_its_frames() {
    let _turn = Turn::take();
    let net = Topology::one_lan().build().unwrap();
    let (a, b) = (net.host("a"), net.host("b"));
    assert_eq!(a.run("hostname", &[]).unwrap().trim(), "a");
    assert_eq!(a.resolv_conf().unwrap(), format!("nameserver {}\n", net.server_addresses()[0]));
    // Replaced by renaming, as managers of the file do; the other host and the machine keep theirs.
    a.run("sh", &["-c", "echo mine > /etc/resolv.new && mv /etc/resolv.new /etc/resolv.conf"]).unwrap();
    assert_eq!(a.resolv_conf().unwrap(), "mine\n");
    assert_ne!(b.resolv_conf().unwrap(), "mine\n");
    a.run("sh", &["-c", "echo x > /run/x && mkdir /var/lib/y"]).unwrap();
    assert_eq!(std::fs::read_to_string(a.outside("/run/x")).unwrap(), "x\n");
    assert!(a.outside("/var/lib/y").is_dir());
    assert!(!std::path::Path::new("/run/x").exists());

    let capture = b.capture("pings").unwrap();
    a.wait_ping(b.address(), SOON).unwrap();
    let source = a.address();
    tsrs_lab_netns::wait::until("the echo request", SOON, || {
        (capture.count(|seen| seen.protocol == 1 && seen.source == source) > 0).then_some(())
    })
    .unwrap();
    let file = capture.file().to_owned();
    let seen = capture.finish();
    let bytes = std::fs::read(file).unwrap();
    assert_eq!(bytes[..4], 0xa1b2_c3d4_u32.to_le_bytes());
    assert!(bytes.len() > 24 + 16 * seen.len());
}

#[test]
fn two_wireguard_go_meet() {
    let Some(_turn) = turn_with("two_wireguard_go_meet", &["wireguard-go"]) else { return };
    let net = Topology::public_pair().build().unwrap();
    let (a, b) = (net.host("a"), net.host("b"));
    let keys = [1, 2].map(|byte| NodePrivate::from_bytes([byte * 8; 32]));
    let peer = |index: usize, host: &Host| WireguardPeer {
        key: keys[index].public(),
        endpoint: Some(SocketAddrV4::new(host.address(), 51820)),
        allowed_ips: vec![format!("10.9.0.{}/32", index + 1).parse().unwrap()],
        keepalive_secs: 0,
    };
    let _b = b.wireguard_go(&keys[1], 51820, "10.9.0.2/24".parse().unwrap(), &[peer(0, a)]).unwrap();
    let wg = a.wireguard_go(&keys[0], 51820, "10.9.0.1/24".parse().unwrap(), &[peer(1, b)]).unwrap();
    a.wait_ping("10.9.0.2".parse().unwrap(), SOON).unwrap();
    assert!(wg.number("rx_bytes").unwrap() > 0);
    assert!(wg.set("private_key=nonsense\n").is_err());
}
