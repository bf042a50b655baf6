//! One question to a proxy, with its time limits.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use tsrs_base_types::Redacted;

use super::credentials::Credentials;
use super::error::ProxyError;
use super::http::HttpMachine;
use super::socks5::Socks5Machine;
use super::url::{ProxyScheme, ProxyUrl};
use crate::policy::Destination;

/// How long a proxy may take to let us in. It has nobody to ask for that.
pub const GREETING_LIMIT: Duration = Duration::from_secs(5);
/// How long a proxy may take to answer in all. It connects to the destination meanwhile; longer than it takes a client's first three
/// SYNs to go out, and than most programs wait.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// What a proxy is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A stream to a destination.
    Connect(Destination),
    /// A relay for UDP, which has to be at the address of the proxy.
    Associate {
        /// The address that the connection to the proxy goes to.
        proxy: Ipv4Addr,
    },
    /// To let us in, and nothing else: it contacts nobody for this.
    Health,
}

/// What a proxy gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The connection is a stream to the destination from here on.
    Connected,
    /// The relay for UDP, which lives as long as this connection.
    Associated(SocketAddrV4),
    /// It let us in.
    Healthy,
}

/// What some bytes of the proxy brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// All bytes are taken, and there is more to come.
    Pending,
    /// The handshake is over. The bytes from `consumed` on come from the destination.
    Done {
        /// How many of the bytes belonged to the handshake.
        consumed: usize,
        /// What the proxy gave.
        outcome: Outcome,
    },
}

/// The machine of one handshake. Its driver sends what [`Self::poll_transmit`] gives after each input, and drops the connection on the
/// first error.
pub struct Handshake {
    machine: Machine,
    greeting_deadline: Instant,
    answer_deadline: Instant,
}

enum Machine {
    Socks5(Socks5Machine),
    Http(HttpMachine),
}

impl Handshake {
    /// Begins, on a connection to the proxy that was just made. An HTTP proxy that is asked for UDP fails at once.
    pub fn new(
        proxy: &ProxyUrl,
        purpose: Purpose,
        credentials: Option<&Credentials>,
        now: Instant,
    ) -> Result<Self, ProxyError> {
        let machine = match proxy.scheme {
            ProxyScheme::Socks5 => Machine::Socks5(Socks5Machine::new(purpose, credentials)),
            ProxyScheme::Http | ProxyScheme::Https => {
                Machine::Http(HttpMachine::new(proxy, purpose, credentials)?)
            }
        };
        Ok(Self { machine, greeting_deadline: now + GREETING_LIMIT, answer_deadline: now + ANSWER_LIMIT })
    }

    /// The next bytes for the proxy. They may hold credentials.
    pub fn poll_transmit(&mut self) -> Option<Redacted<Vec<u8>>> {
        match &mut self.machine {
            Machine::Socks5(machine) => machine.poll_transmit(),
            Machine::Http(machine) => machine.poll_transmit(),
        }
    }

    /// Takes bytes of the proxy, in pieces of any size.
    pub fn handle_input(&mut self, bytes: &[u8], now: Instant) -> Result<Step, ProxyError> {
        self.handle_timeout(now)?;
        match &mut self.machine {
            Machine::Socks5(machine) => machine.handle_input(bytes),
            Machine::Http(machine) => machine.handle_input(bytes),
        }
    }

    /// Fails if the proxy has been given its time.
    pub fn handle_timeout(&self, now: Instant) -> Result<(), ProxyError> {
        if now >= self.poll_timeout() { Err(self.silence()) } else { Ok(()) }
    }

    /// When [`Self::handle_timeout`] will fail. Bytes that trickle in do not move it.
    pub const fn poll_timeout(&self) -> Instant {
        if self.is_let_in() { self.answer_deadline } else { self.greeting_deadline }
    }

    /// What it means that the proxy says nothing.
    pub const fn silence(&self) -> ProxyError {
        if self.is_let_in() { ProxyError::NoAnswer } else { ProxyError::Silent }
    }

    const fn is_let_in(&self) -> bool {
        match &self.machine {
            Machine::Socks5(machine) => machine.is_let_in(),
            // The login is part of the request.
            Machine::Http(machine) => machine.is_let_in(),
        }
    }
}
