//! The whole way: the kernel's TCP and UDP as a client, a TUN, the relay, a real proxy, and the destination.
//!
//! ```text
//! client, bound to tun0: 100.64.0.9 ── tun0 ── ExitRelay ── 11.0.0.8 the proxy ── 11.1.2.3 the destination
//! ```
//!
//! All of it is in one namespace. The client's sockets are bound to the TUN, or they would reach the destination by loopback.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rand_core::OsRng;
use socket2::{Domain, Socket, Type};
use tsrs_tunnel_packet::vnet::{self, VirtioNetHdr};
use tun_rs::{DeviceBuilder, SyncDevice};

use super::lab::{ECHO, isolated, run};
use super::programs::{Dante, Microsocks, Squid};
use super::{dialer, with_proxies};
use crate::dial::{Egress, HostFacts, RealDialer};
use crate::flow::{FlowLimits, FlowStack, FlowUsage};
use crate::policy::{Class, Policy, PolicyConfig, Refusal};
use crate::relay::{ExitRelay, RelayLimits};

const WAIT_LIMIT: Duration = Duration::from_secs(60);

fn address(text: &str) -> SocketAddrV4 {
    text.parse().unwrap()
}

/// A socket of the client.
fn socket(kind: Type, destination: SocketAddrV4) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, kind, None)?;
    socket.bind_device(Some(b"tun0"))?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::new(100, 64, 0, 9), 0).into())?;
    socket.connect(&destination.into())?;
    socket.set_read_timeout(Some(WAIT_LIMIT))?;
    socket.set_write_timeout(Some(WAIT_LIMIT))?;
    Ok(socket)
}

fn connect(destination: SocketAddrV4) -> std::io::Result<TcpStream> {
    socket(Type::STREAM, destination).map(TcpStream::from)
}

fn datagrams(destination: SocketAddrV4) -> UdpSocket {
    socket(Type::DGRAM, destination).unwrap().into()
}

/// Sends, and reads as much as was sent. With a half-close the end of the echo must come by itself.
fn echo(len: usize, half_close: bool) {
    let mut stream = connect(ECHO).unwrap();
    let sent: Vec<u8> =
        (0..u32::try_from(len).unwrap()).map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let (mut writer, to_write) = (stream.try_clone().unwrap(), sent.clone());
    let thread = std::thread::spawn(move || {
        writer.write_all(&to_write).unwrap();
        if half_close {
            writer.shutdown(Shutdown::Write).unwrap();
        }
    });
    let mut received = vec![0; len];
    stream.read_exact(&mut received).unwrap();
    thread.join().unwrap();
    assert!(received == sent);
    if !half_close {
        stream.shutdown(Shutdown::Write).unwrap();
    }
    assert_eq!(stream.read(&mut received).unwrap(), 0);
}

fn tun() -> SyncDevice {
    let device =
        DeviceBuilder::new().name("tun0").offload(true).mtu(1280).enable(false).build_sync().unwrap();
    std::fs::write("/proc/sys/net/ipv6/conf/tun0/disable_ipv6", "1").unwrap();
    // The destination's answers come out of the TUN with an address that this host has too.
    std::fs::write("/proc/sys/net/ipv4/conf/tun0/accept_local", "1").unwrap();
    std::fs::write("/proc/sys/net/ipv4/conf/tun0/rp_filter", "0").unwrap();
    run("ip address add 100.64.0.9/32 dev tun0");
    run("ip link set tun0 up");
    run("ip route add 11.0.0.0/8 dev tun0");
    run("ip route add 10.0.0.0/8 dev tun0");
    device.set_nonblocking(true).unwrap();
    device
}

