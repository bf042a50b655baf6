//! The resolver's machine: queries in, own answers and questions to upstreams out.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Instant;

use crate::forward::{Flight, FlightId, Leg, LegFailure, LegKind, MAX_FLIGHTS, Outcome};
use crate::message::{Query, ResponseCode};
use crate::name::Name;
use crate::routes::Routes;
use crate::truncate::{MAX_RESPONSE_LEN, cap_offered_size, fit};
use crate::{Hosts, local};

/// How a query came; answers go back the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// A datagram.
    Udp,
    /// A connection.
    Tcp,
}

/// The caller's name for a query, so that it knows where the answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QueryId(pub u64);

/// What the netmap and the prefs say about names; hosts are kept apart, since they change one by one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// Upstreams by suffix.
    pub routes: Routes,
    /// Suffixes that we alone answer: NXDOMAIN if unknown.
    pub local_domains: HashSet<Name>,
    /// Never try upstreams by TCP (node attribute `dns-forwarder-disable-tcp-retries`).
    pub no_tcp: bool,
}

/// What the caller has to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this to the client.
    Answer {
        /// Which query it answers.
        query: QueryId,
        /// The message, already fitted to the client's transport.
        message: Vec<u8>,
    },
    /// Ask an upstream; the result comes back by [`Resolver::handle_answer`] or [`Resolver::handle_failure`].
    Ask {
        /// Names the attempt.
        leg: Leg,
        /// How it goes out.
        kind: LegKind,
        /// The message to send.
        message: Vec<u8>,
    },
    /// The flight is over: drop its sockets and connections.
    Close {
        /// Which one.
        flight: FlightId,
    },
}

struct Entry {
    flight: Flight,
    query_id: QueryId,
    transport: Transport,
    message: Vec<u8>,
}

/// See the crate's documentation.
#[derive(Default)]
pub struct Resolver {
    config: Config,
    hosts: Hosts,
    flights: BTreeMap<FlightId, Entry>,
    next_flight: u64,
    actions: VecDeque<Action>,
}

impl Resolver {
    /// A resolver that knows nothing yet: every query is answered SERVFAIL.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the configuration. Queries under way keep their upstreams.
    pub fn set_config(&mut self, config: Config) {
        self.config = config;
    }

    /// The hosts, to change them.
    pub fn hosts_mut(&mut self) -> &mut Hosts {
        &mut self.hosts
    }

    /// The upstreams that a name would be forwarded to.
    pub fn upstreams(&self, name: &Name) -> &[crate::Upstream] {
        self.config.routes.choose(name)
    }

    /// Takes a query from a client. `unix_secs` is the wall clock, for the serial of SOA records.
    pub fn handle_query(
        &mut self,
        id: QueryId,
        transport: Transport,
        message: &[u8],
        unix_secs: u32,
        now: Instant,
    ) {
        let query = match Query::parse(message) {
            Ok(query) => query,
            Err(formerr) => return self.answer(id, transport, message, formerr),
        };
        if let Some(answer) = local::answer(&query, &self.config, &self.hosts, unix_secs) {
            return self.answer(id, transport, message, answer);
        }
        if local::is_browsing(&query.question.name) {
            return self.answer(id, transport, message, query.answer_unforwarded());
        }
        let upstreams = self.config.routes.choose(&query.question.name);
        if upstreams.is_empty() || self.flights.len() >= MAX_FLIGHTS {
            return self.answer(id, transport, message, query.answer_failed(ResponseCode::ServFail));
        }
        let flight = Flight::new(query, transport, upstreams, !self.config.no_tcp, now);
        let flight_id = FlightId(self.next_flight);
        self.next_flight += 1;
        let mut offered = message.to_vec();
        cap_offered_size(&mut offered);
        self.flights.insert(flight_id, Entry { flight, query_id: id, transport, message: offered });
        self.ask_due(flight_id, now);
    }

    /// Takes an upstream's answer.
    pub fn handle_answer(&mut self, leg: Leg, message: Vec<u8>) {
        if message.len() > MAX_RESPONSE_LEN {
            return self.handle_failure(leg, LegFailure::Garbage);
        }
        if let Some(entry) = self.flights.get_mut(&leg.flight) {
            let outcome = entry.flight.handle_answer(leg.index, message);
            self.settle(leg.flight, outcome);
        }
    }

    /// Takes note that an attempt failed.
    pub fn handle_failure(&mut self, leg: Leg, failure: LegFailure) {
        tracing::debug!(?failure, leg = leg.index, "upstream resolver gave no answer");
        if let Some(entry) = self.flights.get_mut(&leg.flight) {
            let outcome = entry.flight.handle_failure(leg.index);
            self.settle(leg.flight, outcome);
        }
    }

    /// Starts attempts whose time has come and ends queries that took too long; those get no answer, as the client
    /// has given up or asks again.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due: Vec<FlightId> =
            self.flights.iter().filter(|(_, entry)| entry.flight.next() <= now).map(|(id, _)| *id).collect();
        for id in due {
            if self.flights.get(&id).is_some_and(|entry| entry.flight.is_over(now)) {
                self.flights.remove(&id);
                self.actions.push_back(Action::Close { flight: id });
            } else {
                self.ask_due(id, now);
            }
        }
    }

    /// When [`Self::handle_timeout`] wants to be called; never while no query is under way.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.flights.values().map(|entry| entry.flight.next()).min()
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn ask_due(&mut self, id: FlightId, now: Instant) {
        let Some(entry) = self.flights.get_mut(&id) else { return };
        for (index, kind) in entry.flight.due(now) {
            let message = entry.message.clone();
            self.actions.push_back(Action::Ask { leg: Leg { flight: id, index }, kind, message });
        }
    }

    fn settle(&mut self, id: FlightId, outcome: Outcome) {
        let Outcome::Done(message) = outcome else { return };
        if let Some(entry) = self.flights.remove(&id) {
            self.answer(entry.query_id, entry.transport, &entry.message, message);
            self.actions.push_back(Action::Close { flight: id });
        }
    }

    fn answer(&mut self, query: QueryId, transport: Transport, asked: &[u8], mut message: Vec<u8>) {
        fit(asked, &mut message, transport);
        self.actions.push_back(Action::Answer { query, message });
    }
}
