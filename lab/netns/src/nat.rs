//! Kinds of routers, as nftables text.

/// What a router does with its hosts' traffic to the internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    /// Routes and filters nothing: the hosts have public addresses.
    None,
    /// Keeps the port, the same to every destination ("easy"); lets in only what answers.
    Easy,
    /// A new port per destination ("hard", symmetric).
    Hard,
    /// One port out of a small range, the same to every destination.
    Range,
    /// As [`Self::Easy`], and UDP is dropped, except DNS.
    UdpBlocked,
}

/// Interface of a router toward the internet.
pub(crate) const WAN: &str = "wan";
/// Bridge of a router toward its hosts.
pub(crate) const LAN: &str = "lan";
/// Table that the router's rules stand in.
const TABLE: &str = "lab_router";

impl Nat {
    /// The nftables text that makes a router of this kind; it replaces what stood there before.
    pub(crate) fn ruleset(self) -> String {
        let translate = match self {
            Self::None => None,
            Self::Easy | Self::UdpBlocked => Some("masquerade"),
            Self::Hard => Some("masquerade fully-random"),
            Self::Range => Some("masquerade to :50000-50100"),
        };
        let postrouting = translate.map_or_else(String::new, |verb| match self {
            Self::Range => format!("        oifname \"{WAN}\" meta l4proto {{ tcp, udp }} {verb}\n        oifname \"{WAN}\" masquerade\n"),
            Self::None | Self::Easy | Self::Hard | Self::UdpBlocked => {
                format!("        oifname \"{WAN}\" {verb}\n")
            }
        });
        let block = match self {
            Self::UdpBlocked => {
                "        udp dport 53 accept\n        udp sport 53 accept\n        meta l4proto udp drop\n"
            }
            Self::None | Self::Easy | Self::Hard | Self::Range => "",
        };
        let inbound = match self {
            Self::None => String::new(),
            Self::Easy | Self::Hard | Self::Range | Self::UdpBlocked => {
                format!("        iifname \"{WAN}\" ct state new,invalid drop\n")
            }
        };
        // Without the input chain a stranger's datagram would leave an entry that takes the port away from the host
        // behind, so that two routers could never meet halfway; a dropped packet leaves none.
        // The add before the delete lets the delete succeed on the first run.
        format!(
            "add table ip {TABLE}\ndelete table ip {TABLE}\ntable ip {TABLE} {{\n    \
             chain postrouting {{\n        type nat hook postrouting priority srcnat; policy accept;\n{postrouting}    }}\n    \
             chain forward {{\n        type filter hook forward priority filter; policy accept;\n{inbound}{block}    }}\n    \
             chain input {{\n        type filter hook input priority filter; policy accept;\n{inbound}    }}\n}}\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_router_without_nat_lets_strangers_in() {
        for nat in [Nat::Easy, Nat::Hard, Nat::Range, Nat::UdpBlocked] {
            let text = nat.ruleset();
            assert!(text.contains("ct state new,invalid drop"), "{nat:?}");
            assert!(text.contains("masquerade"), "{nat:?}");
        }
        let text = Nat::None.ruleset();
        assert!(!text.contains("drop") && !text.contains("masquerade"));
    }

    #[test]
    fn kinds_differ_in_their_mapping_only_where_they_should() {
        assert!(Nat::Hard.ruleset().contains("fully-random"));
        assert!(!Nat::Easy.ruleset().contains("random"));
        assert!(Nat::Range.ruleset().contains(":50000-50100"));
        assert!(Nat::UdpBlocked.ruleset().contains("meta l4proto udp drop"));
    }

    #[test]
    fn every_closing_brace_stands_on_its_own_line() {
        for nat in [Nat::None, Nat::Easy, Nat::Hard, Nat::Range, Nat::UdpBlocked] {
            for line in nat.ruleset().lines().filter(|line| line.ends_with('}')) {
                assert_eq!(line.trim(), "}", "{nat:?}");
            }
        }
    }
}
