//! Settings: each has one name on the command line and one place in prefs. `up`, `login`, `set` and `get` share them.

use std::net::IpAddr;

use clap::Args;
use ipnet::IpNet;
use tsrs_agent_localapi::prefs::{AppConnectorPrefs, NetfilterMode};
use tsrs_agent_localapi::{Prefs, Status};
use tsrs_base_types::StableNodeId;

use crate::error::{CliError, Result};

/// A flag that is true when given alone, and takes `=true` or `=false`.
macro_rules! switch_value {
    () => {
        clap::builder::BoolishValueParser::new()
    };
}

/// The flags that set prefs.
#[derive(Args, Debug, Default, Clone)]
pub(crate) struct SettingFlags {
    /// Use subnet routes that other nodes advertise.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch_value!())]
    pub(crate) accept_routes: Option<bool>,
    /// Use the DNS settings of the tailnet.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch_value!())]
    pub(crate) accept_dns: Option<bool>,
    /// Exit node: an address, a name, or auto:any; empty for none.
    #[arg(long)]
    pub(crate) exit_node: Option<String>,
    /// Keep the local network reachable beside an exit node.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch_value!())]
    pub(crate) exit_node_allow_lan_access: Option<bool>,
    /// Refuse incoming connections.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch_value!())]
    pub(crate) shields_up: Option<bool>,
    /// Run an SSH server for the tailnet.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch_value!())]
    pub(crate) ssh: Option<bool>,
    /// Subnets to route for other nodes, separated by commas; empty for none.
    #[arg(long)]
    pub(crate) advertise_routes: Option<String>,
    /// Offer to be an exit node.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch_value!())]
    pub(crate) advertise_exit_node: Option<bool>,
    /// Offer to be an app connector.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch_value!())]
    pub(crate) advertise_connector: Option<bool>,
    /// Host name to show instead of the system's.
    #[arg(long)]
    pub(crate) hostname: Option<String>,
    /// Local user who may change settings without being root.
    #[arg(long)]
    pub(crate) operator: Option<String>,
    /// Let nobody in before Tailnet Lock is verified, and nobody unsigned afterwards. Only `set` takes this back.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch_value!())]
    pub(crate) lock_required: Option<bool>,
    /// The first lock that is taken: the hash of its first update, or a key that signed it (tlpub:…). Nobody comes in before. Only
    /// `set` takes this back, with an empty text.
    #[arg(long)]
    pub(crate) lock_pin: Option<String>,
    /// Report the identity of the device for posture checks.
    #[arg(long, visible_alias = "posture-checking", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch_value!())]
    pub(crate) report_posture: Option<bool>,
    /// Give traffic to advertised subnets this host's address as source.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch_value!())]
    pub(crate) snat_subnet_routes: Option<bool>,
    /// Filter forwarded traffic by connection state.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch_value!())]
    pub(crate) stateful_filtering: Option<bool>,
    /// How much of the host firewall to manage: on, nodivert or off.
    #[arg(long)]
    pub(crate) netfilter_mode: Option<String>,
}

/// Settings that only `set` has.
#[derive(Args, Debug, Default, Clone)]
pub(crate) struct SetOnlyFlags {
    /// Name of the account in lists.
    #[arg(long)]
    pub(crate) nickname: Option<String>,
    /// Tell about new versions.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch_value!())]
    pub(crate) update_check: Option<bool>,
    /// Install new versions.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch_value!())]
    pub(crate) auto_update: Option<bool>,
    /// Serve the web interface to the tailnet.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch_value!())]
    pub(crate) webclient: Option<bool>,
    /// UDP port of the peer relay server; empty for none.
    #[arg(long)]
    pub(crate) relay_server_port: Option<String>,
}

