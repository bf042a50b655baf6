//! The flow stack against the TCP of the kernel, over a TUN in a namespace of the test's own.
//!
//! ```text
//! client: kernel, 100.64.0.9 ── tun0, route to 11.0.0.0/8 ── FlowStack, which answers for every destination by its port
//! ```

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rand_core::OsRng;
use tsrs_tunnel_packet::icmp::Unreachable;
use tsrs_tunnel_packet::vnet::{self, VirtioNetHdr};
use tun_rs::{DeviceBuilder, SyncDevice};

use super::lab::{in_namespace, run};
use crate::flow::{Event, FlowId, FlowLimits, FlowStack, FlowUsage, Refusal};

/// Sends back what comes, and ends when the peer has.
const ECHO: u16 = 7;
/// Is refused as by a host.
const REFUSED: u16 = 1;
/// Is refused as by a router.
const PROHIBITED: u16 = 2;
/// Is reset after the first bytes.
const RESET: u16 = 3;
const WAIT_LIMIT: Duration = Duration::from_secs(60);

fn destination(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(11, 1, 2, 3), port)
}

fn connect(port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(destination(port))?;
    stream.set_read_timeout(Some(WAIT_LIMIT))?;
    stream.set_write_timeout(Some(WAIT_LIMIT))?;
    Ok(stream)
}

/// The thread that drives the stack.
struct Driver {
    device: SyncDevice,
    stack: FlowStack<OsRng>,
    flows: std::collections::HashMap<FlowId, u16>,
    max_payload: usize,
    /// Each n-th packet is lost, in both directions; 0 for none.
    lose_each: u64,
    count: u64,
}

impl Driver {
    fn is_lost(&mut self) -> bool {
        self.count += 1;
        // A step that is no divisor of what flows have in common.
        self.lose_each > 0 && (self.count * 7919) % (self.lose_each * 7) < 7
    }

    /// Goes on until the test is over and no flow is left behind.
    fn run(mut self, stop: &AtomicBool) {
        let mut limit = None;
        let mut buffer = vec![0; vnet::LEN + 65_535];
        let mut out = Vec::new();
        loop {
            if stop.load(Ordering::Relaxed) {
                let usage = self.stack.usage();
                if usage == FlowUsage::default() {
                    return;
                }
                let limit = *limit.get_or_insert_with(|| Instant::now() + WAIT_LIMIT);
                assert!(Instant::now() < limit, "flows are left behind: {usage:?}");
            }
            let mut fds = [PollFd::new(self.device.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::from(5_u8)).unwrap();
            for _ in 0..64 {
                let len = match nix::unistd::read(self.device.as_fd(), &mut buffer) {
                    Ok(len) => len,
                    Err(nix::errno::Errno::EAGAIN) => break,
                    Err(error) => panic!("{error}"),
                };
                let (header, packet) = VirtioNetHdr::split(&buffer[..len]).unwrap();
                let is_known = header.flags & vnet::NEEDS_CSUM != 0;
                if !self.is_lost() {
                    self.stack.handle_packet(packet, is_known, Instant::now());
                }
            }
            self.stack.handle_timeout(Instant::now());
            while let Some(event) = self.stack.poll_event() {
                self.handle_event(event);
            }
            while let Some(header) = self.stack.poll_transmit(self.max_payload, &mut out) {
                if !self.is_lost() {
                    let whole = [header.to_bytes().as_slice(), &out].concat();
                    // A full queue loses packets, as any link does.
                    let _ = nix::unistd::write(&self.device, &whole);
                }
            }
        }
    }

    fn handle_event(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::Opening { flow, destination, .. } => match destination.port() {
                REFUSED => self.stack.refuse(flow, Refusal::Reset, now),
                PROHIBITED => {
                    self.stack.refuse(flow, Refusal::Unreachable(Unreachable::AdminProhibited), now);
                }
                port => {
                    self.flows.insert(flow, port);
                    self.stack.accept(flow, now);
                }
            },
            Event::Changed(flow) => self.serve(flow, now),
            Event::Closed(flow, _) => {
                self.flows.remove(&flow);
            }
        }
    }

