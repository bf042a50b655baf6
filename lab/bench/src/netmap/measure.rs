//! One size, measured in a process of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tsrs_base_types::RegionId;
use tsrs_control_netmap::{Session, write_cache};

use super::chain::{Asked, Chain, Fate, Stages};
use super::tailnet::{PaperNode, REGION_COUNT};
use crate::stats::Summary;
use crate::usage::{Spent, Stopwatch, own_memory};

/// Peers with a session, to which packets go. Enough that what is touched is not all in the processor's cache.
const TARGET_COUNT: u32 = 256;

/// How long after a change the agent writes the netmap to disk.
const CACHE_DELAY: Duration = Duration::from_secs(11);

/// Milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Millis {
    pub(super) wall: f64,
    pub(super) cpu: f64,
}

impl From<Spent> for Millis {
    fn from(spent: Spent) -> Self {
        Self { wall: spent.wall.as_secs_f64() * 1e3, cpu: spent.cpu.as_secs_f64() * 1e3 }
    }
}

/// A netmap from bytes to tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Whole {
    pub(super) total: Millis,
    pub(super) fold: Millis,
    pub(super) agent: Millis,
    pub(super) plane: Millis,
    pub(super) names: Millis,
}

impl From<Stages> for Whole {
    fn from(stages: Stages) -> Self {
        Self {
            total: stages.total().into(),
            fold: stages.fold.into(),
            agent: stages.agent.into(),
            plane: stages.plane.into(),
            names: stages.names.into(),
        }
    }
}

/// A kind of change of one peer, many times. Microseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Delta {
    pub(super) kind: Kind,
    /// From the first byte of the frame to the packet's end.
    pub(super) cpu: Summary,
    pub(super) wall: Summary,
    /// Medians of the parts' processor time.
    pub(super) fold: f64,
    pub(super) agent: f64,
    pub(super) plane: f64,
    pub(super) names: f64,
    pub(super) packet: f64,
    /// What one change asked of the host.
    pub(super) asked: Asked,
}

/// What changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    /// A peer went online or offline.
    Online,
    /// A patch: new endpoints and another home region.
    Path,
    /// A whole node with another address.
    Address,
    /// A new node.
    Added,
    /// A node is gone.
    Removed,
}

impl Kind {
    pub(super) const ALL: [Self; 5] = [Self::Online, Self::Path, Self::Address, Self::Added, Self::Removed];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Path => "path",
            Self::Address => "address",
            Self::Added => "added",
            Self::Removed => "removed",
        }
    }
}

/// Memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct MemoryUse {
    /// Before the first frame.
    pub(super) before: u64,
    /// With the netmap applied.
    pub(super) with_netmap: u64,
    /// The most that it was on the way.
    pub(super) peak: u64,
    /// Of the snapshot alone, without agent and tunnel.
    pub(super) snapshot_only: u64,
}

/// The cached netmap: written after changes, at most every ten seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Cache {
    pub(super) bytes: usize,
    pub(super) write: Millis,
    /// Writes that one burst of changes of peers asked for.
    pub(super) writes_after_deltas: usize,
}

/// All of one size.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Measured {
    pub(super) peers: u32,
    pub(super) frames: usize,
    pub(super) frame_bytes: u64,
    /// Length of one peer on the wire.
    pub(super) peer_bytes: usize,
    pub(super) first: Whole,
    /// The same netmap in one frame of a new stream; `None` where it does not fit one frame.
    pub(super) again: Option<Whole>,
    pub(super) memory: MemoryUse,
    pub(super) cache: Cache,
    /// Routes asked of the kernel.
    pub(super) routes: usize,
    pub(super) deltas: Vec<Delta>,
}

/// Memory of a snapshot alone.
pub(super) fn snapshot_memory(folder: &Path) -> Result<u64> {
    let before = own_memory()?.resident_bytes;
    let mut session = Session::new();
    for path in frame_files(folder)? {
        let json = read(&path)?;
        session.handle_frame(&json, jiff::Timestamp::now())?;
    }
    let with_netmap = own_memory()?.resident_bytes;
    ensure!(session.netmap().is_some(), "no netmap");
    Ok(with_netmap.saturating_sub(before))
}

