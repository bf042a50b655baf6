//! What a node tells about its host (sheet §13).

use std::collections::BTreeMap;

use ipnet::IpNet;
use tsrs_base_types::{RegionId, StableNodeId};

wire! {
    /// The host of a node. Everything is optional and left out when empty.
    struct Hostinfo {
        /// Version of the client program.
        omit "IPNVersion" ipn_version: String,
        /// Log id of the user interface.
        omit "FrontendLogID" frontend_log_id: String,
        /// Log id of the daemon.
        omit "BackendLogID" backend_log_id: String,
        /// Operating system, such as `linux`.
        omit "OS" os: String,
        /// Version of the system; the kernel's on Linux.
        omit "OSVersion" os_version: String,
        /// Whether it runs in a container.
        omit "Container" container: Option<bool>,
        /// Environment, such as a cloud function.
        omit "Env" env: String,
        /// Linux distribution.
        omit "Distro" distro: String,
        /// Version of the distribution.
        omit "DistroVersion" distro_version: String,
        /// Code name of the distribution.
        omit "DistroCodeName" distro_code_name: String,
        /// Program that embeds the client.
        omit "App" app: String,
        /// Whether a desktop was found.
        omit "Desktop" desktop: Option<bool>,
        /// How the program was installed.
        omit "Package" package: String,
        /// Model of a phone.
        omit "DeviceModel" device_model: String,
        /// Token for push messages.
        omit "PushDeviceToken" push_device_token: String,
        /// Name of the host; servers make the DNS label from it.
        omit "Hostname" hostname: String,
        /// Incoming connections are blocked.
        omit "ShieldsUp" shields_up: bool,
        /// Set by the server on nodes that are there only because something is shared with their user.
        omit "ShareeNode" sharee_node: bool,
        /// Logs are not uploaded.
        omit "NoLogsNoSupport" no_logs_no_support: bool,
        /// Funnel may be wanted; sent only while `ingress_enabled` is false.
        omit "WireIngress" wire_ingress: bool,
        /// Funnel is in use.
        omit "IngressEnabled" ingress_enabled: bool,
        /// Remote updates are allowed.
        omit "AllowsUpdate" allows_update: bool,
        /// Remote configuration is allowed.
        omit "RemoteConfig" remote_config: bool,
        /// Machine type, such as `x86_64`.
        omit "Machine" machine: String,
        /// Architecture of the program, in Go's words.
        omit "GoArch" go_arch: String,
        /// Variant of the architecture.
        omit "GoArchVar" go_arch_var: String,
        /// Version of the Go compiler.
        omit "GoVersion" go_version: String,
        /// Advertised routes, sorted, without duplicates.
        addrs "RoutableIPs" routable_ips: Vec<IpNet>,
        /// Wanted tags, sorted, without duplicates.
        omit "RequestTags" request_tags: Vec<String>,
        /// Hardware addresses for wake-on-LAN.
        omit "WoLMACs" wol_macs: Vec<String>,
        /// What the node serves.
        list "Services" services: Vec<Service>,
        /// State of the network around the host.
        omit "NetInfo" net_info: Option<Box<NetInfo>>,
        /// Host keys of the SSH server; not empty when it is on.
        omit "sshHostKeys" ssh_host_keys: Vec<String>,
        /// Cloud that the host runs in.
        omit "Cloud" cloud: String,
        /// Own traffic runs without a kernel interface.
        omit "Userspace" userspace: Option<bool>,
        /// Subnet routes run in user space.
        omit "UserspaceRouter" userspace_router: Option<bool>,
        /// The app connector is on.
        omit "AppConnector" app_connector: Option<bool>,
        /// The node offers to relay for peers.
        omit "PeerRelay" peer_relay: bool,
        /// Hash of the advertised services; a change makes the server fetch them.
        omit "ServicesHash" services_hash: String,
        /// The selected exit node.
        omit "ExitNodeID" exit_node_id: StableNodeId,
        /// Where the host stands, if the node says so.
        omit "Location" location: Option<Box<Location>>,
        /// The TPM of the host.
        omit "TPM" tpm: Option<Box<TpmInfo>>,
        /// The state file is encrypted.
        omit "StateEncrypted" state_encrypted: Option<bool>,
    }

    /// State of the network around a host, as netcheck found it.
    struct NetInfo {
        /// The NAT maps by destination.
        omit "MappingVariesByDestIP" mapping_varies_by_dest_ip: Option<bool>,
        /// The router sends back what is addressed to its own public address.
        omit "HairPinning" hair_pinning: Option<bool>,
        /// There is IPv6 to the internet.
        omit "WorkingIPv6" working_ipv6: Option<bool>,
        /// The system supports IPv6.
        omit "OSHasIPv6" os_has_ipv6: Option<bool>,
        /// There is UDP to the internet.
        omit "WorkingUDP" working_udp: Option<bool>,
        /// ICMPv4 works.
        omit "WorkingICMPv4" working_icmpv4: Option<bool>,
        /// A port mapping is open.
        omit "HavePortMap" have_port_map: bool,
        /// UPnP was found.
        omit "UPnP" upnp: Option<bool>,
        /// NAT-PMP was found.
        omit "PMP" pmp: Option<bool>,
        /// PCP was found.
        omit "PCP" pcp: Option<bool>,
        /// Home DERP region: where peers reach us. Zero means none.
        keep "PreferredDERP" preferred_derp: RegionId,
        /// `wired`, `wifi` or `mobile`.
        omit "LinkType" link_type: String,
        /// Seconds to each region; keys are `<region>-v4` and `<region>-v6`.
        omit "DERPLatency" derp_latency: BTreeMap<String, f64>,
        /// Firewall tool and why, such as `nft-default`.
        omit "FirewallMode" firewall_mode: String,
    }

    /// Something that a node serves.
    struct Service {
        /// `tcp`, `udp`, `peerapi4`, `peerapi6` or `peerapi-dns-proxy`.
        keep "Proto" proto: String,
        /// The port; 1 for `peerapi-dns-proxy`.
        keep "Port" port: u16,
        /// Usually the name of the process.
        omit "Description" description: String,
    }

    /// Where a host stands.
    struct Location {
        /// Name of the country.
        omit "Country" country: String,
        /// ISO 3166-1 code of the country, upper case.
        omit "CountryCode" country_code: String,
        /// Name of the city.
        omit "City" city: String,
        /// Short code of the city, upper case.
        omit "CityCode" city_code: String,
        /// Degrees.
        omit "Latitude" latitude: f64,
        /// Degrees.
        omit "Longitude" longitude: f64,
        /// The higher is taken among exit nodes that match equally. Zero means no preference.
        omit "Priority" priority: i64,
    }

    /// A TPM 2.0 device.
    struct TpmInfo {
        /// Four-letter code of the maker.
        omit "Manufacturer" manufacturer: String,
        /// Text of the maker.
        omit "Vendor" vendor: String,
        /// Model number of the maker.
        omit "Model" model: i64,
        /// Firmware version.
        omit "FirmwareVersion" firmware_version: u64,
        /// Revision of the specification times one hundred.
        omit "SpecRevision" spec_revision: i64,
        /// Family of the specification.
        omit "FamilyIndicator" family_indicator: String,
    }
}

impl Service {
    /// `Proto` of the PeerAPI on the node's IPv4 address.
    pub const PEER_API4: &'static str = "peerapi4";
    /// `Proto` of the PeerAPI on the node's IPv6 address.
    pub const PEER_API6: &'static str = "peerapi6";
    /// `Proto` that says that the PeerAPI answers DNS queries of exit node users.
    pub const PEER_API_DNS: &'static str = "peerapi-dns-proxy";
}

impl NetInfo {
    /// Whether two reports differ in more than latencies. Only then the server is told.
    pub fn same_but_latency(&self, other: &Self) -> bool {
        let other = Self { derp_latency: self.derp_latency.clone(), ..other.clone() };
        *self == other
    }
}