impl SettingFlags {
    /// Writes the given flags into prefs. `status` is needed to find an exit node by name.
    pub(crate) fn apply_to(&self, prefs: &mut Prefs, status: &Status) -> Result {
        let set = |to: &mut bool, from: Option<bool>| *to = from.unwrap_or(*to);
        set(&mut prefs.route_all, self.accept_routes);
        set(&mut prefs.corp_dns, self.accept_dns);
        set(&mut prefs.exit_node_allow_lan_access, self.exit_node_allow_lan_access);
        set(&mut prefs.shields_up, self.shields_up);
        set(&mut prefs.run_ssh, self.ssh);
        set(&mut prefs.posture_checking, self.report_posture);
        if let Some(on) = self.snat_subnet_routes {
            prefs.no_snat = !on;
        }
        if let Some(on) = self.stateful_filtering {
            prefs.no_stateful_filtering = Some(!on);
        }
        if let Some(advertise) = self.advertise_connector {
            prefs.app_connector = AppConnectorPrefs { advertise };
        }
        if let Some(hostname) = &self.hostname {
            prefs.hostname.clone_from(hostname);
        }
        if let Some(required) = self.lock_required {
            prefs.lock_required = required;
        }
        if let Some(pin) = &self.lock_pin {
            prefs.lock_pin.clone_from(pin);
        }
        if let Some(operator) = &self.operator {
            prefs.operator_user.clone_from(operator);
        }
        if let Some(mode) = &self.netfilter_mode {
            prefs.netfilter_mode = netfilter_mode(mode)?.number();
        }
        if let Some(exit_node) = &self.exit_node {
            set_exit_node(prefs, exit_node, status)?;
        }
        if self.advertise_routes.is_some() || self.advertise_exit_node.is_some() {
            prefs.advertise_routes = self.advertised(prefs)?;
        }
        Ok(())
    }

    /// Subnets and exit-node offer share one list in prefs; a flag that is left out keeps its part.
    fn advertised(&self, prefs: &Prefs) -> Result<Option<Vec<IpNet>>> {
        let current = prefs.advertise_routes.clone().unwrap_or_default();
        let mut routes = match &self.advertise_routes {
            Some(text) => parse_routes(text)?,
            None => current.iter().copied().filter(|route| route.prefix_len() != 0).collect(),
        };
        if self.advertise_exit_node.unwrap_or_else(|| offers_exit(&current)) {
            routes.extend(DEFAULT_ROUTES);
        }
        Ok((!routes.is_empty()).then_some(routes))
    }
}

impl SetOnlyFlags {
    /// Writes the given flags into prefs.
    pub(crate) fn apply_to(&self, prefs: &mut Prefs) -> Result {
        if let Some(nickname) = &self.nickname {
            prefs.profile_name.clone_from(nickname);
        }
        if let Some(check) = self.update_check {
            prefs.auto_update.check = check;
        }
        if let Some(apply) = self.auto_update {
            prefs.auto_update.apply = Some(apply);
        }
        if let Some(webclient) = self.webclient {
            prefs.run_web_client = webclient;
        }
        if let Some(port) = &self.relay_server_port {
            prefs.relay_server_port = match port.as_str() {
                "" => None,
                text => Some(text.parse().map_err(|_| CliError::new(format!("{text:?} is no UDP port")))?),
            };
        }
        Ok(())
    }
}

/// What an exit node advertises; clients want both to take a node for one.
const DEFAULT_ROUTES: [IpNet; 2] = [
    IpNet::V4(ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::UNSPECIFIED, 0)),
    IpNet::V6(ipnet::Ipv6Net::new_assert(std::net::Ipv6Addr::UNSPECIFIED, 0)),
];

fn offers_exit(routes: &[IpNet]) -> bool {
    DEFAULT_ROUTES.iter().all(|default| routes.contains(default))
}

fn parse_routes(text: &str) -> Result<Vec<IpNet>> {
    let mut routes = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let route: IpNet = part.parse().map_err(|_| {
            CliError::new(format!("{part:?} is not a valid IP address or CIDR prefix"))
                .hint("Write subnets like 192.168.1.0/24, separated by commas.")
        })?;
        if route.trunc() != route {
            return Err(CliError::new(format!(
                "{part} has non-address bits set; expected {}",
                route.trunc()
            )));
        }
        routes.push(route);
    }
    routes.sort();
    routes.dedup();
    Ok(routes)
}

fn netfilter_mode(text: &str) -> Result<NetfilterMode> {
    match text {
        "on" => Ok(NetfilterMode::On),
        "nodivert" => Ok(NetfilterMode::NoDivert),
        "off" => Ok(NetfilterMode::Off),
        _ => Err(CliError::new(format!("invalid value --netfilter-mode={text:?}"))
            .hint("It is one of on, nodivert, off.")),
    }
}

