//! Names of capabilities (sheet §22).

/// Node attributes: in the `CapMap` of the self node, where not said otherwise. Presence counts.
pub mod node {
    /// The user is an administrator; for display only.
    pub const IS_ADMIN: &str = "https://tailscale.com/cap/is-admin";
    /// The user owns the tailnet; for display only.
    pub const IS_OWNER: &str = "https://tailscale.com/cap/is-owner";
    /// Taildrop is allowed.
    pub const FILE_SHARING: &str = "https://tailscale.com/cap/file-sharing";
    /// The SSH server may be enabled.
    pub const SSH: &str = "https://tailscale.com/cap/ssh";
    /// Some SSH rule reaches this node.
    pub const SSH_RULE_IN: &str = "https://tailscale.com/cap/ssh-rule-in";
    /// The node may synchronise and enable Tailnet Lock.
    pub const TAILNET_LOCK: &str = "https://tailscale.com/cap/tailnet-lock";
    /// Flow logs are on.
    pub const DATA_PLANE_AUDIT_LOGS: &str = "https://tailscale.com/cap/data-plane-audit-logs";
    /// The PeerAPI shows debug pages.
    pub const DEBUG: &str = "https://tailscale.com/cap/debug";
    /// Certificates may be had.
    pub const HTTPS: &str = "https";
    /// Funnel is allowed.
    pub const FUNNEL: &str = "funnel";
    /// Beginning of the name that lists the ports of funnel: `…?ports=80,443,8080-8090`.
    pub const FUNNEL_PORTS: &str = "https://tailscale.com/cap/funnel-ports";
    /// Taildrive shares are allowed.
    pub const DRIVE_SHARE: &str = "drive:share";
    /// Taildrive access is allowed.
    pub const DRIVE_ACCESS: &str = "drive:access";
    /// No UDP and no peer relay, DERP only.
    pub const ONLY_TCP_443: &str = "only-tcp-443";
    /// Bind a random UDP port.
    pub const RANDOMIZE_CLIENT_PORT: &str = "randomize-client-port";
    /// One route for 100.64.0.0/10.
    pub const ONE_CGNAT_ENABLE: &str = "one-cgnat?v=true";
    /// One route per peer.
    pub const ONE_CGNAT_DISABLE: &str = "one-cgnat?v=false";
    /// Use iptables.
    pub const LINUX_MUST_USE_IPTABLES: &str = "linux-netfilter?v=iptables";
    /// Use nftables.
    pub const LINUX_MUST_USE_NFTABLES: &str = "linux-netfilter?v=nftables";
    /// Do not drop 100.64.0.0/10 from other interfaces.
    pub const DISABLE_LINUX_CGNAT_DROP_RULE: &str = "disable-linux-cgnat-drop-rule";
    /// No UPnP.
    pub const DISABLE_UPNP: &str = "debug-disable-upnp";
    /// STUN also while idle.
    pub const ALWAYS_STUN: &str = "debug-always-stun";
    /// No disco heartbeats.
    pub const SILENT_DISCO: &str = "silent-disco";
    /// Probe the MTU towards peers.
    pub const PEER_MTU_ENABLE: &str = "peer-mtu-enable";
    /// Probe how long a UDP mapping lives.
    pub const PROBE_UDP_LIFETIME: &str = "probe-udp-lifetime";
    /// No UDP receive offload on sockets.
    pub const DISABLE_UDP_GRO: &str = "disable-udp-gro";
    /// No UDP send offload on sockets.
    pub const DISABLE_UDP_GSO: &str = "disable-udp-gso";
    /// No UDP offload on the TUN.
    pub const DISABLE_TUN_UDP_GRO: &str = "disable-tun-udp-gro";
    /// No TCP offload on the TUN.
    pub const DISABLE_TUN_TCP_GRO: &str = "disable-tun-tcp-gro";
    /// The last segment of an offloaded datagram is never as long as the others.
    pub const NEVER_GSO_EQUAL_TAIL: &str = "never-gso-equal-tail";
    /// Do not relay for peers.
    pub const DISABLE_RELAY_SERVER: &str = "disable-relay-server";
    /// Do not use peers as relays.
    pub const DISABLE_RELAY_CLIENT: &str = "disable-relay-client";
    /// Store the netmap for the next start.
    pub const CACHE_NETWORK_MAPS: &str = "cache-network-maps";
    /// Do not store the netmap; beats [`CACHE_NETWORK_MAPS`].
    pub const DISABLE_CACHE_NETWORK_MAPS: &str = "disable-cache-network-maps";
    /// MagicDNS answers AAAA for peers.
    pub const MAGICDNS_AAAA: &str = "magicdns-aaaa";
    /// Names below the node's name resolve to it. On the self node or on a peer.
    pub const DNS_SUBDOMAIN_RESOLVE: &str = "dns-subdomain-resolve";
    /// No TCP retry after a truncated DNS answer.
    pub const DNS_FORWARDER_DISABLE_TCP_RETRIES: &str = "dns-forwarder-disable-tcp-retries";
    /// Dial resolvers by the tailnet's routes.
    pub const USER_DIAL_ROUTES: &str = "user-dial-routes";
    /// No split DNS when only names of our own are routed.
    pub const DISABLE_SPLIT_DNS_WHEN_NO_CUSTOM_RESOLVERS: &str = "disable-split-dns-when-no-custom-resolvers";
    /// No captive portal detection.
    pub const DISABLE_CAPTIVE_PORTAL_DETECTION: &str = "disable-captive-portal-detection";
    /// A recommended exit node. On peers.
    pub const SUGGEST_EXIT_NODE: &str = "suggest-exit-node";
    /// The suggestion is shown in user interfaces.
    pub const SUGGEST_EXIT_NODE_UI: &str = "suggest-exit-node-ui";
    /// Automatic exit nodes are allowed.
    pub const AUTO_EXIT_NODE: &str = "auto-exit-node";
    /// Exit nodes are chosen by the server's scores.
    pub const TRAFFIC_STEERING: &str = "traffic-steering";
    /// Do not trust `Online` when a router is chosen.
    pub const CLIENT_SIDE_REACHABILITY: &str = "client-side-reachability";
    /// App connector configurations (values).
    pub const APP_CONNECTORS: &str = "tailscale.com/app-connectors";
    /// Learned routes of the app connector are kept on disk.
    pub const STORE_APPC_ROUTES: &str = "store-appc-routes";
    /// Services that this node hosts (values).
    pub const SERVICE_HOST: &str = "service-host";
    /// Default for automatic updates (value).
    pub const DEFAULT_AUTO_UPDATE: &str = "default-auto-update";
    /// Longest life of a key in seconds (value).
    pub const MAX_KEY_DURATION: &str = "tailnet.maxKeyDuration";
    /// Name of the tailnet for people (value).
    pub const TAILNET_DISPLAY_NAME: &str = "tailnet-display-name";
    /// No web client.
    pub const DISABLE_WEB_CLIENT: &str = "disable-web-client";
    /// Flow logs name destinations behind exit nodes.
    pub const LOG_EXIT_FLOWS: &str = "log-exit-flows";
}

