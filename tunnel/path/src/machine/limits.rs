//! Every limit and time of path finding, with its reason (data-plane sheet §3.1).

use std::time::Duration;

/// A peer is active this long after data was last sent to it; without activity nothing is probed.
pub const SESSION_ACTIVE: Duration = Duration::from_secs(45);
/// Gap between pings to the chosen path while the peer is active.
pub const HEARTBEAT: Duration = Duration::from_secs(3);
/// How long a pong proves a path: two heartbeats and a little.
pub const TRUST: Duration = Duration::from_millis(6500);
/// Smallest gap between two discovery pings to one address, so that a busy flow does not flood candidates.
pub const PING_FLOOR: Duration = Duration::from_secs(5);
/// A ping without a pong is given up after this.
pub const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// A trusted path is compared with the other candidates this often.
pub const UPGRADE_INTERVAL: Duration = Duration::from_secs(60);
/// Latency at which no better path is looked for.
pub const GOOD_ENOUGH_LATENCY: Duration = Duration::from_millis(5);
/// Own endpoints older than this are found anew before they go into a CallMeMaybe.
pub const ENDPOINTS_FRESH: Duration = Duration::from_secs(27);
/// A peer's CallMeMaybe makes us ping all its candidates at once, but not more often than this: whoever is in the tailnet
/// could otherwise use us to flood addresses of its choice. Honest peers call each 3 s at most.
pub const CALL_FLOOR: Duration = Duration::from_secs(1);
/// Periodic STUN while active: a random time in this range, so that nodes do not beat together and NAT bindings of 30 s
/// live.
pub const STUN_INTERVAL: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(26));
/// A candidate learned from a ping is kept this long after the last one.
pub const PING_CANDIDATE_LIFE: Duration = Duration::from_secs(45);
/// Candidates per peer. A peer behind a symmetric NAT, or a hostile one, may show a new address with every ping.
pub const MAX_CANDIDATES: usize = 100;
/// Outstanding pings per peer: within one ping timeout each candidate is pinged once, and users ping too.
pub const MAX_OUTSTANDING: usize = 2 * MAX_CANDIDATES;
/// Own reflexive addresses are offered this long after they were last seen.
pub const STUN_ENDPOINT_LIFE: Duration = Duration::from_secs(310);
/// Remembered reflexive addresses per IP: a hard NAT shows a new port every time.
pub const MAX_STUN_ENDPOINTS_PER_IP: usize = 6;
/// Own endpoints in all: a CallMeMaybe with them stays below every MTU (64 × 18 B + 80 B < 1280 B).
pub const MAX_OWN_ENDPOINTS: usize = 64;
/// Peers that wait for a CallMeMaybe until our endpoints are fresh. Those beyond it call with their next heartbeat.
pub const MAX_PENDING_CALLS: usize = 1024;
/// A DERP connection that is not home and was not used this long is closed.
pub const DERP_IDLE: Duration = Duration::from_secs(60);
/// How often idle DERP connections are looked for, while there are any.
pub const DERP_IDLE_CHECK: Duration = Duration::from_secs(15);
/// A new socket is asked for at most this often.
pub const REBIND_FLOOR: Duration = Duration::from_secs(5);
/// A user's ping that did not reach its peer, as the relay says, is sent again after this.
pub const UNREACHED_RETRY: Duration = Duration::from_millis(500);
/// Pings of users at one time, over all peers.
pub const MAX_CLI_PINGS: usize = 256;
/// Largest padded ping: the payload of a jumbo frame of 9000 bytes.
pub const MAX_PING_SIZE: usize = 8972;
/// Regions over which one peer was heard that are remembered; a peer has one home and moves rarely.
pub const MAX_HEARD_REGIONS: usize = 4;
/// Peers whose timers run in one `handle_timeout`; the rest has its turn in the next, so that outputs stay bounded.
pub const MAX_TIMERS_PER_CALL: usize = 256;