/// Everything of one size.
pub(super) fn measure(peers: u32, iterations: u32, folder: &Path) -> Result<Measured> {
    let files = frame_files(folder)?;
    let mut chain = Chain::new()?;
    let before = own_memory()?;
    let (mut first, mut frame_bytes) = (Stages::default(), 0);
    for path in &files {
        let json = read(path)?;
        frame_bytes += u64::try_from(json.len())?;
        first += chain.frame(&json)?.0;
    }
    let after = own_memory()?;
    ensure!(chain.peer_count() == usize::try_from(peers)?, "{} of {peers} peers", chain.peer_count());
    let mut cache = write_to_cache(&chain)?;
    // Whatever the first netmap made due is out of the way.
    chain.let_time_pass(CACHE_DELAY);

    let again = match &files[..] {
        [only] => {
            let json = read(only)?;
            chain.begin_stream();
            Some(chain.frame(&json)?.0.into())
        }
        _ => None,
    };
    let targets = targets(peers);
    for target in &targets {
        chain.make_session(*target)?;
    }
    let mut deltas = Deltas { chain, peers, targets };
    let kinds = Kind::ALL.map(|kind| (kind, Vec::new()));
    let mut samples: Vec<(Kind, Vec<Sample>)> = kinds.into();
    for round in 0..iterations {
        for (kind, samples) in &mut samples {
            samples.push(deltas.step(*kind, round)?);
        }
    }
    cache.writes_after_deltas = deltas.chain.let_time_pass(CACHE_DELAY);
    Ok(Measured {
        peers,
        frames: files.len(),
        frame_bytes,
        peer_bytes: PaperNode::new(0).to_json().to_string().len(),
        first: first.into(),
        again,
        memory: MemoryUse {
            before: before.resident_bytes,
            with_netmap: after.resident_bytes,
            peak: after.peak_bytes,
            snapshot_only: 0,
        },
        cache,
        routes: deltas.chain.router().routes.len(),
        deltas: samples.into_iter().map(|(kind, samples)| summarize(kind, &samples)).collect(),
    })
}

/// The files that hold the frames, in their order.
fn frame_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}

fn write_to_cache(chain: &Chain) -> Result<Cache> {
    let netmap = chain.netmap().context("no netmap")?;
    let mut json = Vec::new();
    let watch = Stopwatch::start();
    write_cache(netmap, &mut json)?;
    Ok(Cache { bytes: json.len(), write: watch.spent().into(), writes_after_deltas: 0 })
}

/// Peers spread over all of them and over all regions, so that sessions with them open every relay.
fn targets(peers: u32) -> Vec<PaperNode> {
    let count = TARGET_COUNT.min(peers).max(1);
    let spread = |index: u32| {
        let place = index * (peers / count);
        place - place % REGION_COUNT + index % REGION_COUNT
    };
    (0..count).map(|index| PaperNode::new(spread(index))).collect()
}

struct Sample {
    stages: Stages,
    packet: Spent,
    asked: Asked,
}

struct Deltas {
    chain: Chain,
    peers: u32,
    targets: Vec<PaperNode>,
}

