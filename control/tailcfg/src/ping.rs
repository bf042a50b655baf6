//! Requests of the server to prove something (sheet §18).

use std::net::IpAddr;

use tsrs_base_types::RegionId;

use crate::Base64;

wire! {
    /// Asks for a HEAD request to `url`, for pings, or for the answer to an HTTP request (c2n).
    struct PingRequest {
        /// Where the answer goes. A request with the URL of the one before is ignored.
        keep "URL" url: String,
        /// Reach `url` over Noise.
        omit "URLIsNoise" url_is_noise: bool,
        /// Log the success, too.
        omit "Log" log: bool,
        /// Empty, `c2n`, or a comma-separated list of `disco`, `TSMP`, `ICMP`, `peerapi`.
        omit "Types" types: String,
        /// Whom to ping.
        addr "IP" ip: Option<IpAddr>,
        /// The HTTP/1 request of `c2n`.
        omit "Payload" payload: Base64,
    }

    /// Result of one ping.
    struct PingResponse {
        /// `disco`, `TSMP`, `ICMP` or `peerapi`.
        keep "Type" kind: String,
        /// Whom we pinged.
        omit "IP" ip: String,
        /// Tailnet address of the node that answers for `ip`.
        omit "NodeIP" node_ip: String,
        /// Name of that node.
        omit "NodeName" node_name: String,
        /// Why it failed.
        omit "Err" err: String,
        /// Round trip in seconds.
        omit "LatencySeconds" latency_seconds: f64,
        /// `ip:port` of the direct path.
        omit "Endpoint" endpoint: String,
        /// `ip:port:vni:<n>` of the peer relay.
        omit "PeerRelay" peer_relay: String,
        /// Number of the DERP region.
        omit "DERPRegionID" derp_region_id: RegionId,
        /// Short name of the DERP region.
        omit "DERPRegionCode" derp_region_code: String,
        /// Port of the peer's PeerAPI.
        omit "PeerAPIPort" peer_api_port: u16,
        /// The address is our own.
        omit "IsLocalIP" is_local_ip: bool,
    }
}
