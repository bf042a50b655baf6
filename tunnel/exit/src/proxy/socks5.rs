//! The client of SOCKS version 5 (RFC 1928), with user name and password (RFC 1929).
//!
//! ```text
//! method:  05 01 METHOD               →   ←  05 METHOD
//! login:   01 ULEN USER PLEN PASSWORD →   ←  01 STATUS
//! request: 05 CMD 00 01 ADDR(4) PORT  →   ←  05 REP 00 ATYP BND.ADDR BND.PORT
//! ```

use std::net::{Ipv4Addr, SocketAddrV4};

use tsrs_base_types::Redacted;

use super::credentials::Credentials;
use super::error::{Garbage, ProxyError, Reply};
use super::handshake::{Outcome, Purpose, Step};

const VERSION: u8 = 5;
const LOGIN_VERSION: u8 = 1;
const METHOD_NONE: u8 = 0;
const METHOD_LOGIN: u8 = 2;
const METHOD_UNACCEPTABLE: u8 = 0xff;
const COMMAND_CONNECT: u8 = 1;
const COMMAND_ASSOCIATE: u8 = 3;
const ADDRESS_IPV4: u8 = 1;
const ADDRESS_NAME: u8 = 3;
const ADDRESS_IPV6: u8 = 4;
/// Longest message of a proxy: a reply with a name of 255 bytes.
const MAX_MESSAGE_LEN: usize = 4 + 1 + 255 + 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Method,
    Login,
    Reply,
}

pub(super) struct Socks5Machine {
    state: State,
    purpose: Purpose,
    /// The login, if there is one to be sent.
    login: Option<Redacted<Vec<u8>>>,
    to_send: Option<Redacted<Vec<u8>>>,
    /// What has arrived of the message that is waited for.
    message: Box<[u8; MAX_MESSAGE_LEN]>,
    message_len: usize,
}

impl Socks5Machine {
    /// One method is offered. With credentials it is the login: a proxy that asks for none is not the one that the operator means.
    pub(super) fn new(purpose: Purpose, credentials: Option<&Credentials>) -> Self {
        let login = credentials.map(Credentials::socks5_login);
        let method = if login.is_some() { METHOD_LOGIN } else { METHOD_NONE };
        Self {
            state: State::Method,
            purpose,
            login,
            to_send: Some(Redacted::new(vec![VERSION, 1, method])),
            message: Box::new([0; MAX_MESSAGE_LEN]),
            message_len: 0,
        }
    }

    pub(super) const fn poll_transmit(&mut self) -> Option<Redacted<Vec<u8>>> {
        self.to_send.take()
    }

    pub(super) const fn is_let_in(&self) -> bool {
        matches!(self.state, State::Reply)
    }

    pub(super) fn handle_input(&mut self, bytes: &[u8]) -> Result<Step, ProxyError> {
        for (index, byte) in bytes.iter().enumerate() {
            // The length that is waited for is never longer than the longest message.
            if let Some(free) = self.message.get_mut(self.message_len) {
                *free = *byte;
                self.message_len += 1;
            }
            if !self.is_complete()? {
                continue;
            }
            self.message_len = 0;
            let consumed = index + 1;
            if let Some(outcome) = self.take_message()? {
                return Ok(Step::Done { consumed, outcome });
            }
            if consumed < bytes.len() {
                return Err(ProxyError::Garbage(Garbage::Early));
            }
        }
        Ok(Step::Pending)
    }

    /// Whether the message is complete. What shows that it is no use is told at once: a proxy may close without the rest.
    fn is_complete(&self) -> Result<bool, ProxyError> {
        let [version, reply, _, kind, first, ..] = *self.message;
        let wanted_version = if self.state == State::Login { LOGIN_VERSION } else { VERSION };
        if version != wanted_version {
            return Err(ProxyError::Garbage(Garbage::Version));
        }
        if self.message_len < 2 {
            return Ok(false);
        }
        if self.state != State::Reply {
            return Ok(true);
        }
        if reply != 0 {
            return Err(ProxyError::Refused(Reply::from_socks5(reply)));
        }
        if self.message_len < 5 {
            return Ok(false);
        }
        let address_len = match kind {
            ADDRESS_IPV4 => 4,
            ADDRESS_IPV6 => 16,
            ADDRESS_NAME => 1 + usize::from(first),
            _ => return Err(ProxyError::Garbage(Garbage::AddressType)),
        };
        Ok(self.message_len == 4 + address_len + 2)
    }

    fn take_message(&mut self) -> Result<Option<Outcome>, ProxyError> {
        let [_, answer, ..] = *self.message;
        match self.state {
            State::Method => match (answer, self.login.take()) {
                (METHOD_LOGIN, Some(login)) => {
                    self.state = State::Login;
                    self.to_send = Some(login);
                    Ok(None)
                }
                (METHOD_NONE, None) => Ok(self.ask()),
                (METHOD_UNACCEPTABLE, _) => Err(ProxyError::NoAcceptableMethod),
                _ => Err(ProxyError::Garbage(Garbage::Method)),
            },
            State::Login if answer == 0 => Ok(self.ask()),
            State::Login => Err(ProxyError::Credentials),
            State::Reply => match self.purpose {
                Purpose::Connect(_) => Ok(Some(Outcome::Connected)),
                Purpose::Associate { proxy } => {
                    self.relay(proxy).map(|relay| Some(Outcome::Associated(relay)))
                }
                Purpose::Health => Ok(Some(Outcome::Healthy)),
            },
        }
    }

    /// Asks for what is wanted, now that the proxy let us in; nothing, if that is all that was wanted to know.
    fn ask(&mut self) -> Option<Outcome> {
        let (command, address) = match self.purpose {
            Purpose::Connect(destination) => (COMMAND_CONNECT, destination.address()),
            // From where the datagrams will come is not known yet (RFC 1928 §4).
            Purpose::Associate { .. } => (COMMAND_ASSOCIATE, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)),
            Purpose::Health => return Some(Outcome::Healthy),
        };
        let mut request = vec![VERSION, command, 0, ADDRESS_IPV4];
        request.extend_from_slice(&address.ip().octets());
        request.extend_from_slice(&address.port().to_be_bytes());
        self.state = State::Reply;
        self.to_send = Some(Redacted::new(request));
        None
    }

    /// The relay for UDP. Any other address than the proxy's own would let a proxy point our datagrams at somebody.
    fn relay(&self, proxy: Ipv4Addr) -> Result<SocketAddrV4, ProxyError> {
        let [_, _, _, kind, a, b, c, d, high, low, ..] = *self.message;
        let address = Ipv4Addr::new(a, b, c, d);
        let port = u16::from_be_bytes([high, low]);
        let is_proxy = address.is_unspecified() || address.to_bits() == proxy.to_bits();
        if kind != ADDRESS_IPV4 || !is_proxy || port == 0 {
            return Err(ProxyError::Garbage(Garbage::RelayAddress));
        }
        Ok(SocketAddrV4::new(proxy, port))
    }
}
