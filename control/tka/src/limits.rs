//! Every limit of the crate. Those marked *consensus* are the reference's; nodes that differ in one of them disagree about
//! what is valid (Tailnet Lock sheet §18).

/// Maps and arrays around one another in an encoding. *Consensus.*
pub const MAX_NESTING: usize = 16;
/// Elements of one CBOR array. *Consensus.*
pub const MAX_ARRAY_ELEMENTS: u64 = 4096;
/// Pairs of one CBOR map. *Consensus.*
pub const MAX_MAP_PAIRS: u64 = 1024;

/// Trusted keys in a state. *Consensus.*
pub const MAX_KEYS: usize = 512;
/// Votes of one key; a key has at least one. *Consensus.*
pub const MAX_VOTES: u64 = 4096;
/// Bytes of all names and values in the metadata of one key. *Consensus.*
pub const MAX_META_BYTES: usize = 512;
/// Disablement values in a state; there is at least one. *Consensus.*
pub const MAX_DISABLEMENT_VALUES: usize = 32;
/// Bytes of a disablement value: the output of the key derivation. *Consensus.*
pub const DISABLEMENT_VALUE_BYTES: usize = 32;

/// Node keys in a chain of rotations before it is rebuilt: one more rotation would pass [`MAX_NESTING`]. *Consensus.*
pub const MAX_ROTATION_KEYS: usize = 15;

/// Updates of the active chain in which what another lacks is searched. *Consensus.* The reference cannot open a longer chain either, so a
/// tailnet does not grow one.
pub const MAX_CHAIN_SCAN: usize = 2000;
/// Updates that are stored. Larger than [`MAX_CHAIN_SCAN`], so that updates which come faster than compaction forgets them lock nobody out;
/// at some 300 bytes each they stay below 5 MiB, checkpoints aside.
pub const MAX_STORED_UPDATES: usize = 8 * MAX_CHAIN_SCAN;
/// Updates walked back when an offer is made or another's head is searched. *Consensus.*
pub const MAX_SYNC_HEAD_SCAN: usize = 1000;
/// Ancestors of a received offer that are looked at. An offer made by the reference holds a hash for each of
/// [`MAX_SYNC_HEAD_SCAN`] updates at most, and the oldest.
pub const MAX_OFFER_ANCESTORS: usize = MAX_SYNC_HEAD_SCAN + 1;
/// Updates taken in one call. A list of a correct server holds at most [`MAX_CHAIN_SCAN`]; this leaves room for forks
/// beside the active chain and bounds the work that one answer can cause.
pub const MAX_INFORM_UPDATES: usize = 2 * MAX_CHAIN_SCAN;
/// Bytes of one update that are decoded. A checkpoint with all that the other limits allow (512 keys with 512 bytes of
/// metadata, 32 values) and 512 signatures stays below 400 KiB.
pub const MAX_AUM_BYTES: usize = 1 << 20;
/// Bytes of one node-key signature that are decoded: 16 layers with every member need less than 4 KiB; the reference has no
/// limit of its own, and unknown members may make one longer.
pub const MAX_SIGNATURE_BYTES: usize = 64 << 10;

/// Updates from one checkpoint to the next that we make (§9, "Making changes").
pub const CHECKPOINT_EVERY: usize = 50;

/// Updates behind the head that compaction always keeps.
pub const COMPACT_MIN_CHAIN: usize = 24;
/// Days for which compaction keeps an update.
pub const COMPACT_MIN_AGE_DAYS: i64 = 14;