fn netfilter_word(number: i64) -> &'static str {
    match NetfilterMode::from_number(number) {
        Some(NetfilterMode::Off) => "off",
        Some(NetfilterMode::NoDivert) => "nodivert",
        Some(NetfilterMode::On) | None => "on",
    }
}

fn set_exit_node(prefs: &mut Prefs, wanted: &str, status: &Status) -> Result {
    prefs.exit_node_id = StableNodeId::default();
    prefs.exit_node_ip = None;
    prefs.auto_exit_node = String::new();
    if wanted.is_empty() {
        return Ok(());
    }
    if let Some(how) = wanted.strip_prefix("auto:") {
        prefs.auto_exit_node = how.to_owned();
        return Ok(());
    }
    if let Ok(address) = wanted.parse::<IpAddr>() {
        prefs.exit_node_ip = Some(address);
        return Ok(());
    }
    let peers = status.peer.iter().flat_map(|peers| peers.values());
    let named = peers.filter(|peer| {
        let full = peer.dns_name.trim_end_matches('.');
        full.eq_ignore_ascii_case(wanted.trim_end_matches('.'))
            || full.split('.').next().is_some_and(|label| label.eq_ignore_ascii_case(wanted))
    });
    match named.collect::<Vec<_>>()[..] {
        [peer] if peer.exit_node_option => {
            prefs.exit_node_id = peer.id.clone();
            Ok(())
        }
        [peer] => Err(CliError::new(format!(
            "{} does not offer to be an exit node",
            peer.dns_name.trim_end_matches('.')
        ))),
        [] => Err(CliError::new(format!(
            "invalid value {wanted:?} for --exit-node; must be IP or unique node name"
        ))),
        _ => Err(CliError::new(format!(
            "several nodes are called {wanted:?}; give the full name or the address"
        ))),
    }
}

/// One setting as `get` shows it.
pub(crate) struct Setting {
    /// Its flag without the dashes.
    pub(crate) flag: &'static str,
    /// Its value as the flag would take it.
    pub(crate) show: fn(&Prefs) -> String,
    /// Whether `up` has the flag, and so insists on hearing it when the value is not the default.
    pub(crate) in_up: bool,
}

fn routes_text(prefs: &Prefs) -> String {
    let routes = prefs.advertise_routes.iter().flatten().filter(|route| route.prefix_len() != 0);
    routes.map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn exit_node_text(prefs: &Prefs) -> String {
    if !prefs.auto_exit_node.is_empty() {
        return format!("auto:{}", prefs.auto_exit_node);
    }
    prefs.exit_node_ip.map_or_else(|| prefs.exit_node_id.0.clone(), |address| address.to_string())
}

/// Every setting, in alphabetical order.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting { flag: "accept-dns", show: |prefs| prefs.corp_dns.to_string(), in_up: true },
    Setting { flag: "accept-routes", show: |prefs| prefs.route_all.to_string(), in_up: true },
    Setting {
        flag: "advertise-connector",
        show: |prefs| prefs.app_connector.advertise.to_string(),
        in_up: true,
    },
    Setting {
        flag: "advertise-exit-node",
        show: |prefs| offers_exit(prefs.advertise_routes.as_deref().unwrap_or_default()).to_string(),
        in_up: true,
    },
    Setting { flag: "advertise-routes", show: routes_text, in_up: true },
    Setting {
        flag: "advertise-tags",
        show: |prefs| prefs.advertise_tags.as_deref().unwrap_or_default().join(","),
        in_up: true,
    },
    Setting {
        flag: "auto-update",
        show: |prefs| prefs.auto_update.apply.unwrap_or(false).to_string(),
        in_up: false,
    },
    Setting { flag: "exit-node", show: exit_node_text, in_up: true },
    Setting {
        flag: "exit-node-allow-lan-access",
        show: |prefs| prefs.exit_node_allow_lan_access.to_string(),
        in_up: true,
    },
    Setting { flag: "hostname", show: |prefs| prefs.hostname.clone(), in_up: true },
    Setting { flag: "lock-pin", show: |prefs| prefs.lock_pin.clone(), in_up: false },
    Setting { flag: "lock-required", show: |prefs| prefs.lock_required.to_string(), in_up: false },
    Setting { flag: "login-server", show: |prefs| prefs.control_url.clone(), in_up: true },
    Setting {
        flag: "netfilter-mode",
        show: |prefs| netfilter_word(prefs.netfilter_mode).to_owned(),
        in_up: true,
    },
    Setting { flag: "nickname", show: |prefs| prefs.profile_name.clone(), in_up: false },
    Setting { flag: "operator", show: |prefs| prefs.operator_user.clone(), in_up: true },
    Setting {
        flag: "relay-server-port",
        show: |prefs| prefs.relay_server_port.map(|port| port.to_string()).unwrap_or_default(),
        in_up: false,
    },
    Setting { flag: "report-posture", show: |prefs| prefs.posture_checking.to_string(), in_up: true },
    Setting { flag: "shields-up", show: |prefs| prefs.shields_up.to_string(), in_up: true },
    Setting { flag: "snat-subnet-routes", show: |prefs| (!prefs.no_snat).to_string(), in_up: true },
    Setting { flag: "ssh", show: |prefs| prefs.run_ssh.to_string(), in_up: true },
    Setting {
        flag: "stateful-filtering",
        show: |prefs| (prefs.no_stateful_filtering == Some(false)).to_string(),
        in_up: true,
    },
    Setting { flag: "update-check", show: |prefs| prefs.auto_update.check.to_string(), in_up: false },
    Setting { flag: "webclient", show: |prefs| prefs.run_web_client.to_string(), in_up: false },
];