/// Carries packets between the TUN and the relay.
fn drive(device: &SyncDevice, relay: &ExitRelay, stop: &AtomicBool) {
    let mut buffers = vec![vec![0; vnet::LEN + 65_535]; 32];
    let mut out = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let mut fds = [PollFd::new(device.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::from(1_u8)).unwrap();
        let mut batch = Vec::new();
        for buffer in &mut buffers {
            match nix::unistd::read(device.as_fd(), buffer) {
                Ok(len) => batch.push(VirtioNetHdr::split(&buffer[..len]).unwrap()),
                Err(nix::errno::Errno::EAGAIN) => break,
                Err(error) => panic!("{error}"),
            }
        }
        relay.handle_batch(
            batch.iter().map(|(header, packet)| (*packet, header.flags & vnet::NEEDS_CSUM != 0)),
        );
        while let Some(header) = relay.poll_transmit(64 * 1024, &mut out) {
            // A full queue loses packets, as any link does.
            let _ = nix::unistd::write(device, &[header.to_bytes().as_slice(), &out].concat());
        }
    }
}

/// Runs the client on a thread beside the relay, and waits until no flow is left behind.
async fn relayed(
    dialer: Arc<RealDialer>,
    limits: RelayLimits,
    client: impl FnOnce() + Send + 'static,
) -> ExitRelay {
    let stack =
        FlowStack::new(Ipv4Addr::new(100, 64, 0, 1), 1280, FlowLimits::default(), OsRng, Instant::now());
    let policy = PolicyConfig { proxies: dialer.proxy_addresses(), ..PolicyConfig::default() };
    let relay = ExitRelay::new(dialer, stack, Policy::new(policy).unwrap(), limits);
    let device = tun();
    let stop = Arc::new(AtomicBool::new(false));
    let (driven, stopped) = (relay.clone(), Arc::clone(&stop));
    let runtime = tokio::runtime::Handle::current();
    let driver = std::thread::spawn(move || {
        let _runtime = runtime.enter();
        drive(&device, &driven, &stopped);
    });
    let timed = relay.clone();
    let timers = tokio::spawn(async move { timed.run().await });
    let done = tokio::task::spawn_blocking(client).await;
    let empty = async {
        while done.is_ok() && relay.usage() != FlowUsage::default() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(WAIT_LIMIT, empty).await;
    stop.store(true, Ordering::Relaxed);
    driver.join().unwrap();
    timers.abort();
    if let Err(error) = done {
        std::panic::resume_unwind(error.into_panic());
    }
    assert!(waited.is_ok(), "flows are left behind: {:?}", relay.usage());
    relay
}

#[test]
fn streams_and_datagrams_go_through_dante() {
    isolated::<Dante, _>(|proxy| async move {
        let dialer = Arc::new(dialer(&proxy.url(), None, None).await);
        let relay = relayed(dialer, RelayLimits::default(), || {
            for len in [1, 100_000, 5_000_000] {
                echo(len, true);
            }
            let threads: Vec<_> = (0..32).map(|_| std::thread::spawn(|| echo(200_000, true))).collect();
            for thread in threads {
                thread.join().unwrap();
            }
            assert_eq!(connect(address("11.1.2.3:9")).unwrap_err().kind(), ErrorKind::ConnectionRefused);

            let socket = datagrams(ECHO);
            let mut buffer = [0; 2048];
            for payload in [b"ping".as_slice(), &[7; 1200], b""] {
                socket.send(payload).unwrap();
                let len = socket.recv(&mut buffer).unwrap();
                assert_eq!(&buffer[..len], payload);
            }
        })
        .await;
        let counters = relay.counters();
        assert_eq!((counters.connected, counters.failed), (35, 1));
        assert_eq!((counters.refused.len(), counters.misrouted), (0, 0));
    });
}

#[test]
fn what_the_policy_refuses_is_answered_at_once_and_no_proxy_hears_of_it() {
    isolated::<Microsocks, _>(|proxy| async move {
        let dialer = Arc::new(dialer(&proxy.url(), Some("user:pass"), None).await);
        let relay = relayed(dialer, RelayLimits::default(), || {
            for (destination, kind) in
                [("10.1.2.3:80", ErrorKind::HostUnreachable), ("11.0.0.8:1080", ErrorKind::HostUnreachable)]
            {
                assert_eq!(connect(address(destination)).unwrap_err().kind(), kind, "{destination}");
            }
            let socket = datagrams(address("10.1.2.3:53"));
            socket.send(b"query").unwrap();
            assert_eq!(socket.recv(&mut [0; 16]).unwrap_err().kind(), ErrorKind::HostUnreachable);
            echo(300_000, false);
        })
        .await;
        let counters = relay.counters();
        assert_eq!(counters.refused[&Refusal::Class(Class::Private)], 2);
        assert_eq!(counters.refused[&Refusal::Proxy], 1);
        assert_eq!((counters.connected, counters.failed), (1, 0));
    });
}

#[test]
fn datagrams_are_refused_at_once_where_no_proxy_carries_them() {
    isolated::<Microsocks, _>(|proxy| async move {
        let dialer = Arc::new(dialer(&proxy.url(), Some("user:pass"), None).await);
        relayed(dialer, RelayLimits::default(), || {
            // The first one asks the proxy, the others know.
            for _ in 0..3 {
                let socket = datagrams(ECHO);
                socket.send(b"quic").unwrap();
                assert_eq!(socket.recv(&mut [0; 16]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
            }
        })
        .await;
    });
}

#[test]
fn streams_go_through_squid_over_tls() {
    isolated::<Squid, _>(|proxy| async move {
        let dialer = Arc::new(dialer(&proxy.tls_url(), Some("user:pass"), Some(proxy.certificate())).await);
        relayed(dialer, RelayLimits::default(), || {
            for len in [1, 3_000_000] {
                echo(len, false);
            }
        })
        .await;
    });
}

#[test]
fn nothing_is_connected_without_a_proxy() {
    isolated::<Microsocks, _>(|_proxy| async move {
        let dialer = Arc::new(with_proxies(Vec::new(), None).await);
        let relay = relayed(dialer, RelayLimits::default(), || {
            assert_eq!(connect(ECHO).unwrap_err().kind(), ErrorKind::HostUnreachable);
            let socket = datagrams(ECHO);
            socket.send(b"x").unwrap();
            assert_eq!(socket.recv(&mut [0; 16]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        })
        .await;
        assert_eq!(relay.counters().connected, 0);
    });
}

/// A stream through the proxy that has carried a byte each way.
fn established() -> TcpStream {
    let mut stream = connect(ECHO).unwrap();
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    stream
}

#[test]
fn flows_end_with_a_reset_at_their_limits() {
    isolated::<Microsocks, _>(|proxy| async move {
        let short = Duration::from_millis(300);
        for limits in [
            RelayLimits { tcp_idle: short, ..RelayLimits::default() },
            RelayLimits { tcp_lifetime: short, ..RelayLimits::default() },
        ] {
            let dialer = Arc::new(dialer(&proxy.url(), Some("user:pass"), None).await);
            relayed(dialer, limits, || {
                let error = established().read(&mut [0]).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            })
            .await;
        }
    });
}

#[test]
fn flows_end_when_their_proxy_is_removed_or_dies() {
    isolated::<Microsocks, _>(|proxy| async move {
        let dialer = Arc::new(dialer(&proxy.url(), Some("user:pass"), None).await);
        let (removed, runtime) = (Arc::clone(&dialer), tokio::runtime::Handle::current());
        relayed(dialer, RelayLimits::default(), move || {
            let mut stream = established();
            runtime.block_on(removed.set_egress(Egress::Closed, &HostFacts::default()));
            assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
            assert_eq!(connect(ECHO).unwrap_err().kind(), ErrorKind::HostUnreachable);
        })
        .await;

        let dialer = Arc::new(super::dialer(&proxy.url(), Some("user:pass"), None).await);
        relayed(dialer, RelayLimits::default(), move || {
            let mut stream = established();
            drop(proxy);
            // Killed: its kernel says farewell in one way or the other.
            assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
            drop(stream);
            assert_eq!(connect(ECHO).unwrap_err().kind(), ErrorKind::HostUnreachable);
        })
        .await;
    });
}
