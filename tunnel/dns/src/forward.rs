//! One forwarded query: a race between upstreams and transports (data-plane sheet §9.4).

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::message::{Header, Query, ResponseCode};
use crate::providers;
use crate::resolver::Transport;
use crate::routes::Upstream;

/// Queries that may be under way at once; more are answered SERVFAIL. The reference has the same limit.
pub const MAX_FLIGHTS: usize = 256;
/// Upstreams of one query that are asked at most; a route with more is cut.
const MAX_UPSTREAMS: usize = 16;

/// How long a query may take in all.
const FLIGHT_TIME: Duration = Duration::from_secs(10);
/// Head start of DNS over HTTPS before the provider's plain addresses.
const ENCRYPTED_HEAD_START: Duration = Duration::from_millis(500);
/// Delay of the second and later plain address of one provider.
const LATER_ADDRESS_DELAY: Duration = Duration::from_millis(700);
/// When a query that came by UDP also tries TCP.
const TCP_RETRY_DELAY: Duration = Duration::from_secs(2);

/// Names a query under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlightId(pub u64);

/// One attempt of a flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Leg {
    /// The flight.
    pub flight: FlightId,
    /// The attempt within the flight.
    pub index: usize,
}

/// How one attempt goes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LegKind {
    /// A datagram.
    Udp(SocketAddr),
    /// A connection, with the two length bytes in front of the message (RFC 1035 §4.2.2).
    Tcp(SocketAddr),
    /// DNS over HTTPS by POST, TLS 1.3 or later.
    Https {
        /// Where to post.
        url: String,
        /// Addresses of the URL's host.
        addresses: Vec<IpAddr>,
    },
    /// DNS over HTTP to a peer's PeerAPI, through the tunnel.
    PeerApi(SocketAddr),
}

/// Why an attempt gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LegFailure {
    /// It could not be sent, or the connection failed.
    Unreachable,
    /// It took longer than the caller allows for this kind.
    TimedOut,
    /// What came back is no answer to this query.
    Garbage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting { since: Instant },
    Asked,
    Failed,
}

#[derive(Debug)]
struct Attempt {
    kind: LegKind,
    state: State,
}

/// What became of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing is decided yet.
    Pending,
    /// This goes to the client.
    Done(Vec<u8>),
}

/// A query under way.
#[derive(Debug)]
pub(crate) struct Flight {
    query: Query,
    transport: Transport,
    attempts: Vec<Attempt>,
    deadline: Instant,
    /// A truncated answer, kept for the case that TCP brings nothing better.
    truncated: Option<Vec<u8>>,
    refused: usize,
    answered: usize,
}

impl Flight {
    pub(crate) fn new(
        query: Query,
        transport: Transport,
        upstreams: &[Upstream],
        tcp: bool,
        now: Instant,
    ) -> Self {
        let attempts = plan(upstreams, transport, tcp)
            .into_iter()
            .map(|(kind, delay)| Attempt { kind, state: State::Waiting { since: now + delay } })
            .collect();
        Self {
            query,
            transport,
            attempts,
            deadline: now + FLIGHT_TIME,
            truncated: None,
            refused: 0,
            answered: 0,
        }
    }

    /// The attempts whose time has come.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<(usize, LegKind)> {
        let mut due = Vec::new();
        for (index, attempt) in self.attempts.iter_mut().enumerate() {
            if matches!(attempt.state, State::Waiting { since } if since <= now) {
                attempt.state = State::Asked;
                due.push((index, attempt.kind.clone()));
            }
        }
        due
    }

    /// When something has to be done next: an attempt or the end.
    pub(crate) fn next(&self) -> Instant {
        let waiting = self.attempts.iter().filter_map(|attempt| match attempt.state {
            State::Waiting { since } => Some(since),
            State::Asked | State::Failed => None,
        });
        waiting.min().map_or(self.deadline, |since| since.min(self.deadline))
    }

    pub(crate) fn is_over(&self, now: Instant) -> bool {
        now >= self.deadline
    }

    pub(crate) fn handle_answer(&mut self, index: usize, message: Vec<u8>) -> Outcome {
        let Some(attempt) = self.attempts.get_mut(index) else { return Outcome::Pending };
        if attempt.state != State::Asked {
            return Outcome::Pending;
        }
        attempt.state = State::Failed;
        let Some(header) = Header::read(&message) else { return self.check_exhausted() };
        if !header.is_response() || header.id != self.query.header.id {
            return self.check_exhausted();
        }
        self.answered += 1;
        if header.code() == ResponseCode::ServFail as u16 {
            return self.check_exhausted();
        }
        if header.code() == ResponseCode::Refused as u16 {
            self.refused += 1;
            return self.check_exhausted();
        }
        let by_udp = matches!(self.attempts[index].kind, LegKind::Udp(_));
        if header.is_truncated() && by_udp && self.transport == Transport::Tcp {
            self.truncated = Some(message);
            return self.check_exhausted();
        }
        Outcome::Done(message)
    }

    pub(crate) fn handle_failure(&mut self, index: usize) -> Outcome {
        match self.attempts.get_mut(index) {
            Some(attempt) if attempt.state == State::Asked => attempt.state = State::Failed,
            _ => return Outcome::Pending,
        }
        self.check_exhausted()
    }

    /// When no attempt is left: the best of what there was.
    fn check_exhausted(&mut self) -> Outcome {
        if self.attempts.iter().any(|attempt| attempt.state != State::Failed) {
            return Outcome::Pending;
        }
        if let Some(truncated) = self.truncated.take() {
            return Outcome::Done(truncated);
        }
        let all_refused = self.refused > 0 && self.refused == self.answered;
        let code = if all_refused { ResponseCode::Refused } else { ResponseCode::ServFail };
        Outcome::Done(self.query.answer_failed(code))
    }
}

/// The attempts of a query with their start delays.
fn plan(upstreams: &[Upstream], transport: Transport, tcp: bool) -> Vec<(LegKind, Duration)> {
    let mut legs = Vec::new();
    let mut encrypted = HashSet::new();
    let mut plain_of_provider = HashSet::new();
    for upstream in upstreams.iter().take(MAX_UPSTREAMS) {
        match upstream {
            Upstream::Https { url, addresses } => {
                if encrypted.insert(url.clone()) {
                    legs.push((
                        LegKind::Https { url: url.clone(), addresses: addresses.clone() },
                        Duration::ZERO,
                    ));
                }
            }
            Upstream::PeerApi { address } => legs.push((LegKind::PeerApi(*address), Duration::ZERO)),
            Upstream::Plain(address) => {
                let mut delay = Duration::ZERO;
                if let Some(url) = providers::url_of(address.ip()).filter(|_| address.port() == 53) {
                    if encrypted.insert(url.to_owned()) {
                        let addresses = providers::addresses_of(url).unwrap_or_default();
                        legs.push((LegKind::Https { url: url.to_owned(), addresses }, Duration::ZERO));
                    }
                    let first = plain_of_provider.insert((url, address.is_ipv4()));
                    delay = if first { ENCRYPTED_HEAD_START } else { LATER_ADDRESS_DELAY };
                }
                legs.push((LegKind::Udp(*address), delay));
                if tcp {
                    let later = if transport == Transport::Udp { TCP_RETRY_DELAY } else { Duration::ZERO };
                    legs.push((LegKind::Tcp(*address), delay + later));
                }
            }
        }
    }
    legs
}
