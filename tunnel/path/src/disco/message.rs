//! The nine disco messages: type u8, version u8 (0), body (data-plane sheet §2.2).
//!
//! Reading is lenient in exactly the ways of the reference, since old and new peers depend on them.

use std::net::SocketAddr;

use tsrs_base_types::NodePublic;

use super::address::{ADDRESS_LEN, parse_address, parse_addresses, put_address};
use super::relay::{AllocateRequest, AllocateResponse, Bind, RelayEndpoint};

const TYPE_PING: u8 = 1;
const TYPE_PONG: u8 = 2;
const TYPE_CALL_ME_MAYBE: u8 = 3;
const TYPE_BIND: u8 = 4;
const TYPE_BIND_CHALLENGE: u8 = 5;
const TYPE_BIND_ANSWER: u8 = 6;
const TYPE_CALL_ME_MAYBE_VIA: u8 = 7;
const TYPE_ALLOCATE_REQUEST: u8 = 8;
const TYPE_ALLOCATE_RESPONSE: u8 = 9;
const VERSION: u8 = 0;
const NODE_KEY_LEN: usize = 32;

/// Transaction id of a ping, echoed by its pong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxId(pub [u8; 12]);

/// Why a plaintext is not a disco message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Shorter than type and version, or than the body of its type.
    #[error("disco message is too short or has a wrong length")]
    Length,
    /// A type that we do not know. Newer peers may send some.
    #[error("unknown disco message type {0}")]
    Type(u8),
}

/// A disco message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Asks whether a path works.
    Ping {
        /// Names this ping.
        tx_id: TxId,
        /// The sender; absent (or the zero key) from very old peers.
        node_key: Option<NodePublic>,
        /// Bytes of zero padding behind, to probe the path's MTU.
        padding_len: usize,
    },
    /// Answers a ping on the same path.
    Pong {
        /// Of the ping.
        tx_id: TxId,
        /// Where the ping came from, as its receiver saw it.
        source: SocketAddr,
    },
    /// Asks the receiver to ping all of these addresses, so that NATs on both sides open. Over DERP only.
    CallMeMaybe {
        /// The sender's endpoints.
        endpoints: Vec<SocketAddr>,
    },
    /// First message of the handshake with a relay.
    BindRelay(Bind),
    /// The relay's challenge.
    BindRelayChallenge(Bind),
    /// The answer to the challenge.
    BindRelayAnswer(Bind),
    /// Like CallMeMaybe, through a relay. Over DERP only.
    CallMeMaybeVia(RelayEndpoint),
    /// Asks a relay for a pair. Over DERP only.
    AllocateRelayRequest(AllocateRequest),
    /// The relay's answer. Over DERP only.
    AllocateRelayResponse(AllocateResponse),
}

impl Message {
    /// Appends the plaintext.
    pub fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Ping { tx_id, node_key, padding_len } => {
                out.extend_from_slice(&[TYPE_PING, VERSION]);
                out.extend_from_slice(&tx_id.0);
                if let Some(key) = node_key {
                    out.extend_from_slice(key.as_bytes());
                }
                out.resize(out.len() + padding_len, 0);
            }
            Self::Pong { tx_id, source } => {
                out.extend_from_slice(&[TYPE_PONG, VERSION]);
                out.extend_from_slice(&tx_id.0);
                put_address(out, *source);
            }
            Self::CallMeMaybe { endpoints } => {
                out.extend_from_slice(&[TYPE_CALL_ME_MAYBE, VERSION]);
                for &endpoint in endpoints {
                    put_address(out, endpoint);
                }
            }
            Self::BindRelay(bind) => {
                out.extend_from_slice(&[TYPE_BIND, VERSION]);
                bind.put(out);
            }
            Self::BindRelayChallenge(bind) => {
                out.extend_from_slice(&[TYPE_BIND_CHALLENGE, VERSION]);
                bind.put(out);
            }
            Self::BindRelayAnswer(bind) => {
                out.extend_from_slice(&[TYPE_BIND_ANSWER, VERSION]);
                bind.put(out);
            }
            Self::CallMeMaybeVia(endpoint) => {
                out.extend_from_slice(&[TYPE_CALL_ME_MAYBE_VIA, VERSION]);
                endpoint.put(out);
            }
            Self::AllocateRelayRequest(request) => {
                out.extend_from_slice(&[TYPE_ALLOCATE_REQUEST, VERSION]);
                request.put(out);
            }
            Self::AllocateRelayResponse(response) => {
                out.extend_from_slice(&[TYPE_ALLOCATE_RESPONSE, VERSION]);
                response.put(out);
            }
        }
    }

    /// The plaintext.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }

    /// Reads a plaintext. CallMeMaybe that is malformed or of another version is an empty list, and CallMeMaybeVia and
    /// the Allocate messages of another version are empty records: peers may extend them.
    pub fn parse(plain: &[u8]) -> Result<Self, ParseError> {
        let (&[kind, version], body) = plain.split_first_chunk::<2>().ok_or(ParseError::Length)?;
        let message = match kind {
            TYPE_PING => parse_ping(body),
            TYPE_PONG => parse_pong(body),
            TYPE_CALL_ME_MAYBE => {
                let endpoints = if version == VERSION { parse_addresses(body) } else { None };
                Some(Self::CallMeMaybe { endpoints: endpoints.unwrap_or_default() })
            }
            TYPE_BIND => Bind::parse(body).map(Self::BindRelay),
            TYPE_BIND_CHALLENGE => Bind::parse(body).map(Self::BindRelayChallenge),
            TYPE_BIND_ANSWER => Bind::parse(body).map(Self::BindRelayAnswer),
            TYPE_CALL_ME_MAYBE_VIA if version != VERSION => {
                Some(Self::CallMeMaybeVia(RelayEndpoint::default()))
            }
            TYPE_CALL_ME_MAYBE_VIA => RelayEndpoint::parse(body).map(Self::CallMeMaybeVia),
            TYPE_ALLOCATE_REQUEST if version != VERSION => {
                Some(Self::AllocateRelayRequest(AllocateRequest::default()))
            }
            TYPE_ALLOCATE_REQUEST => AllocateRequest::parse(body).map(Self::AllocateRelayRequest),
            TYPE_ALLOCATE_RESPONSE if version != VERSION => {
                Some(Self::AllocateRelayResponse(AllocateResponse::default()))
            }
            TYPE_ALLOCATE_RESPONSE => AllocateResponse::parse(body).map(Self::AllocateRelayResponse),
            unknown => return Err(ParseError::Type(unknown)),
        };
        message.ok_or(ParseError::Length)
    }
}

/// TxID 12, node key 32 where there is one, padding. 32 bytes of padding or more without a key read as a zero key.
fn parse_ping(body: &[u8]) -> Option<Message> {
    let (&tx_id, rest) = body.split_first_chunk::<12>()?;
    let (node_key, padding) = match rest.split_first_chunk::<NODE_KEY_LEN>() {
        Some((raw, padding)) => (Some(NodePublic::from_bytes(*raw)).filter(|key| !key.is_zero()), padding),
        None => (None, rest),
    };
    Some(Message::Ping { tx_id: TxId(tx_id), node_key, padding_len: padding.len() })
}

/// TxID 12, address 18; more is ignored.
fn parse_pong(body: &[u8]) -> Option<Message> {
    let (&tx_id, rest) = body.split_first_chunk::<12>()?;
    let source = parse_address(rest.first_chunk::<ADDRESS_LEN>()?);
    Some(Message::Pong { tx_id: TxId(tx_id), source })
}
