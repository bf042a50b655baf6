//! What a frame of the map stream costs by the size of the tailnet: time from bytes to snapshot, and memory.
//!
//! `cargo bench -p tsrs-control-netmap`, or with one number of peers behind `--`. A delta should take the same time at every
//! size but for the depth of the tree that holds the peers.
#![expect(clippy::print_stdout, reason = "the program's output")]

use std::collections::VecDeque;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tsrs_control_netmap::{Netmap, Session};

/// Frames per kind of delta.
const FRAMES: usize = 4000;

/// Snapshots that a slow consumer still holds while the next ones come; each frame's memory is measured over these.
const HELD: usize = 1000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut sizes = std::env::args().skip(1).filter_map(|arg| arg.parse::<usize>().ok());
    if let Some(size) = sizes.next() {
        return run(size);
    }
    println!("{:>8} {:<22} {:>12} {:>12} {:>12}  memory", "peers", "frame", "bytes", "median", "99 %");
    for size in ["1000", "10000", "100000"] {
        // A process for each size, so that none takes the memory that another has freed.
        let status = std::process::Command::new(std::env::current_exe()?).arg(size).status()?;
        assert!(status.success(), "{size} peers: {status}");
    }
    Ok(())
}

fn run(size: usize) -> Result<(), Box<dyn Error>> {
    let now: Timestamp = "2026-01-01T00:00:00Z".parse()?;
    // The first frame maps the program's own pages; they do not count.
    Session::new().handle_frame(&full_frame(10), now)?;
    let full = full_frame(size);
    let before = resident_kib()?;
    let mut session = Session::new();
    let start = Instant::now();
    session.handle_frame(&full, now)?;
    let taken = start.elapsed();
    let grown = resident_kib()?.saturating_sub(before);
    let per_peer = grown as f64 / size as f64;
    println!(
        "{size:>8} {:<22} {:>12} {:>12} {:>12}  {grown} KiB, {per_peer:.1} KiB per peer",
        "full",
        full.len(),
        show(taken),
        ""
    );

    let patch = |turn: usize| {
        let id = pick(turn, size);
        let patch = format!(
            r#"{{"NodeID":{id},"Online":{},"LastSeen":"2026-01-01T00:00:{:02}Z"}}"#,
            turn.is_multiple_of(2),
            turn % 60
        );
        format!(r#"{{"PeersChangedPatch":[{patch}]}}"#)
    };
    let endpoints = |turn: usize| {
        let (id, port) = (pick(turn, size), 1024 + turn);
        format!(
            r#"{{"PeersChangedPatch":[{{"NodeID":{id},"DERPRegion":{},"Endpoints":["198.51.100.7:{port}"]}}]}}"#,
            1 + turn % 20
        )
    };
    let whole = |turn: usize| format!(r#"{{"PeersChanged":[{}]}}"#, peer(pick(turn, size), turn));
    let come_and_go = |turn: usize| {
        let (new, old) = (size + turn + 1, size + turn);
        let gone = if turn == 0 { String::new() } else { old.to_string() };
        format!(r#"{{"PeersRemoved":[{gone}],"PeersChanged":[{}]}}"#, peer(new, 0))
    };
    deltas(&mut session, size, "patch: online", now, patch)?;
    deltas(&mut session, size, "patch: endpoints", now, endpoints)?;
    deltas(&mut session, size, "one whole node", now, whole)?;
    deltas(&mut session, size, "one leaves, one joins", now, come_and_go)?;

    // A whole list again, as a server sends it after a reload of its policy. Last, because it leaves free memory behind.
    let start = Instant::now();
    session.handle_frame(&full, now)?;
    println!("{size:>8} {:<22} {:>12} {:>12}", "full again", full.len(), show(start.elapsed()));
    Ok(())
}

fn deltas(
    session: &mut Session,
    size: usize,
    kind: &str,
    now: Timestamp,
    frame: impl Fn(usize) -> String,
) -> Result<(), Box<dyn Error>> {
    let frames: Vec<String> = (0..FRAMES).map(frame).collect();
    let bytes = frames.iter().map(String::len).sum::<usize>() / FRAMES;
    let mut times = Vec::with_capacity(FRAMES);
    let mut held: VecDeque<Arc<Netmap>> = VecDeque::with_capacity(HELD);
    let before = resident_kib()?;
    let mut grown = 0;
    for (turn, frame) in frames.iter().enumerate() {
        let start = Instant::now();
        let update = session.handle_frame(frame.as_bytes(), now)?;
        times.push(start.elapsed());
        assert!(
            update.changes.len() <= 2,
            "a frame about one or two peers brought {} changes",
            update.changes.len()
        );
        if held.len() == HELD {
            held.pop_front();
        }
        held.extend(update.netmap);
        if turn + 1 == HELD {
            grown = resident_kib()?.saturating_sub(before);
        }
    }
    times.sort_unstable();
    println!(
        "{size:>8} {kind:<22} {bytes:>12} {:>12} {:>12}  {:.1} KiB per snapshot held",
        show(times[FRAMES / 2]),
        show(times[FRAMES * 99 / 100]),
        grown as f64 / HELD as f64
    );
    Ok(())
}

/// Ids of existing peers, spread over all of them.
fn pick(turn: usize, size: usize) -> usize {
    1 + turn.wrapping_mul(2_654_435_761) % size
}

fn full_frame(size: usize) -> Vec<u8> {
    let mut frame = String::from(r#"{"Node":"#);
    frame.push_str(&peer(0, 0));
    frame.push_str(r#","Domain":"example.com","Peers":["#);
    for id in 1..=size {
        if id > 1 {
            frame.push(',');
        }
        frame.push_str(&peer(id, 0));
    }
    frame.push_str("]}");
    frame.into_bytes()
}

/// A peer as a server sends it, host information included.
fn peer(id: usize, version: usize) -> String {
    let (high, low) = (id / 256, id % 256);
    let address = format!("100.{}.{}.{low}", 64 + high / 256, high % 256);
    let node = format!(
        r#"{{"ID":{id},"StableID":"n{id:010}CNTRL","Name":"host-{id}.tail1234.ts.net.","User":{user},"Key":"nodekey:{id:064x}","KeyExpiry":"2027-01-01T00:{minute:02}:00Z","Machine":"mkey:{id:064x}","DiscoKey":"discokey:{id:064x}","Addresses":["{address}/32","fd7a:115c:a1e0::{high:x}:{low:x}/128"],"AllowedIPs":["{address}/32","fd7a:115c:a1e0::{high:x}:{low:x}/128"],"Endpoints":["203.0.113.{low}:41641","192.168.1.{low}:41641","172.17.0.1:41641","10.0.{h}.{low}:41641"],"HomeDERP":{derp},"Created":"2025-06-01T00:00:00.123456789Z","Cap":119,"Tags":["tag:server","tag:prod"],"LastSeen":"2025-12-31T23:59:59Z","Online":true,"MachineAuthorized":true,"#,
        user = 1 + id % 500,
        minute = version % 60,
        h = high % 256,
        derp = 1 + id % 20,
    );
    let host = format!(
        r#""Hostinfo":{{"IPNVersion":"1.96.4-t8cf541dfd-g62bc84ce7","BackendLogID":"{id:064x}","OS":"linux","OSVersion":"6.1.0-18-amd64","Container":false,"Distro":"debian","DistroVersion":"12.11","DistroCodeName":"bookworm","Desktop":false,"Hostname":"host-{id}","Machine":"x86_64","GoArch":"amd64","GoArchVar":"v1","GoVersion":"go1.26.1","Services":[{{"Proto":"peerapi4","Port":{port}}},{{"Proto":"peerapi6","Port":{port}}},{{"Proto":"peerapi-dns-proxy","Port":1}}],"NetInfo":{{"MappingVariesByDestIP":false,"WorkingIPv6":false,"OSHasIPv6":true,"WorkingUDP":true,"WorkingICMPv4":false,"UPnP":false,"PMP":false,"PCP":false,"PreferredDERP":{derp},"FirewallMode":"nft-default"}},"Userspace":false,"UserspaceRouter":false,"AppConnector":false,"StateEncrypted":false}},"#,
        port = 1024 + id % 60_000,
        derp = 1 + id % 20,
    );
    let caps = r#""CapMap":{"https://tailscale.com/cap/file-sharing-target":[],"suggest-exit-node":null}}"#;
    let peer = [&node, &host, caps].concat();
    assert!(peer.len() >= 1500, "a peer of {} bytes is smaller than a real one", peer.len());
    peer
}

/// Resident memory of this process.
fn resident_kib() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS in /proc/self/status")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn show(time: Duration) -> String {
    format!("{time:.1?}")
}
