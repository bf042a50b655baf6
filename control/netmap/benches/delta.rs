//! What a change of one peer costs here, beside the number of peers: it must not grow with it.
//!
//! `cargo bench -p tsrs-control-netmap`. The way on from here, to the forwarded packet, is measured by `bench netmap`.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};
use tsrs_control_netmap::Session;

/// Sizes of the tailnet.
const SIZES: [u32; 3] = [1_000, 10_000, 100_000];

/// Changes of each kind; the slowest tenth is left out, because the machine has other work, too.
const ROUNDS: u32 = 2_000;

type MakeFrame = fn(u32, u32) -> Value;

/// Kinds of change: the frame from the size of the tailnet and the number of the round.
const KINDS: [(&str, MakeFrame); 5] = [
    ("patch", |size, round| {
        let endpoint = format!("192.0.2.1:{}", 1024 + round);
        json!({"PeersChangedPatch": [{"NodeID": spread(size, round), "Endpoints": [endpoint]}]})
    }),
    ("online", |size, round| json!({"OnlineChange": {spread(size, round).to_string(): round / 7 % 2 == 1}})),
    ("replace", |size, round| json!({"PeersChanged": [peer(spread(size, round), round)]})),
    ("add", |size, round| json!({"PeersChanged": [peer(size + round, 0)]})),
    ("remove", |size, round| json!({"PeersRemoved": [size + round]})),
];

/// A peer that differs from round to round.
fn spread(size: u32, round: u32) -> u32 {
    round.wrapping_mul(0x9e37_79b9) % size
}

fn peer(id: u32, version: u32) -> Value {
    let [_, b, c, d] = id.to_be_bytes();
    json!({
        "ID": id, "StableID": format!("n{id}"), "Name": format!("host{id}.tail1234.ts.net."), "User": id / 4,
        "Key": format!("nodekey:{id:064x}"), "DiscoKey": format!("discokey:{id:064x}"),
        "KeyExpiry": "2099-01-01T00:00:00Z",
        "Addresses": [format!("100.{}.{c}.{d}/32", 64 + b)], "HomeDERP": 1,
        "Endpoints": [format!("192.0.2.1:{}", 1024 + version)],
        "Hostinfo": {"Hostname": format!("host{id}"), "OS": "linux"},
    })
}

#[expect(clippy::print_stdout, reason = "a benchmark's output")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let now: Timestamp = "2026-11-22T12:00:00Z".parse()?;
    for size in SIZES {
        let peers: Vec<Value> = (0..size).map(|id| peer(id, 0)).collect();
        let first = serde_json::to_vec(&json!({"Node": peer(u32::MAX, 0), "Peers": peers}))?;
        let mut session = Session::new();
        let start = Instant::now();
        session.handle_frame(&first, now)?;
        println!("{size:>7} peers  first    {:>9.1} ms", start.elapsed().as_secs_f64() * 1e3);
        for (name, make_frame) in KINDS {
            let mut times = Vec::new();
            for round in 0..ROUNDS {
                let frame = serde_json::to_vec(&make_frame(size, round))?;
                let start = Instant::now();
                session.handle_frame(&frame, now)?;
                times.push(start.elapsed());
            }
            times.sort_unstable();
            times.truncate(times.len() * 9 / 10);
            let mean = times.iter().sum::<Duration>() / u32::try_from(times.len())?;
            println!("{size:>7} peers  {name:<8} {:>9.1} µs", mean.as_secs_f64() * 1e6);
        }
    }
    Ok(())
}
