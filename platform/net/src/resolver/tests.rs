//! The resolver against a name server of a few lines on loopback.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::{TcpListener, UdpSocket};
use tsrs_platform_api::fake::FakeBinder;

use super::*;
use crate::test_support::{RefusingBinder, v4};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

/// What the server does with a question.
#[derive(Clone, Copy)]
enum Manner {
    /// `ADDRESS`, 60 s.
    Answer,
    /// Only after an answer with another id, which must be ignored.
    ForgedFirst,
    /// Truncated over UDP, whole over TCP.
    Truncate,
    ServerFailure,
    /// An address for names that end in `.corp.test`, else "no such name".
    OnlyCorp,
}

struct Server {
    address: SocketAddrV4,
    asked: Arc<AtomicUsize>,
}

fn respond(question: &[u8], flags: u16, with_address: bool) -> Vec<u8> {
    let mut message = question.to_vec();
    message[2..4].copy_from_slice(&(0x8000 | flags).to_be_bytes());
    message[7] = u8::from(with_address);
    if with_address {
        message.extend_from_slice(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04");
        message.extend_from_slice(&ADDRESS.octets());
    }
    message
}

async fn serve(manner: Manner) -> Server {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(address).await.unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((len, from)) = udp.recv_from(&mut buffer).await {
            counter.fetch_add(1, Ordering::Relaxed);
            let question = &buffer[..len];
            let answers = match manner {
                Manner::Answer => vec![respond(question, 0, true)],
                Manner::ForgedFirst => {
                    let mut forged = respond(question, 3, false);
                    forged[0] ^= 1;
                    vec![forged, vec![1, 2, 3], respond(question, 0, true)]
                }
                Manner::Truncate => vec![respond(question, 0x0200, false)],
                Manner::ServerFailure => vec![respond(question, 2, false)],
                Manner::OnlyCorp if question.windows(11).any(|part| part == b"\x04corp\x04test\0") => {
                    vec![respond(question, 0, true)]
                }
                Manner::OnlyCorp => vec![respond(question, 3, false)],
            };
            for answer in answers {
                udp.send_to(&answer, from).await.unwrap();
            }
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let mut question = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut question).await.unwrap();
            let answer = respond(&question, 0, true);
            stream.write_u16(u16::try_from(answer.len()).unwrap()).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    });
    Server { address: v4(address), asked }
}

fn resolver(servers: &[SocketAddrV4]) -> Resolver {
    let dns = DnsServers::new(servers.iter().copied(), ["corp.test".to_owned()]);
    Resolver::new(Arc::new(FakeBinder::default()), PathBuf::from("/dev/null"), dns)
}

/// An address at which nobody answers, with an ICMP error.
async fn closed() -> SocketAddrV4 {
    v4(UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap())
}

#[tokio::test]
async fn literals_and_local_names_need_no_server() {
    let resolver = resolver(&[]);
    assert_eq!(resolver.resolve("192.0.2.1").await, Ok(vec![Ipv4Addr::new(192, 0, 2, 1)]));
    assert_eq!(resolver.resolve("localhost").await, Ok(vec![Ipv4Addr::LOCALHOST]));
    assert_eq!(resolver.resolve("hs.test").await, Err(ResolveError::NoServers));
    for bad in ["", "a b", "::1", "münchen.test"] {
        assert_eq!(resolver.resolve(bad).await, Err(ResolveError::BadName), "{bad}");
    }
}

#[tokio::test]
async fn the_hosts_file_comes_first() {
    let hosts = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(hosts.path(), "10.9.8.7 hs.test\n").unwrap();
    let (binder, dns) = (Arc::new(FakeBinder::default()), DnsServers::default());
    let resolver = Resolver::new(binder, hosts.path().to_owned(), dns);
    assert_eq!(resolver.resolve("HS.test.").await, Ok(vec![Ipv4Addr::new(10, 9, 8, 7)]));
}

#[tokio::test]
async fn an_answer_is_used_again_until_the_network_changes() {
    let server = serve(Manner::ForgedFirst).await;
    let resolver = resolver(&[server.address]);
    for _ in 0..3 {
        assert_eq!(resolver.resolve("hs.test").await, Ok(vec![ADDRESS]));
    }
    assert_eq!(server.asked.load(Ordering::Relaxed), 1);
    resolver.expire_cache();
    assert_eq!(resolver.resolve("hs.test").await, Ok(vec![ADDRESS]));
    assert_eq!(server.asked.load(Ordering::Relaxed), 2);
    // Nobody answers any more: better an old address than none.
    resolver.set_servers(DnsServers::new([closed().await], []));
    assert_eq!(resolver.resolve("hs.test").await, Ok(vec![ADDRESS]));
    assert!(matches!(resolver.resolve("new.test").await, Err(ResolveError::NoAnswer { .. })));
}

#[tokio::test]
async fn the_next_server_is_asked_when_one_fails() {
    let failing = serve(Manner::ServerFailure).await;
    let good = serve(Manner::Answer).await;
    let resolver = resolver(&[closed().await, failing.address, good.address]);
    assert_eq!(resolver.resolve("hs.test").await, Ok(vec![ADDRESS]));
    assert_eq!(failing.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn each_server_is_asked_twice_and_the_last_failure_is_named() {
    let failing = serve(Manner::ServerFailure).await;
    let error = resolver(&[failing.address]).resolve("hs.test").await.unwrap_err();
    assert!(error.to_string().contains("error 2"), "{error}");
    assert_eq!(failing.asked.load(Ordering::Relaxed), ROUNDS);
}

#[tokio::test]
async fn a_truncated_answer_is_fetched_over_tcp() {
    let server = serve(Manner::Truncate).await;
    assert_eq!(resolver(&[server.address]).resolve("hs.test").await, Ok(vec![ADDRESS]));
}

#[tokio::test]
async fn a_name_without_a_dot_is_looked_for_in_the_search_domains() {
    let server = serve(Manner::OnlyCorp).await;
    let resolver = resolver(&[server.address]);
    assert_eq!(resolver.resolve("hs").await, Ok(vec![ADDRESS]));
    assert_eq!(resolver.resolve("hs.test").await, Err(ResolveError::NoAddress));
}

#[tokio::test]
async fn a_refused_mark_asks_nobody() {
    let dns = DnsServers::new([SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 53), 53)], []);
    let resolver = Resolver::new(Arc::new(RefusingBinder), PathBuf::from("/dev/null"), dns);
    assert!(matches!(resolver.resolve("hs.test").await, Err(ResolveError::Mark(_))));
}

#[test]
fn the_cache_is_bounded() {
    let resolver = resolver(&[]);
    for number in 0..2 * MAX_CACHED {
        resolver.store(format!("host{number}.test"), &[ADDRESS], MAX_TTL);
    }
    assert_eq!(lock(&resolver.cache).len(), MAX_CACHED);
}