impl Deltas {
    /// One change, and a packet to the peer that it changes. What became of the packet shows that the change is in force.
    fn step(&mut self, kind: Kind, round: u32) -> Result<Sample> {
        let place = usize::try_from(round)? % self.targets.len();
        let (frame, node) = match kind {
            Kind::Online => {
                let node = self.targets[place];
                // The whole node that the same round brings puts it back.
                (json!({"OnlineChange": {node.id().to_string(): !node.is_online()}}), node)
            }
            Kind::Path => {
                let node = &mut self.targets[place];
                node.path_version += 1;
                (path_patch(*node), *node)
            }
            Kind::Address => {
                let node = &mut self.targets[place];
                node.address_version = (node.address_version + 1) % 2;
                (json!({"PeersChanged": [node.to_json()]}), *node)
            }
            Kind::Added => {
                let node = PaperNode::new(self.peers + round);
                (json!({"PeersChanged": [node.to_json()]}), node)
            }
            Kind::Removed => {
                let node = PaperNode::new(self.peers + round);
                (json!({"PeersRemoved": [node.id()]}), node)
            }
        };
        let bytes = serde_json::to_vec(&frame)?;
        let (stages, asked) = self.chain.frame(&bytes)?;
        let (fate, packet) = self.chain.send(node.address())?;
        let key = node.node_key().public();
        let as_wanted = match (kind, &fate) {
            (Kind::Online | Kind::Path | Kind::Address, Fate::Sent(peer, path)) => {
                *peer == key && path.derp == Some(RegionId(node.home_region().into()))
            }
            (Kind::Added, Fate::Waits(peer)) => *peer == key,
            (Kind::Removed, Fate::Dropped) => true,
            (_, Fate::Sent(..) | Fate::Waits(_) | Fate::Dropped) => false,
        };
        ensure!(as_wanted, "{} {round}: the packet became {fate:?}", kind.name());
        Ok(Sample { stages, packet, asked })
    }
}

fn path_patch(node: PaperNode) -> Value {
    let whole = node.to_json();
    json!({"PeersChangedPatch": [{
        "NodeID": node.id(), "DERPRegion": whole["HomeDERP"], "Endpoints": whole["Endpoints"],
    }]})
}

fn summarize(kind: Kind, samples: &[Sample]) -> Delta {
    let micros = |duration: Duration| duration.as_secs_f64() * 1e6;
    let median =
        |of: fn(&Sample) -> Spent| Summary::of(samples.iter().map(|sample| micros(of(sample).cpu))).median;
    let total = |sample: &Sample| {
        let mut total = sample.stages.total();
        total += sample.packet;
        total
    };
    Delta {
        kind,
        cpu: Summary::of(samples.iter().map(|sample| micros(total(sample).cpu))),
        wall: Summary::of(samples.iter().map(|sample| micros(total(sample).wall))),
        fold: median(|sample| sample.stages.fold),
        agent: median(|sample| sample.stages.agent),
        plane: median(|sample| sample.stages.plane),
        names: median(|sample| sample.stages.names),
        packet: median(|sample| sample.packet),
        asked: samples.last().map(|sample| sample.asked).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::write_frames;
    use super::*;

    #[test]
    fn targets_are_different_peers_of_all_regions() {
        for peers in [300, 512, 1_000, 5_000, 10_000, 100_000] {
            let targets = targets(peers);
            let numbers: BTreeSet<u32> = targets.iter().map(|target| target.number).collect();
            let regions: BTreeSet<u32> = targets.iter().map(|target| target.home_region()).collect();
            assert_eq!((numbers.len(), regions.len()), (256, 28), "{peers}");
            assert!(numbers.iter().all(|number| *number < peers), "{peers}");
        }
    }

    #[test]
    fn every_kind_of_change_is_in_force_for_the_next_packet() {
        let folder = tempfile::tempdir().unwrap();
        write_frames(300, folder.path()).unwrap();
        // More rounds than targets, so that some are changed twice.
        let measured = measure(300, 260, folder.path()).unwrap();
        assert_eq!((measured.frames, measured.routes), (1, 300));
        assert!(measured.again.is_some());
        let asked = |kind| measured.deltas.iter().find(|delta| delta.kind == kind).unwrap().asked;
        // The data plane hears only of what concerns it.
        assert_eq!(asked(Kind::Online), Asked::default());
        assert_eq!(asked(Kind::Path), Asked { peers: 1, ..Asked::default() });
        assert_eq!(asked(Kind::Address), Asked { routers: 1, names: 1, peers: 1 });
        assert_eq!(asked(Kind::Added), Asked { routers: 1, names: 1, peers: 1 });
        assert_eq!(asked(Kind::Removed), Asked { routers: 1, names: 1, peers: 1 });
    }
}
