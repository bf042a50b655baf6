//! A stranger floods the port with nonsense: the agent stays up, small, and useful to others.

use std::fs;
use std::net::{SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use blake2::digest::FixedOutput as _;
use blake2::digest::consts::U16;
use blake2::{Blake2s256, Blake2sMac, Digest as _};
use rand_core::{OsRng, RngCore as _};
use tsrs_base_types::NodePublic;
use tsrs_lab_control::{KeySpec, LabConfig};
use tsrs_lab_netns::{Nat, Topology, wait};

use super::{joined, wait_state};
use crate::{SOON, turn_with_agent};

/// Datagrams that the stranger sends at least.
const FLOOD: u64 = 60_000;
/// Memory that a flood may cost at its peak: tables and queues of fixed size that were empty before.
const MAX_GROWTH_KIB: u64 = 16 * 1024;
/// Lines that it may add to the log; far from one for each packet.
const MAX_LOG_LINES: usize = 50;
const MEGABYTE: u64 = 1 << 20;
/// Length of a handshake initiation, and where its MACs lie (WireGuard paper §5.4.2).
const INITIATION_LEN: usize = 148;
const MAC1_AT: usize = 116;
const MAC2_AT: usize = 132;

/// The most memory that a process ever had, in KiB.
fn peak_kib(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn random(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    OsRng.fill_bytes(&mut bytes);
    bytes
}

/// A handshake initiation of nobody that its receiver has to look into: the first MAC is right.
fn initiation(to: &NodePublic) -> Vec<u8> {
    let mut message = random(INITIATION_LEN);
    message[..4].copy_from_slice(&[1, 0, 0, 0]);
    let key = Blake2s256::new().chain_update(b"mac1----").chain_update(to.as_bytes()).finalize();
    let mut mac = <Blake2sMac<U16> as blake2::digest::KeyInit>::new_from_slice(&key).unwrap();
    blake2::digest::Update::update(&mut mac, &message[..MAC1_AT]);
    message[MAC1_AT..MAC2_AT].copy_from_slice(&mac.finalize_fixed());
    message
}

/// A datagram that begins like one of ours and goes on with nonsense.
fn nonsense(number: u64) -> Vec<u8> {
    const HEADS: [&[u8]; 6] = [
        b"",
        &[4, 0, 0, 0],
        &[2, 0, 0, 0],
        &[3, 0, 0, 0],
        b"TS\xf0\x9f\x92\xac",
        &[1, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42],
    ];
    let number = usize::try_from(number).unwrap();
    let mut bytes = random(number % 1400 + 1);
    let head = HEADS[number % HEADS.len()];
    let len = head.len().min(bytes.len());
    bytes[..len].copy_from_slice(&head[..len]);
    bytes
}

#[test]
fn a_flood_of_nonsense_costs_neither_memory_nor_the_traffic_of_others() {
    let Some(_turn) = turn_with_agent("a_flood_of_nonsense") else { return };
    let net = Topology::empty("flood").behind("ra", Nat::Easy, &["a", "b", "x"]).build().unwrap();
    let control = net.lab_control(LabConfig::default()).unwrap();
    let key = control.create_key(KeySpec::reusable());
    let a = joined(&net, "a", &control.url(), &key);
    let b = joined(&net, "b", &control.url(), &key);
    let address = b.ipv4().unwrap();
    let said = a.cli(&["ping", "--until-direct", "--c=20", "--timeout=1s", &address.to_string()]).unwrap();
    let endpoint = format!("via {}:", net.host("b").address());
    let port: u16 = said.split_once(&endpoint).unwrap().1.split(' ').next().unwrap().parse().unwrap();
    let server = net.host("b").tcp_server((address, 7000).into()).unwrap();
    net.host("a").tcp_transfer(server.address(), 4 * MEGABYTE, SOON).unwrap();

    let pid = b.process().pid();
    let (peak, lines) = (peak_kib(pid), b.process().log().lines().count());
    let victim = SocketAddrV4::new(net.host("b").address(), port);
    let node = control.node("b").unwrap().key;
    let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let attack = net.host("x").space().thread("flood", {
        let (sent, stop) = (Arc::clone(&sent), Arc::clone(&stop));
        move || {
            let sockets: Vec<UdpSocket> = (0..64).map(|_| UdpSocket::bind("0.0.0.0:0").unwrap()).collect();
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) || number < FLOOD {
                let datagram = if number % 2 == 0 { initiation(&node) } else { nonsense(number) };
                let socket = &sockets[usize::try_from(number).unwrap() % sockets.len()];
                // A full queue of the sender loses some.
                let _ = socket.send_to(&datagram, victim);
                number += 1;
                sent.store(number, Ordering::Relaxed);
            }
        }
    });
    // In the middle of it a good peer sends, and a new session is made.
    wait::until("the flood", SOON, || (sent.load(Ordering::Relaxed) > FLOOD / 10).then_some(())).unwrap();
    net.host("a").tcp_transfer(server.address(), MEGABYTE, SOON).unwrap();
    a.cli(&["debug", "rebind"]).unwrap();
    net.host("a").wait_ping(address, SOON).unwrap();
    wait_state(&b, "Running");
    stop.store(true, Ordering::Relaxed);
    attack.unwrap().join().unwrap();

    net.host("a").wait_ping(address, SOON).unwrap();
    let grown = peak_kib(pid) - peak;
    assert!(grown <= MAX_GROWTH_KIB, "{grown} KiB more than {peak}");
    let log = b.process().log();
    let added = log.lines().count() - lines;
    assert!(added <= MAX_LOG_LINES, "{added} lines more:\n{log}");
    assert!(!log.contains("panicked"), "{log}");
    // The flood did arrive: it is counted.
    let metrics = b.cli(&["metrics"]).unwrap();
    assert!(metrics.contains("tailscaled_inbound_dropped_packets_total"), "{metrics}");
}
