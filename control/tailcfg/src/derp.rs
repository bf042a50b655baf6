//! The map of DERP regions (sheet §14).

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use tsrs_base_types::RegionId;

wire! {
    /// The DERP regions, whole or as an update: `None` members keep what was known.
    struct DerpMap {
        /// How a home region is chosen.
        omit "HomeParams" home_params: Option<DerpHomeParams>,
        /// The regions by number.
        keep "Regions" regions: Option<DerpRegions>,
        /// Use these regions only.
        omit "omitDefaultRegions" omit_default_regions: bool,
    }

    /// How a home region is chosen.
    struct DerpHomeParams {
        /// Factor on the latency of a region: below 1 prefers it, 0 and below is ignored. `None` keeps the old ones.
        omit "RegionScore" region_score: Option<BTreeMap<RegionId, f64>>,
    }

    /// A place with DERP servers.
    struct DerpRegion {
        /// Number of the region. 900–999 are for users.
        keep "RegionID" region_id: RegionId,
        /// Short name.
        keep "RegionCode" region_code: String,
        /// Long name.
        keep "RegionName" region_name: String,
        /// Degrees.
        omit "Latitude" latitude: f64,
        /// Degrees.
        omit "Longitude" longitude: f64,
        /// Deprecated form of `no_measure_no_home`.
        omit "Avoid" avoid: bool,
        /// Do not measure and never make it home; connect if a peer lives there.
        omit "NoMeasureNoHome" no_measure_no_home: bool,
        /// The servers in the order in which we should try them.
        list "Nodes" nodes: Vec<DerpNode>,
    }

    /// A DERP or STUN server.
    struct DerpNode {
        /// Unique name, such as `1a`.
        keep "Name" name: String,
        /// Number of its region.
        keep "RegionID" region_id: RegionId,
        /// Host name.
        keep "HostName" host_name: String,
        /// Name in its certificate, if not the host name; `sha256-raw:<hex>` pins a self-signed certificate.
        omit "CertName" cert_name: String,
        /// IPv4 address; empty = ask DNS, `none` = do not use.
        omit "IPv4" ipv4: String,
        /// IPv6 address; empty = ask DNS, `none` = do not use.
        omit "IPv6" ipv6: String,
        /// UDP port of STUN; 0 = 3478, −1 = none.
        omit "STUNPort" stun_port: i64,
        /// STUN only, no DERP.
        omit "STUNOnly" stun_only: bool,
        /// TCP port of DERP; 0 = 443.
        omit "DERPPort" derp_port: i64,
        /// Do not verify the certificate (tests).
        omit "InsecureForTests" insecure_for_tests: bool,
        /// Address of STUN in tests.
        omit "STUNTestIP" stun_test_ip: String,
        /// Plain HTTP on port 80 works, for captive portal detection.
        omit "CanPort80" can_port80: bool,
    }
}

/// Regions by number, without those that the server sent as `null` (seen from headscale).
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
#[serde(transparent)]
pub struct DerpRegions(pub BTreeMap<RegionId, DerpRegion>);

impl<'de> Deserialize<'de> for DerpRegions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let regions = BTreeMap::<RegionId, Option<DerpRegion>>::deserialize(deserializer)?;
        Ok(Self(regions.into_iter().filter_map(|(id, region)| Some((id, region?))).collect()))
    }
}

impl std::ops::Deref for DerpRegions {
    type Target = BTreeMap<RegionId, DerpRegion>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerpMap {
    /// A region by its number.
    pub fn region(&self, id: RegionId) -> Option<&DerpRegion> {
        self.regions.as_ref()?.get(&id)
    }

    /// All regions, sorted by number.
    pub fn regions(&self) -> impl Iterator<Item = &DerpRegion> {
        self.regions.iter().flat_map(|regions| regions.values())
    }

    /// The factor on a region's latency when a home is chosen; 1 where none is given or it is not positive.
    pub fn home_score(&self, id: RegionId) -> f64 {
        let scores = self.home_params.as_ref().and_then(|params| params.region_score.as_ref());
        scores.and_then(|scores| scores.get(&id)).copied().filter(|score| *score > 0.0).unwrap_or(1.0)
    }
}
