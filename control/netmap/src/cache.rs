//! The netmap on disk, for a start before the server answers.
//!
//! The file holds a version and one complete map response, so that it is read by the code that reads the server's.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use jiff::Timestamp;
use serde::ser::SerializeSeq;
use serde::{Deserialize, Serialize, Serializer};
use tsrs_control_tailcfg::{
    ControlDialPlan, DerpMap, DisplayMessage, DnsConfig, FilterRule, MapResponse, Node, SshPolicy, TkaInfo,
    UserProfile,
};

use crate::netmap::Netmap;
use crate::session::{Error, Session};

/// Version of the form. A file of another version is not read: the server will send the netmap again.
const VERSION: u32 = 1;

/// Why a cached netmap cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The file is not a cached netmap.
    #[error("cached netmap: {0}")]
    Json(#[from] serde_json::Error),
    /// The file has another form.
    #[error("cached netmap has version {0}, not {VERSION}")]
    Version(u32),
    /// The content is not a netmap.
    #[error("cached netmap: {0}")]
    Content(#[from] Error),
}

/// Writes a netmap as JSON. Peers that expired here are written as the server sent them.
pub fn write_cache(netmap: &Netmap, out: impl io::Write) -> serde_json::Result<()> {
    serde_json::to_writer(out, &CacheOut { version: VERSION, response: ResponseOut::new(netmap) })
}

/// Reads a netmap that [`write_cache`] wrote. It says of itself that it is cached. `now` is our wall clock; peers that
/// have expired meanwhile are expired.
pub fn read_cache(json: &[u8], now: Timestamp) -> Result<Arc<Netmap>, CacheError> {
    let VersionIn { version } = serde_json::from_slice(json)?;
    if version != VERSION {
        return Err(CacheError::Version(version));
    }
    let CacheIn { response } = serde_json::from_slice(json)?;
    let netmap = Session::new().handle(response, now)?.netmap.ok_or(Error::NoNode)?;
    let mut netmap = Arc::unwrap_or_clone(netmap);
    netmap.cached = true;
    Ok(Arc::new(netmap))
}

#[derive(Deserialize)]
struct VersionIn {
    #[serde(rename = "Version")]
    version: u32,
}

#[derive(Deserialize)]
struct CacheIn {
    #[serde(rename = "MapResponse")]
    response: MapResponse,
}

#[derive(Serialize)]
struct CacheOut<'a> {
    #[serde(rename = "Version")]
    version: u32,
    #[serde(rename = "MapResponse")]
    response: ResponseOut<'a>,
}

/// A map response made of borrowed parts.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ResponseOut<'a> {
    node: &'a Node,
    #[serde(rename = "DERPMap")]
    derp_map: &'a DerpMap,
    #[serde(serialize_with = "peers")]
    peers: &'a Netmap,
    #[serde(rename = "DNSConfig")]
    dns_config: &'a DnsConfig,
    domain: &'a str,
    collect_services: bool,
    packet_filters: BTreeMap<&'a str, &'a [FilterRule]>,
    user_profiles: Vec<&'a UserProfile>,
    health: &'a [String],
    display_messages: &'a BTreeMap<String, DisplayMessage>,
    #[serde(rename = "SSHPolicy")]
    ssh_policy: Option<&'a SshPolicy>,
    #[serde(rename = "TKAInfo")]
    tka_info: Option<&'a TkaInfo>,
    #[serde(rename = "DomainDataPlaneAuditLogID")]
    audit_log_id: &'a str,
    control_dial_plan: Option<&'a ControlDialPlan>,
}

impl<'a> ResponseOut<'a> {
    fn new(netmap: &'a Netmap) -> Self {
        Self {
            node: &netmap.self_node,
            derp_map: &netmap.derp_map,
            peers: netmap,
            dns_config: &netmap.dns,
            domain: &netmap.domain,
            collect_services: netmap.collect_services,
            packet_filters: netmap
                .filter_chunks
                .iter()
                .map(|(name, rules)| (name.as_str(), &**rules))
                .collect(),
            user_profiles: netmap.user_profiles().map(AsRef::as_ref).collect(),
            health: netmap.health.texts(),
            display_messages: netmap.health.own_messages(),
            ssh_policy: netmap.ssh_policy.as_deref(),
            tka_info: netmap.tka_info.as_ref(),
            audit_log_id: &netmap.audit_log_id,
            control_dial_plan: netmap.dial_plan.as_deref(),
        }
    }
}

fn peers<S: Serializer>(netmap: &Netmap, serializer: S) -> Result<S::Ok, S::Error> {
    let mut list = serializer.serialize_seq(Some(netmap.peers.len()))?;
    for node in netmap.peers.iter() {
        list.serialize_element(netmap.peers.original(node.id).unwrap_or(node).as_ref())?;
    }
    list.end()
}
