//! Every number of the protocol and every bound of the implementation (data-plane sheet §1.4, §1.6, §1.7; WireGuard paper §6).

use std::time::Duration;

/// Packets under one key after which a new handshake is started (WireGuard paper §6.1).
pub const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
/// First counter that may not be used: the replay window must not be overrun before a key is refused.
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);
/// Age at which the initiator of a session starts the next handshake when it sends.
pub const REKEY_AFTER_TIME: Duration = Duration::from_secs(120);
/// Age at which a key is used neither to send nor to receive.
pub const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);
/// Time after which a handshake is given up and what waited for it is dropped.
pub const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(90);
/// Time between two initiations to one peer, and before one is repeated.
pub const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
/// Age at which an initiation is repeated that did not reach its peer, as its relay says; doubled each time, up to
/// [`REKEY_TIMEOUT`].
pub const UNREACHED_RETRY: Duration = Duration::from_millis(250);
/// Initiations of one handshake before it is given up.
pub const MAX_HANDSHAKE_ATTEMPTS: u32 = 18;
/// Most random delay added to a repetition, so that two sides that began at once fall out of step.
pub const REKEY_JITTER_MAX: Duration = Duration::from_millis(333);
/// Silence of ours after received data that is ended by a keepalive.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Silence of the peer after sent data that is ended by a handshake.
pub const NEW_HANDSHAKE_AFTER: Duration = Duration::from_secs(15);
/// Age at which the initiator of a session starts the next handshake when it only receives: early enough that a
/// keepalive and a repetition still fit.
pub const RECEIVE_REKEY_AFTER: Duration = Duration::from_secs(165);
/// Time without a new session after which everything secret about a peer is forgotten.
pub const ZERO_KEYS_AFTER: Duration = Duration::from_secs(540);
/// Least time between two initiations of one peer that are answered.
pub const INITIATION_SPACING: Duration = Duration::from_millis(20);
/// Life of a cookie and of the secret that makes cookies.
pub const COOKIE_LIFETIME: Duration = Duration::from_secs(120);

/// Length of the queue of handshake messages that the caller keeps; what does not fit is dropped.
pub const MAX_HANDSHAKE_QUEUE: usize = 1024;
/// Waiting handshake messages at which an address must be proven by a cookie.
pub const UNDER_LOAD_BACKLOG: usize = MAX_HANDSHAKE_QUEUE / 8;
/// How long the state "under load" lasts after the queue was drained.
pub const UNDER_LOAD_LINGER: Duration = Duration::from_secs(1);
/// Under load, handshake messages per second of one address: a node needs one in five seconds.
pub const RATE_PER_SECOND: u32 = 20;
/// Under load, handshake messages of one address at once.
pub const RATE_BURST: u32 = 5;
/// Idle time after which an address is forgotten by the rate limiter.
pub const RATE_FORGET_AFTER: Duration = Duration::from_secs(1);
/// Addresses that the rate limiter follows. Only proven addresses get an entry; while the table is full no new one does, and
/// its messages are dropped.
pub const MAX_RATE_SOURCES: usize = 4096;

/// Packets of one peer that wait for a session. When it is full the oldest is dropped.
pub const MAX_STAGED_PACKETS: usize = 128;
/// Bytes of all packets that wait for sessions. A host that scans a large tailnet would otherwise fill the memory.
pub const MAX_STAGED_BYTES: usize = 8 << 20;
/// Peers of one device: ten times the largest tailnet that is measured.
pub const MAX_PEERS: usize = 1 << 20;
/// Peers whose timers are run in one call, so that a call stays short after the host slept.
pub const MAX_TIMEOUTS_PER_CALL: usize = 256;
/// Records that are handed to the cipher at once: a full run of segments (`UDP_SEGMENT` takes 64).
pub const MAX_RECORDS_PER_CALL: usize = 64;
