//! What a packet and an idle flow cost by the number of flows.
//!
//! `cargo bench -p tsrs-tunnel-exit`, or with one number of flows behind `--`. The time must not depend on the number.
#![expect(clippy::print_stdout, reason = "the program's output")]

use std::error::Error;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Instant;

use rand_core::OsRng;
use tsrs_tunnel_exit::flow::{Event, FlowId, FlowLimits, FlowStack};

const MSS: usize = 1240;
const SYN: u8 = 2;
const ACK: u8 = 0x10;
/// Packets of a measurement.
const PACKET_COUNT: usize = 400_000;
/// Bytes that each flow carries to its peer before it idles.
const CARRIED: usize = 1 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let mut sizes = std::env::args().skip(1).filter_map(|arg| arg.parse::<usize>().ok());
    if let Some(size) = sizes.next() {
        return run(size);
    }
    println!("{:>7} {:>14} {:>14} {:>20}", "flows", "ns/packet in", "ns/KiB out", "KiB per idle flow");
    for size in ["100", "1000", "10000"] {
        // A process for each size, so that none takes the memory that another has freed.
        let status = std::process::Command::new(std::env::current_exe()?).arg(size).status()?;
        assert!(status.success(), "{size} flows: {status}");
    }
    Ok(())
}

struct Peer {
    flow: FlowId,
    port: u16,
    seq: u32,
    ack: u32,
}

fn run(size: usize) -> Result<(), Box<dyn Error>> {
    let limits = FlowLimits { held: usize::MAX, held_per_peer: usize::MAX, ..FlowLimits::default() };
    let mut stack = FlowStack::new(Ipv4Addr::new(100, 64, 0, 1), 1280, limits, OsRng, Instant::now());
    let mut out = Vec::with_capacity(70_000);
    let before = resident_kib()?;
    let mut peers = Vec::new();
    for port in (1..).take(size) {
        let now = Instant::now();
        stack.handle_packet(&segment(port, 1, 0, SYN, 0), true, now);
        let Some(Event::Opening { flow, .. }) = stack.poll_event() else { return Err("no SYN".into()) };
        stack.accept(flow, now);
        stack.poll_transmit(MSS, &mut out).ok_or("no SYN-ACK")?;
        let ack = u32::from_be_bytes(out.get(24..28).ok_or("no number")?.try_into()?).wrapping_add(1);
        stack.handle_packet(&segment(port, 2, ack, ACK, 0), true, now);
        peers.push(Peer { flow, port, seq: 2, ack });
        drain(&mut stack, &mut out);
    }

    // Uploads of all flows in turn.
    let mut packets: Vec<_> =
        peers.iter().map(|peer| segment(peer.port, peer.seq, peer.ack, ACK, MSS)).collect();
    let start = Instant::now();
    for index in 0..PACKET_COUNT {
        let at = index % size;
        let (peer, packet) = (&mut peers[at], &mut packets[at]);
        packet[24..28].copy_from_slice(&peer.seq.to_be_bytes());
        let now = Instant::now();
        stack.handle_packet(packet, true, now);
        let len = stack.peek(peer.flow, 0).len();
        stack.consume(peer.flow, len, now);
        peer.seq = peer.seq.wrapping_add(u32::try_from(MSS)?);
        drain(&mut stack, &mut out);
    }
    let in_ns = start.elapsed().as_nanos() / u128::try_from(PACKET_COUNT)?;

    // Downloads of all flows, one after the other, with runs of 64 KiB.
    let data = vec![7; 64 * 1024];
    let start = Instant::now();
    for peer in &mut peers {
        let mut given = 0;
        let mut acked = 0;
        while acked < CARRIED {
            let now = Instant::now();
            let room = stack.capacity(peer.flow).min(data.len()).min(CARRIED - given);
            given += stack.push(peer.flow, &data[..room], now);
            let mut sent = 0;
            while stack.poll_transmit(64 * 1024, &mut out).is_some() {
                sent += black_box(out.len()).saturating_sub(40);
            }
            if sent == 0 {
                return Err("the flow stands still".into());
            }
            acked += sent;
            peer.ack = peer.ack.wrapping_add(u32::try_from(sent)?);
            stack.handle_packet(&segment(peer.port, peer.seq, peer.ack, ACK, 0), true, now);
            while stack.poll_event().is_some() {}
        }
    }
    let out_ns = start.elapsed().as_nanos() / u128::try_from(size * (CARRIED >> 10))?;
    let held = resident_kib()?.saturating_sub(before);
    let usage = stack.usage();
    assert_eq!((usage.flows, usage.bytes), (size, 0));
    println!(
        "{size:>7} {in_ns:>14} {out_ns:>14} {:>20.2}",
        f64::from(u32::try_from(held)?) / f64::from(u32::try_from(size)?)
    );
    Ok(())
}

fn drain(stack: &mut FlowStack<OsRng>, out: &mut Vec<u8>) {
    while stack.poll_event().is_some() {}
    while stack.poll_transmit(64 * 1024, out).is_some() {}
}

/// A segment of a peer; its checksums are not looked at.
fn segment(port: u16, seq: u32, ack: u32, flags: u8, payload_len: usize) -> Vec<u8> {
    let options: &[u8] = if flags == SYN { &[2, 4, 4, 216, 1, 3, 3, 7, 1, 1, 4, 2] } else { &[] };
    let total = u16::try_from(40 + options.len() + payload_len).unwrap_or(u16::MAX).to_be_bytes();
    let data_offset = u8::try_from((20 + options.len()) * 4).unwrap_or(0);
    [
        &[0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 6, 0, 0, 100, 64, 0, 9, 11, 1, 2, 3],
        port.to_be_bytes().as_slice(),
        &[0, 80],
        &seq.to_be_bytes(),
        &ack.to_be_bytes(),
        &[data_offset, flags, 0xff, 0xff, 0, 0, 0, 0],
        options,
        &vec![7; payload_len],
    ]
    .concat()
}

fn resident_kib() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse()?)
}