/// Peer capabilities: granted by rules, looked up for a source address and our address.
pub mod peer {
    /// Send files to us.
    pub const FILE_SEND: &str = "https://tailscale.com/cap/file-send";
    /// We may send files to that peer.
    pub const FILE_SHARING_TARGET: &str = "https://tailscale.com/cap/file-sharing-target";
    /// See debug pages of the PeerAPI.
    pub const DEBUG_PEER: &str = "https://tailscale.com/cap/debug-peer";
    /// Wake other hosts through us.
    pub const WAKE_ON_LAN: &str = "https://tailscale.com/cap/wake-on-lan";
    /// Hand us funnel traffic. The one capability that unsigned peers may hold.
    pub const INGRESS: &str = "https://tailscale.com/cap/ingress";
    /// Use our web client.
    pub const WEB_UI: &str = "tailscale.com/cap/webui";
    /// Access our Taildrive.
    pub const DRIVE: &str = "tailscale.com/cap/drive";
    /// Share a Taildrive with us.
    pub const DRIVE_SHARER: &str = "tailscale.com/cap/drive-sharer";
    /// Allocate on our relay.
    pub const RELAY: &str = "tailscale.com/cap/relay";
    /// We may allocate on a relay towards that peer.
    pub const RELAY_TARGET: &str = "tailscale.com/cap/relay-target";
}
