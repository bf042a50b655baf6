//! What Tailnet Lock costs: a chain that comes in at once, a long one across compactions, and the peers of a large netmap.
//!
//! `cargo bench -p tsrs-control-tka`. Everything is signed with real Ed25519 keys and runs on one core. Beside the time that passed
//! stands the time on the processor, which does not count what others on the machine took.
#![expect(clippy::print_stdout, reason = "the program's output")]

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tsrs_base_types::{LockPrivate, NodeId, NodePublic};
use tsrs_control_tka::{
    Admission, Aum, Authority, CompactionRules, FilterPeer, FilterPolicy, Key, MemoryStorage,
    NodeKeySignature, PeerFilter, State, StateId, Storage, UpdateBuilder,
};

/// Updates of the chain that comes in at once, just below what the reference can open.
const CHAIN: usize = 1900;
/// Updates of the chain that comes in across compactions, and how many come at a time.
const LONG_CHAIN: usize = 10_000;
const BATCH: usize = 500;
/// Peers of the netmap; one in ten has rotated its key three times.
const PEERS: usize = 10_000;
/// Runs of each measurement; the fastest is shown, as others share the machine.
const RUNS: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let signer = LockPrivate::from_seed(&[1; 32]).ok_or("no key")?;
    let state = State::new(vec![Key::new(signer.public(), 2, None)], vec![[7; 32]], StateId(1, 2));
    let genesis = Authority::create(state, &signer)?;
    let updates = chain(&genesis, &signer)?;
    println!("updates: {LONG_CHAIN}, of them checkpoints: one in 50");

    let short = best(|| {
        let mut storage = MemoryStorage::default();
        let mut authority = Authority::bootstrap(&mut storage, genesis.clone(), Timestamp::UNIX_EPOCH)?;
        let taken: Vec<Aum> = updates.iter().take(CHAIN).cloned().collect();
        let start = Clock::start()?;
        authority.inform(&mut storage, taken, Timestamp::UNIX_EPOCH)?;
        start.stop()
    })?;
    println!("chain of {CHAIN} taken at once: {short:?}");

    let open = best(|| {
        let mut storage = MemoryStorage::default();
        let mut authority = Authority::bootstrap(&mut storage, genesis.clone(), Timestamp::UNIX_EPOCH)?;
        authority.inform(
            &mut storage,
            updates.iter().take(CHAIN).cloned().collect(),
            Timestamp::UNIX_EPOCH,
        )?;
        let start = Clock::start()?;
        black_box(Authority::open(storage.graph())?);
        start.stop()
    })?;
    println!("chain of {CHAIN} opened again: {open:?}");

    let rules = CompactionRules { min_age: SignedDuration::from_secs(1), ..CompactionRules::default() };
    let mut most = 0;
    let long = best(|| {
        let mut storage = MemoryStorage::default();
        let mut authority = Authority::bootstrap(&mut storage, genesis.clone(), Timestamp::UNIX_EPOCH)?;
        let batches: Vec<Vec<Aum>> = updates.chunks(BATCH).map(<[Aum]>::to_vec).collect();
        let start = Clock::start()?;
        for (batch, at) in batches.into_iter().zip(0..) {
            let now = Timestamp::from_second(at * 10)?;
            authority.inform(&mut storage, batch, now)?;
            most = most.max(storage.graph().len());
            authority.compact(&mut storage, rules, now + SignedDuration::from_secs(5))?;
        }
        start.stop()
    })?;
    println!(
        "chain of {LONG_CHAIN} taken {BATCH} at a time, compacted after each: {long:?}, at most {most} stored"
    );

    let peers = peers(&signer)?;
    let mut storage = MemoryStorage::default();
    let authority = Authority::bootstrap(&mut storage, genesis, Timestamp::UNIX_EPOCH)?;
    let full = best(|| {
        let mut filter = PeerFilter::new(authority.state(), FilterPolicy::default());
        let start = Clock::start()?;
        filter.set_peers(peers.iter().map(Peer::view));
        let taken = start.stop()?;
        let signed = filter.peers().filter(|(.., admission)| *admission == Admission::Signed).count();
        if signed == PEERS { Ok(taken) } else { Err(format!("{signed} kept of {PEERS}").into()) }
    })?;
    println!("netmap of {PEERS} signed peers, 90 % direct, 10 % rotations of depth 3: {full:?}");

    let mut filter = PeerFilter::new(authority.state(), FilterPolicy::default());
    filter.set_peers(peers.iter().map(Peer::view));
    let again = best(|| {
        let start = Clock::start()?;
        black_box(filter.set_peers(peers.iter().map(Peer::view)));
        start.stop()
    })?;
    println!("the same netmap again: {again:?}");
    let delta = best(|| {
        let peer = peers.last().ok_or("no peer")?;
        filter.remove(peer.id);
        let start = Clock::start()?;
        black_box(filter.upsert(peer.view()));
        start.stop()
    })?;
    println!("one peer of a delta: {delta:?}");
    Ok(())
}

