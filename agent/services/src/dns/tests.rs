//! The service against real upstream sockets on loopback.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tsrs_platform_net::{DnsServers, NetConfig};
use tsrs_tunnel_dns::{Header, Routes};

use super::*;

/// On loopback nothing has to bypass anything.
struct NoMark;

impl SocketBinder for NoMark {
    fn mark_bypass(&self, _: BorrowedFd<'_>) -> std::io::Result<()> {
        Ok(())
    }
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

/// A service, and the ends of its link.
fn service() -> (DnsService, mpsc::Sender<Vec<u8>>, mpsc::Receiver<Vec<u8>>) {
    let (to_service, from_tun) = mpsc::channel(16);
    let (to_tun, from_service) = mpsc::channel(16);
    let binder: Arc<dyn SocketBinder> = Arc::new(NoMark);
    let net = Net::new(NetConfig::new(Arc::clone(&binder), DnsServers::new([], []))).unwrap();
    let settings = DnsSettings { from_tun, to_tun, net, binder, through_tunnel: Arc::new(|_| false) };
    (DnsService::start(settings), to_service, from_service)
}

async fn forwarding_to(service: &DnsService, server: SocketAddr) {
    let routes: Routes = [(Name::default(), vec![Upstream::Plain(server)])].into_iter().collect();
    service.set_config(Config { routes, ..Config::default() }).await;
}

fn answer_to(query: &[u8], flags: u16) -> Vec<u8> {
    let mut answer = query.to_vec();
    answer[2..4].copy_from_slice(&flags.to_be_bytes());
    answer
}

#[tokio::test]
async fn hosts_of_the_tailnet_are_answered_and_can_be_taken_back() {
    let (service, _to, _from) = service();
    let host = name("a.tail.test");
    service.set_config(Config { local_domains: [name("tail.test")].into(), ..Config::default() }).await;
    let set = HostChange::Set {
        name: host.clone(),
        addresses: vec!["100.64.0.7".parse().unwrap()],
        with_subdomains: false,
    };
    service.change_hosts(vec![set]).await;
    let (answer, upstreams) = service.ask(host.clone(), QueryType::A).await.unwrap();
    assert!(answer.ends_with(&[100, 64, 0, 7]));
    assert!(upstreams.is_empty());
    service.change_hosts(vec![HostChange::Remove(host.clone())]).await;
    let (answer, _) = service.ask(host, QueryType::A).await.unwrap();
    assert_eq!(Header::read(&answer).unwrap().code(), 3);
}

#[tokio::test]
async fn an_upstream_is_asked_by_udp_and_forged_ids_are_ignored() {
    let (service, _to, _from) = service();
    let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    forwarding_to(&service, upstream.local_addr().unwrap()).await;
    let asking = tokio::spawn(async move { service.ask(name("www.example.com"), QueryType::A).await });
    let mut query = vec![0; 512];
    let (len, client) = upstream.recv_from(&mut query).await.unwrap();
    let mut forged = answer_to(&query[..len], 0x8183);
    forged[0] ^= 1;
    upstream.send_to(&forged, client).await.unwrap();
    upstream.send_to(&answer_to(&query[..len], 0x8180), client).await.unwrap();
    let (answer, upstreams) = asking.await.unwrap().unwrap();
    assert_eq!(Header::read(&answer).unwrap().code(), 0);
    assert_eq!(upstreams, [Upstream::Plain(upstream.local_addr().unwrap())]);
}

#[tokio::test]
async fn a_truncated_answer_is_asked_for_again_by_tcp() {
    let (service, _to, _from) = service();
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = udp.local_addr().unwrap();
    let tcp = TcpListener::bind(address).await.unwrap();
    forwarding_to(&service, address).await;
    let asking = tokio::spawn(async move { service.ask(name("www.example.com"), QueryType::A).await });
    let mut query = vec![0; 512];
    let (len, client) = udp.recv_from(&mut query).await.unwrap();
    udp.send_to(&answer_to(&query[..len], 0x8380), client).await.unwrap();
    let (mut stream, _) = tcp.accept().await.unwrap();
    let mut framed = vec![0; 2 + len];
    stream.read_exact(&mut framed).await.unwrap();
    let answer = answer_to(&framed[2..], 0x8180);
    stream.write_all(&framed[..2]).await.unwrap();
    stream.write_all(&answer).await.unwrap();
    assert_eq!(asking.await.unwrap().unwrap().0, answer);
}

#[tokio::test]
async fn a_dead_upstream_is_servfail_at_once() {
    let (service, _to, _from) = service();
    let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    forwarding_to(&service, closed).await;
    let (answer, _) = service.ask(name("www.example.com"), QueryType::A).await.unwrap();
    assert_eq!(Header::read(&answer).unwrap().code(), 2);
}

#[tokio::test]
async fn a_packet_of_the_host_is_answered_with_a_packet() {
    let (service, to_service, mut from_service) = service();
    service.set_config(Config { local_domains: [name("tail.test")].into(), ..Config::default() }).await;
    // Packets do not wait for commands: the answer to a later one says that the configuration is in use.
    service.ask(name("missing.tail.test"), QueryType::A).await.unwrap();
    let query = Query::build(9, &name("missing.tail.test"), QueryType::A);
    let len = u16::try_from(28 + query.len()).unwrap();
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 100, 64, 0, 1, 100, 100, 100, 100];
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    packet.extend_from_slice(&[0x10, 0, 0, 53]);
    packet.extend_from_slice(&(len - 20).to_be_bytes());
    packet.extend_from_slice(&[0, 0]);
    packet.extend_from_slice(&query);
    to_service.send(packet).await.unwrap();
    let answer = from_service.recv().await.unwrap();
    assert_eq!(answer[12..20], [100, 100, 100, 100, 100, 64, 0, 1]);
    assert_eq!(Header::read(&answer[28..]).unwrap().code(), 3);
}
