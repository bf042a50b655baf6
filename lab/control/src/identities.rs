//! The certificates of one server, and what the DERP map says about them.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use rustls::ServerConfig;
use tsrs_base_types::RegionId;
use tsrs_control_tailcfg::{DerpMap, DerpNode, DerpRegion, DerpRegions};

use crate::config::{DerpTrust, LabConfig, RegionConfig};
use crate::server::Hubs;
use crate::tls::{Authority, Identity};

/// Port of DERP that a map need not name.
const DEFAULT_DERP_PORT: u16 = 443;

/// The certificates of one server.
pub(crate) struct Identities {
    control: Arc<ServerConfig>,
    regions: BTreeMap<RegionId, Arc<ServerConfig>>,
    derp_map: DerpMap,
    ca_pem: String,
}

impl Identities {
    pub(crate) fn new(config: &LabConfig, authority: &Authority, hubs: &Hubs) -> Result<Self> {
        let start_in = config.certificates_start_in;
        let control = authority.issue(&[config.address], &config.names, start_in)?.server_config()?;
        let mut regions = BTreeMap::new();
        let mut map = BTreeMap::new();
        for region in &config.regions {
            let mut identity = match region.trust {
                DerpTrust::Roots | DerpTrust::Insecure => {
                    authority.issue(&[region.address], &config.names, start_in)?
                }
                DerpTrust::Pinned => Identity::self_signed(&[region.address])?,
            };
            map.insert(region.id, derp_region(region, &identity));
            if let Some(hub) = hubs.get(&region.id) {
                identity.add_derp_key(&hub.key.public())?;
            }
            regions.insert(region.id, identity.server_config()?);
        }
        let derp_map = DerpMap { regions: Some(DerpRegions(map)), ..DerpMap::default() };
        Ok(Self { control, regions, derp_map, ca_pem: authority.pem() })
    }

    /// The TLS side of a port: a region's if it has one, since its certificate names the same address.
    pub(crate) fn server_config(&self, region: Option<RegionId>) -> Arc<ServerConfig> {
        Arc::clone(region.and_then(|region| self.regions.get(&region)).unwrap_or(&self.control))
    }

    pub(crate) fn derp_map(&self) -> &DerpMap {
        &self.derp_map
    }

    pub(crate) fn ca_pem(&self) -> &str {
        &self.ca_pem
    }
}

fn derp_region(region: &RegionConfig, identity: &Identity) -> DerpRegion {
    let address = region.address.to_string();
    let (ipv4, ipv6) = if region.address.is_ipv4() {
        (address.clone(), "none".to_owned())
    } else {
        ("none".to_owned(), address.clone())
    };
    let node = DerpNode {
        name: format!("{}a", region.id),
        region_id: region.id,
        host_name: address,
        cert_name: if region.trust == DerpTrust::Pinned { identity.pin() } else { String::new() },
        ipv4,
        ipv6,
        stun_port: region.stun_port.map_or(-1, i64::from),
        derp_port: if region.derp_port == DEFAULT_DERP_PORT { 0 } else { i64::from(region.derp_port) },
        insecure_for_tests: region.trust == DerpTrust::Insecure,
        can_port80: false,
        ..DerpNode::default()
    };
    DerpRegion {
        region_id: region.id,
        region_code: region.code.clone(),
        region_name: format!("Lab {}", region.code),
        nodes: vec![node],
        ..DerpRegion::default()
    }
}