/// The prefs of a new profile (client sheet §1.5), but for the check for updates, which the daemon refuses.
pub(crate) fn defaults() -> Prefs {
    let mut prefs = Prefs::zero();
    prefs.corp_dns = true;
    prefs.netfilter_mode = NetfilterMode::On.number();
    prefs.no_stateful_filtering = Some(true);
    prefs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(flags: &SettingFlags, mut prefs: Prefs) -> Result<Prefs> {
        flags.apply_to(&mut prefs, &Status::default()).map(|()| prefs)
    }

    #[test]
    fn exit_offer_and_subnets_share_a_list_without_losing_each_other() {
        let routes = SettingFlags {
            advertise_routes: Some("10.0.0.0/8, 192.168.1.0/24".into()),
            ..Default::default()
        };
        let prefs = applied(&routes, defaults()).unwrap();
        assert_eq!(routes_text(&prefs), "10.0.0.0/8,192.168.1.0/24");
        let exit = SettingFlags { advertise_exit_node: Some(true), ..Default::default() };
        let prefs = applied(&exit, prefs).unwrap();
        assert_eq!(prefs.advertise_routes.as_ref().unwrap().len(), 4);
        let none = SettingFlags { advertise_routes: Some(String::new()), ..Default::default() };
        let prefs = applied(&none, prefs).unwrap();
        assert!(offers_exit(prefs.advertise_routes.as_ref().unwrap()));
        let off = SettingFlags { advertise_exit_node: Some(false), ..Default::default() };
        assert_eq!(applied(&off, prefs).unwrap().advertise_routes, None);
    }

    #[test]
    fn bad_values_are_refused_with_what_is_wrong() {
        for (flags, text) in [
            (
                SettingFlags { advertise_routes: Some("10.0.0.1/8".into()), ..Default::default() },
                "expected 10.0.0.0/8",
            ),
            (SettingFlags { advertise_routes: Some("fish".into()), ..Default::default() }, "not a valid IP"),
            (SettingFlags { netfilter_mode: Some("maybe".into()), ..Default::default() }, "netfilter-mode"),
            (SettingFlags { exit_node: Some("nobody".into()), ..Default::default() }, "unique node name"),
        ] {
            let error = applied(&flags, defaults()).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn settings_are_sorted_and_the_defaults_show_as_the_official_client_shows_them() {
        assert!(SETTINGS.is_sorted_by_key(|setting| setting.flag));
        let shown: Vec<(&str, String)> =
            SETTINGS.iter().map(|setting| (setting.flag, (setting.show)(&defaults()))).collect();
        for wanted in [
            ("accept-dns", "true"),
            ("snat-subnet-routes", "true"),
            ("stateful-filtering", "false"),
            ("netfilter-mode", "on"),
        ] {
            assert!(shown.contains(&(wanted.0, wanted.1.to_owned())), "{wanted:?}");
        }
    }
}
