//! The results as tables.

use super::measure::{Kind, Measured, Whole};
use crate::output::Table;

/// All sizes as text.
pub(super) fn text(all: &[Measured]) -> String {
    [
        "First netmap, from the bytes of the map stream to published tables (ms of CPU; wall in brackets)"
            .to_owned(),
        first(all),
        "A change of one peer, from bytes to the packet after it (µs of CPU)".to_owned(),
        deltas(all),
        "Resident memory".to_owned(),
        memory(all),
        "The netmap on disk, written at most every 10 s".to_owned(),
        cache(all),
    ]
    .join("\n")
}

fn first(all: &[Measured]) -> String {
    let mut table = Table::new(&[
        "peers", "", "frames", "MB", "B/peer", "total", "fold", "agent", "tunnel", "names", "µs/peer",
    ]);
    for one in all {
        let rows = [("first", Some(one.first)), ("again", one.again)];
        for (label, whole) in rows.into_iter().filter_map(|(label, whole)| Some((label, whole?))) {
            table.row(first_row(one, label, whole));
        }
    }
    table.render()
}

fn first_row(one: &Measured, label: &str, whole: Whole) -> [String; 11] {
    [
        one.peers.to_string(),
        label.to_owned(),
        one.frames.to_string(),
        megabytes(one.frame_bytes),
        one.peer_bytes.to_string(),
        format!("{:.1} ({:.1})", whole.total.cpu, whole.total.wall),
        format!("{:.1}", whole.fold.cpu),
        format!("{:.1}", whole.agent.cpu),
        format!("{:.1}", whole.plane.cpu),
        format!("{:.1}", whole.names.cpu),
        format!("{:.1}", whole.total.cpu * 1e3 / f64::from(one.peers)),
    ]
}

fn deltas(all: &[Measured]) -> String {
    let mut table = Table::new(&[
        "change", "peers", "median", "p99", "max", "fold", "agent", "tunnel", "names", "packet", "wall p99",
        "routers",
    ]);
    for kind in Kind::ALL {
        for one in all {
            for delta in one.deltas.iter().filter(|delta| delta.kind == kind) {
                table.row([
                    kind.name().to_owned(),
                    one.peers.to_string(),
                    format!("{:.1}", delta.cpu.median),
                    format!("{:.1}", delta.cpu.p99),
                    format!("{:.1}", delta.cpu.max),
                    format!("{:.1}", delta.fold),
                    format!("{:.1}", delta.agent),
                    format!("{:.1}", delta.plane),
                    format!("{:.1}", delta.names),
                    format!("{:.1}", delta.packet),
                    format!("{:.1}", delta.wall.p99),
                    delta.asked.routers.to_string(),
                ]);
            }
        }
    }
    table.render()
}

fn memory(all: &[Measured]) -> String {
    let mut table = Table::new(&[
        "peers",
        "before MB",
        "with netmap MB",
        "peak MB",
        "B/peer",
        "snapshot alone MB",
        "B/peer",
    ]);
    for one in all {
        let memory = one.memory;
        table.row([
            one.peers.to_string(),
            megabytes(memory.before),
            megabytes(memory.with_netmap),
            megabytes(memory.peak),
            per_peer(memory.with_netmap.saturating_sub(memory.before), one.peers),
            megabytes(memory.snapshot_only),
            per_peer(memory.snapshot_only, one.peers),
        ]);
    }
    table.render()
}

fn cache(all: &[Measured]) -> String {
    let mut table = Table::new(&["peers", "MB", "ms of CPU", "writes after a burst of changes"]);
    for one in all {
        table.row([
            one.peers.to_string(),
            megabytes(u64::try_from(one.cache.bytes).unwrap_or(u64::MAX)),
            format!("{:.1}", one.cache.write.cpu),
            one.cache.writes_after_deltas.to_string(),
        ]);
    }
    table.render()
}

fn per_peer(bytes: u64, peers: u32) -> String {
    (bytes / u64::from(peers.max(1))).to_string()
}

/// Decimal megabytes with one digit.
fn megabytes(bytes: u64) -> String {
    let tenths = bytes / 100_000;
    format!("{}.{}", tenths / 10, tenths % 10)
}