    fn serve(&mut self, flow: FlowId, now: Instant) {
        if self.flows.get(&flow) == Some(&RESET) && !self.stack.peek(flow, 0).is_empty() {
            self.stack.abort(flow, now);
            return;
        }
        loop {
            let room = self.stack.capacity(flow);
            let piece = self.stack.peek(flow, 0);
            let piece = piece[..piece.len().min(room)].to_vec();
            if piece.is_empty() {
                break;
            }
            let taken = self.stack.push(flow, &piece, now);
            self.stack.consume(flow, taken, now);
        }
        if self.stack.peer_ended(flow) && self.stack.peek(flow, 0).is_empty() {
            self.stack.close(flow, now);
        }
    }
}

/// Runs a test with the stack behind a TUN.
fn with_stack(offload: bool, lose_each: u64, test: impl FnOnce() + Send + 'static) {
    in_namespace(move || {
        let device =
            DeviceBuilder::new().name("tun0").offload(true).mtu(1280).enable(false).build_sync().unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/tun0/disable_ipv6", "1").unwrap();
        run("ip address add 100.64.0.9/32 dev tun0");
        run("ip link set tun0 up");
        run("ip route add 11.0.0.0/8 dev tun0 src 100.64.0.9");
        if !offload {
            run("ip link set tun0 gso_max_segs 1");
        }
        device.set_nonblocking(true).unwrap();
        let stack =
            FlowStack::new(Ipv4Addr::new(100, 64, 0, 1), 1280, FlowLimits::default(), OsRng, Instant::now());
        let driver = Driver {
            device,
            stack,
            flows: std::collections::HashMap::new(),
            max_payload: if offload { 64 * 1024 } else { 1240 },
            lose_each,
            count: 0,
        };
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || driver.run(&stopped));
        test();
        stop.store(true, Ordering::Relaxed);
        thread.join().unwrap();
    });
}

fn pattern(len: usize, salt: u32) -> Vec<u8> {
    (0..u32::try_from(len).unwrap())
        .map(|at| (at.wrapping_mul(2_654_435_761) ^ salt).to_be_bytes()[0])
        .collect()
}

/// Sends, ends its direction, and reads until the echo ends: everything must come back.
fn echo(len: usize, salt: u32) {
    let mut stream = connect(ECHO).unwrap();
    let sent = pattern(len, salt);
    let mut writer = stream.try_clone().unwrap();
    let to_write = sent.clone();
    let thread = std::thread::spawn(move || {
        writer.write_all(&to_write).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    thread.join().unwrap();
    assert!(received == sent, "{} of {len} bytes came back", received.len());
}

#[test]
fn the_kernel_gets_back_what_it_sends_and_both_directions_end() {
    with_stack(true, 0, || {
        for len in [0, 1, 1239, 1240, 1241, 65_536, 5_000_000] {
            echo(len, 1);
        }
    });
}

#[test]
fn the_kernel_gets_everything_through_a_link_that_loses_packets() {
    with_stack(false, 25, || {
        for salt in 0..4 {
            echo(500_000, salt);
        }
    });
}

#[test]
fn a_kernel_without_options_gets_everything_too() {
    for option in ["tcp_sack", "tcp_window_scaling"] {
        with_stack(false, 25, move || {
            std::fs::write(format!("/proc/sys/net/ipv4/{option}"), "0").unwrap();
            for salt in 0..2 {
                echo(200_000, salt);
            }
        });
    }
}

#[test]
fn many_connections_at_once_keep_apart() {
    with_stack(true, 0, || {
        let threads: Vec<_> = (0..64).map(|salt| std::thread::spawn(move || echo(100_000, salt))).collect();
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn the_kernel_is_told_why_a_connection_is_refused() {
    with_stack(true, 0, || {
        assert_eq!(connect(REFUSED).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert_eq!(connect(PROHIBITED).unwrap_err().kind(), ErrorKind::HostUnreachable);
        let mut stream = connect(RESET).unwrap();
        stream.write_all(b"x").unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}
