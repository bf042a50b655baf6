//! Rules of the packet filter as they travel (sheet §15). `tunnel/filter` gives them their meaning.

use ipnet::IpNet;

use crate::CapMap;

wire! {
    /// Sources that may reach destinations, or that hold capabilities towards us.
    struct FilterRule {
        /// IP, CIDR, `a-b` range, `*`, or `cap:<node capability>`.
        keep "SrcIPs" src_ips: Vec<String>,
        /// Dead since 2020; its presence makes the whole filter invalid.
        omit "SrcBits" src_bits: Vec<i64>,
        /// What the sources may reach. Excludes `cap_grant`.
        list "DstPorts" dst_ports: Vec<NetPortRange>,
        /// IP protocols; empty means TCP, UDP, ICMP and ICMPv6.
        omit "IPProto" ip_proto: Vec<i64>,
        /// What the sources may do towards us. Excludes `dst_ports`.
        list "CapGrant" cap_grant: Vec<CapGrant>,
    }

    /// Destination addresses and ports.
    struct NetPortRange {
        /// IP, CIDR, `a-b` range or `*`.
        keep "IP" ip: String,
        /// Dead since 2020; its presence makes the whole filter invalid.
        omit "Bits" bits: Option<i64>,
        /// Ports, where the protocol has them.
        keep "Ports" ports: PortRange,
    }

    /// Ports, both ends included.
    struct PortRange {
        /// The lowest port.
        keep "First" first: u16,
        /// The highest port.
        keep "Last" last: u16,
    }

    /// Capabilities that the sources of a rule hold towards destination addresses.
    struct CapGrant {
        /// The destination addresses.
        keep_addrs "Dsts" dsts: Vec<IpNet>,
        /// Capabilities without values; the old form.
        omit "Caps" caps: Vec<String>,
        /// Capabilities with values.
        omit "CapMap" cap_map: CapMap,
    }
}
