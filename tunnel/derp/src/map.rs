//! Regions and nodes of the DERP map, in checked form (data-plane sheet §4.1, §4.4).

mod dialer;

use std::net::{IpAddr, Ipv4Addr};

use data_encoding::HEXLOWER_PERMISSIVE;
pub use dialer::{Dial, RegionDialer};
use tsrs_base_types::RegionId;

const DEFAULT_DERP_PORT: u16 = 443;
const DEFAULT_STUN_PORT: u16 = 3478;
/// Value of an address field that switches the family off.
const NO_ADDRESS: &str = "none";
/// What a `CertName` that pins a certificate begins with.
const PIN_PREFIX: &str = "sha256-raw:";

/// A region: servers at one place that share their clients.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Region {
    /// Its number.
    pub id: RegionId,
    /// Short name, such as `fra`.
    pub code: String,
    /// Name for people.
    pub name: String,
    /// Measured, and made home only if it already is.
    pub avoid: bool,
    /// Never measured, never home; still used for a peer that lives there.
    pub no_measure_no_home: bool,
    /// Servers, the preferred one first.
    pub nodes: Vec<Node>,
}

/// How one address of a node is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeAddress {
    /// Given in the map.
    Literal(Ipv4Addr),
    /// By DNS of the host name.
    Dns,
    /// Not to be used.
    Disabled,
}

/// How a node's certificate is verified. The SNI is always the host name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsPolicy {
    /// Against the roots and the host name.
    Normal,
    /// Against the roots and this name instead of the host name.
    Name(String),
    /// Exactly one certificate (beside meta certificates) with this SHA-256 of its DER; within its dates and for the host
    /// name, but without a CA.
    Sha256Raw([u8; 32]),
    /// Not at all. For test servers only.
    InsecureForTests,
}

impl TlsPolicy {
    /// From the fields of the map. None for a pin that is malformed: such a node must not be dialled at all.
    pub fn new(cert_name: &str, host_name: &str, insecure_for_tests: bool) -> Option<Self> {
        if let Some(digits) = cert_name.strip_prefix(PIN_PREFIX) {
            return parse_pin(digits).map(Self::Sha256Raw);
        }
        let other_name = !cert_name.is_empty() && cert_name != host_name;
        Some(match (other_name, insecure_for_tests) {
            (true, _) => Self::Name(cert_name.to_owned()),
            (false, true) => Self::InsecureForTests,
            (false, false) => Self::Normal,
        })
    }
}

fn parse_pin(digits: &str) -> Option<[u8; 32]> {
    HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok()?.try_into().ok()
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name in the map.
    pub name: String,
    /// Host name: SNI, HTTP host, and DNS name.
    pub host_name: String,
    /// Its IPv4 address.
    pub ipv4: NodeAddress,
    /// TCP port of DERP.
    pub port: u16,
    /// UDP port of STUN, if it has one.
    pub stun_port: Option<u16>,
    /// It answers STUN but relays nothing.
    pub stun_only: bool,
    /// Address for STUN instead of the node's own; for tests.
    pub stun_test_ip: Option<Ipv4Addr>,
    /// How its certificate is verified.
    pub tls: TlsPolicy,
    /// It also answers on TCP port 80 (captive portal check).
    pub can_port_80: bool,
}

/// A node in the words of the map (`tailcfg.DERPNode`).
#[derive(Debug, Clone, Copy, Default)]
pub struct NodeFields<'a> {
    /// `Name`.
    pub name: &'a str,
    /// `HostName`.
    pub host_name: &'a str,
    /// `CertName`: empty, a name, or `sha256-raw:` and hex.
    pub cert_name: &'a str,
    /// `IPv4`: empty for DNS, `none`, or an address.
    pub ipv4: &'a str,
    /// `STUNPort`: 0 for the usual, negative for none.
    pub stun_port: i64,
    /// `STUNOnly`.
    pub stun_only: bool,
    /// `DERPPort`: 0 for the usual.
    pub derp_port: i64,
    /// `InsecureForTests`.
    pub insecure_for_tests: bool,
    /// `STUNTestIP`.
    pub stun_test_ip: &'a str,
    /// `CanPort80`.
    pub can_port_80: bool,
}

impl Node {
    /// Checks the fields. None for a node that can serve nothing: without a host name, with a port that does not exist, or
    /// with a malformed certificate pin.
    pub fn new(fields: NodeFields<'_>) -> Option<Self> {
        if fields.host_name.is_empty() {
            return None;
        }
        let port = match fields.derp_port {
            0 => DEFAULT_DERP_PORT,
            port => u16::try_from(port).ok()?,
        };
        let stun_port = match fields.stun_port {
            0 => Some(DEFAULT_STUN_PORT),
            port => u16::try_from(port).ok(),
        };
        let ipv4 = match fields.ipv4 {
            "" => NodeAddress::Dns,
            NO_ADDRESS => NodeAddress::Disabled,
            text => text.parse().map_or(NodeAddress::Disabled, NodeAddress::Literal),
        };
        Some(Self {
            name: fields.name.to_owned(),
            host_name: fields.host_name.to_owned(),
            ipv4,
            port,
            stun_port,
            stun_only: fields.stun_only,
            stun_test_ip: fields.stun_test_ip.parse().ok(),
            tls: TlsPolicy::new(fields.cert_name, fields.host_name, fields.insecure_for_tests)?,
            can_port_80: fields.can_port_80,
        })
    }

    /// Whether packets can be relayed by it over IPv4.
    pub fn is_dialable(&self) -> bool {
        !self.stun_only && self.ipv4 != NodeAddress::Disabled
    }

    /// `Host` header: the port only if it is not the usual one.
    pub fn http_host(&self) -> String {
        match self.port {
            DEFAULT_DERP_PORT => self.host_name.clone(),
            port => format!("{}:{port}", self.host_name),
        }
    }

    /// Where its address is known without DNS.
    pub fn literal_ip(&self) -> Option<IpAddr> {
        match self.ipv4 {
            NodeAddress::Literal(ip) => Some(ip.into()),
            NodeAddress::Dns | NodeAddress::Disabled => None,
        }
    }
}
