//! Bodies of the messages of peer relays (data-plane sheet §2.2). The relay logic itself comes later.

use std::net::SocketAddr;
use std::time::Duration;

use tsrs_base_types::DiscoPublic;

use super::address::{parse_addresses, put_address};

/// Length of the body that the three bind messages share.
const BIND_LEN: usize = 72;
/// Length of a relay endpoint record before its addresses.
const RELAY_HEAD_LEN: usize = 32 + 2 * 32 + 8 + 4 + 8 + 8;
/// Length of the body of an allocation request.
const ALLOCATE_LEN: usize = 2 * 32 + 4;

/// Body of BindUDPRelayEndpoint, its Challenge and its Answer.
///
/// ```text
/// VNI u32 | generation u32 | remote client's disco key 32 | challenge 32
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// Which relayed pair.
    pub vni: u32,
    /// Counts the handshakes of the sender.
    pub generation: u32,
    /// Disco key of the other client.
    pub remote_key: DiscoPublic,
    /// Zero in the first message, then the server's.
    pub challenge: [u8; 32],
}

impl Bind {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.vni.to_be_bytes());
        out.extend_from_slice(&self.generation.to_be_bytes());
        out.extend_from_slice(self.remote_key.as_bytes());
        out.extend_from_slice(&self.challenge);
    }

    /// Bytes behind the body are ignored.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body.get(..BIND_LEN)?);
        Some(Self {
            vni: fields.u32()?,
            generation: fields.u32()?,
            remote_key: DiscoPublic::from_bytes(fields.array()?),
            challenge: fields.array()?,
        })
    }
}

/// A relayed pair as its server describes it.
///
/// ```text
/// server disco key 32 | client disco keys 2 × 32 | Lamport id u64 | VNI u32 |
/// bind lifetime u64 ns | steady-state lifetime u64 ns | at least one × (IP 16, port u16)
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RelayEndpoint {
    /// The server's own disco key, not that of the node it runs on.
    pub server_key: DiscoPublic,
    /// The two clients, in order of their keys.
    pub client_keys: [DiscoPublic; 2],
    /// Orders allocations of one server: the highest wins.
    pub lamport_id: u64,
    /// Number of the pair.
    pub vni: u32,
    /// How long both clients may take to bind.
    pub bind_lifetime: Duration,
    /// How long a bound pair lives when a side is silent.
    pub steady_state_lifetime: Duration,
    /// Where the server listens.
    pub addresses: Vec<SocketAddr>,
}

impl RelayEndpoint {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.server_key.as_bytes());
        for key in &self.client_keys {
            out.extend_from_slice(key.as_bytes());
        }
        out.extend_from_slice(&self.lamport_id.to_be_bytes());
        out.extend_from_slice(&self.vni.to_be_bytes());
        for lifetime in [self.bind_lifetime, self.steady_state_lifetime] {
            out.extend_from_slice(&u64::try_from(lifetime.as_nanos()).unwrap_or(u64::MAX).to_be_bytes());
        }
        for &address in &self.addresses {
            put_address(out, address);
        }
    }

    /// Wants at least one address and nothing behind the last.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let (head, tail) = body.split_at_checked(RELAY_HEAD_LEN)?;
        let mut fields = Fields(head);
        Some(Self {
            server_key: DiscoPublic::from_bytes(fields.array()?),
            client_keys: fields.client_keys()?,
            lamport_id: fields.u64()?,
            vni: fields.u32()?,
            bind_lifetime: fields.lifetime()?,
            steady_state_lifetime: fields.lifetime()?,
            addresses: parse_addresses(tail).filter(|addresses| !addresses.is_empty())?,
        })
    }
}

/// Body of AllocateUDPRelayEndpointRequest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AllocateRequest {
    /// The two clients, in order of their keys.
    pub client_keys: [DiscoPublic; 2],
    /// Echoed by the response.
    pub generation: u32,
}

impl AllocateRequest {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        for key in &self.client_keys {
            out.extend_from_slice(key.as_bytes());
        }
        out.extend_from_slice(&self.generation.to_be_bytes());
    }

    /// Bytes behind the body are ignored.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body.get(..ALLOCATE_LEN)?);
        Some(Self { client_keys: fields.client_keys()?, generation: fields.u32()? })
    }
}

/// Body of AllocateUDPRelayEndpointResponse.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AllocateResponse {
    /// Of the request it answers.
    pub generation: u32,
    /// The allocated pair.
    pub endpoint: RelayEndpoint,
}

impl AllocateResponse {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.generation.to_be_bytes());
        self.endpoint.put(out);
    }

    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let (generation, record) = body.split_first_chunk::<4>()?;
        Some(Self { generation: u32::from_be_bytes(*generation), endpoint: RelayEndpoint::parse(record)? })
    }
}

/// Reads big-endian fields one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// Nanoseconds. The reference reads them as signed; what is negative there has ended already.
    fn lifetime(&mut self) -> Option<Duration> {
        self.u64().map(|nanos| i64::try_from(nanos).map_or(Duration::ZERO, |_| Duration::from_nanos(nanos)))
    }

    fn client_keys(&mut self) -> Option<[DiscoPublic; 2]> {
        Some([DiscoPublic::from_bytes(self.array()?), DiscoPublic::from_bytes(self.array()?)])
    }
}