/// Time that passed and time on the processor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Taken {
    processor: Duration,
    passed: Duration,
}

struct Clock {
    processor: Duration,
    passed: Instant,
}

impl Clock {
    fn start() -> Result<Self, Box<dyn Error>> {
        Ok(Self { processor: processor_time()?, passed: Instant::now() })
    }

    fn stop(&self) -> Result<Taken, Box<dyn Error>> {
        let processor = processor_time()?.saturating_sub(self.processor);
        Ok(Taken { processor, passed: self.passed.elapsed() })
    }
}

/// What the scheduler has given this thread; exact to a few milliseconds.
fn processor_time() -> Result<Duration, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(Duration::from_nanos(stat.split(' ').next().unwrap_or_default().parse()?))
}

fn best(mut run: impl FnMut() -> Result<Taken, Box<dyn Error>>) -> Result<Taken, Box<dyn Error>> {
    let mut fastest = run()?;
    for _ in 1..RUNS {
        fastest = fastest.min(run()?);
    }
    Ok(fastest)
}

/// Keys are added and removed in turn, as the tools make it.
fn chain(genesis: &Aum, signer: &LockPrivate) -> Result<Vec<Aum>, Box<dyn Error>> {
    let mut storage = MemoryStorage::default();
    let mut authority = Authority::bootstrap(&mut storage, genesis.clone(), Timestamp::UNIX_EPOCH)?;
    let other = LockPrivate::from_seed(&[2; 32]).ok_or("no key")?.public();
    let rules = CompactionRules { min_age: SignedDuration::from_secs(1), ..CompactionRules::default() };
    let mut updates = Vec::new();
    while updates.len() < LONG_CHAIN {
        let now = Timestamp::from_second(i64::try_from(updates.len())? * 10)?;
        let mut builder = UpdateBuilder::new(&authority, signer);
        match authority.trusts(&other) {
            true => builder.remove_key(&other)?,
            false => builder.add_key(Key::new(other, 1, None))?,
        }
        let made = builder.finish(&authority, storage.graph())?;
        updates.extend(made.iter().cloned());
        authority.inform(&mut storage, made, now)?;
        if updates.len().is_multiple_of(100) {
            authority.compact(&mut storage, rules, now + SignedDuration::from_secs(5))?;
        }
    }
    updates.truncate(LONG_CHAIN);
    Ok(updates)
}

struct Peer {
    id: NodeId,
    key: NodePublic,
    signature: Vec<u8>,
}

impl Peer {
    fn view(&self) -> FilterPeer<'_> {
        FilterPeer { id: self.id, key: self.key, signature: &self.signature, unsigned_peerapi_only: false }
    }
}

fn peers(signer: &LockPrivate) -> Result<Vec<Peer>, Box<dyn Error>> {
    let mut peers = Vec::with_capacity(PEERS);
    for (index, id) in (0..PEERS).zip(1_i64..) {
        let key = |turn: u8| {
            let mut raw = [turn; 32];
            raw[..8].copy_from_slice(&id.to_le_bytes());
            NodePublic::from_bytes(raw)
        };
        let mut seed = [3; 32];
        seed[..8].copy_from_slice(&id.to_le_bytes());
        let own = LockPrivate::from_seed(&seed).ok_or("no key")?;
        let rotations = if index.is_multiple_of(10) { 3 } else { 0 };
        let mut signature = NodeKeySignature::direct(key(0), Some(own.public()), signer)?;
        for turn in 1..=rotations {
            signature = NodeKeySignature::rotation(key(turn), signature, &own)?;
        }
        peers.push(Peer { id: NodeId(id), key: key(rotations), signature: signature.encode() });
    }
    Ok(peers)
}
