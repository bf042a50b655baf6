//! Preferences that the protocol has and this agent has no effect for.

use tsrs_agent_localapi::Prefs;
use tsrs_agent_localapi::prefs::AppConnectorPrefs;

/// Refused in an edit; dropped where a client sends its default along with everything else.
pub(super) const UPDATE_CHECK: &str =
    "update-check: this agent does not look for updates; they come with the packages of the system";

struct Feature {
    is_set: fn(&Prefs) -> bool,
    unset: fn(&mut Prefs),
    reason: &'static str,
    /// Whether going on without it would expose what the user wanted protected.
    protective: bool,
}

const FEATURES: &[Feature] = &[
    Feature {
        is_set: uses_exit_node,
        unset: |prefs| {
            prefs.exit_node_id.0.clear();
            prefs.exit_node_ip = None;
            prefs.auto_exit_node.clear();
        },
        reason: "exit-node: using an exit node is not supported yet",
        protective: true,
    },
    Feature {
        is_set: |prefs| prefs.exit_node_allow_lan_access,
        unset: |prefs| prefs.exit_node_allow_lan_access = false,
        reason: "exit-node-allow-lan-access: using an exit node is not supported yet",
        protective: false,
    },
    Feature {
        is_set: offers_exit_node,
        unset: |prefs| {
            if let Some(routes) = &mut prefs.advertise_routes {
                routes.retain(|route| route.prefix_len() != 0);
            }
        },
        reason: "advertise-exit-node: being an exit node is not supported yet",
        protective: false,
    },
    Feature {
        is_set: |prefs| prefs.run_ssh,
        unset: |prefs| prefs.run_ssh = false,
        reason: "ssh: the SSH server is not supported yet",
        protective: false,
    },
    Feature {
        is_set: |prefs| prefs.run_web_client,
        unset: |prefs| prefs.run_web_client = false,
        reason: "webclient: the web interface is not supported",
        protective: false,
    },
    Feature {
        is_set: |prefs| prefs.app_connector.advertise,
        unset: |prefs| prefs.app_connector = AppConnectorPrefs::default(),
        reason: "advertise-connector: app connectors are not supported",
        protective: false,
    },
    Feature {
        is_set: |prefs| prefs.advertise_services.as_ref().is_some_and(|services| !services.is_empty()),
        unset: |prefs| prefs.advertise_services = None,
        reason: "AdvertiseServices: Tailscale Services are not supported",
        protective: false,
    },
    Feature {
        is_set: |prefs| prefs.posture_checking,
        unset: |prefs| prefs.posture_checking = false,
        reason: "report-posture: device identity is not collected, so it cannot be reported",
        protective: false,
    },
    Feature {
        is_set: |prefs| prefs.relay_server_port.is_some() || prefs.relay_server_static_endpoints.is_some(),
        unset: |prefs| {
            prefs.relay_server_port = None;
            prefs.relay_server_static_endpoints = None;
        },
        reason: "relay-server-port: being a peer relay is not supported yet",
        protective: false,
    },
    Feature {
        is_set: |prefs| prefs.auto_update.apply == Some(true),
        unset: |prefs| prefs.auto_update.apply = None,
        reason: "auto-update: updates come with the packages of the system",
        protective: false,
    },
    Feature {
        is_set: |prefs| prefs.auto_update.check,
        unset: |prefs| prefs.auto_update.check = false,
        reason: UPDATE_CHECK,
        protective: false,
    },
    Feature {
        is_set: |prefs| prefs.drive_shares.as_ref().is_some_and(|shares| !shares.is_empty()),
        unset: |prefs| prefs.drive_shares = None,
        reason: "DriveShares: Taildrive is not supported",
        protective: false,
    },
    Feature {
        is_set: |prefs| prefs.remote_config,
        unset: |prefs| prefs.remote_config = false,
        reason: "remote-config: control may not change the settings of this host",
        protective: false,
    },
    Feature {
        is_set: |prefs| prefs.sync == Some(false),
        unset: |prefs| prefs.sync = None,
        reason: "sync: the map stream cannot be switched off; use down",
        protective: false,
    },
    Feature {
        is_set: |prefs| !matches!(prefs.netfilter_kind.as_str(), "" | "nftables"),
        unset: |prefs| prefs.netfilter_kind.clear(),
        reason: "NetfilterKind: the firewall is always nftables",
        protective: false,
    },
    Feature {
        is_set: |prefs| prefs.force_daemon || prefs.notepad_urls || prefs.egg,
        unset: |prefs| {
            prefs.force_daemon = false;
            prefs.notepad_urls = false;
            prefs.egg = false;
        },
        reason: "unattended, NotepadURLs and Egg have no effect on this system",
        protective: false,
    },
];

pub(super) fn uses_exit_node(prefs: &Prefs) -> bool {
    !prefs.exit_node_id.0.is_empty() || prefs.exit_node_ip.is_some() || !prefs.auto_exit_node.is_empty()
}

pub(super) fn offers_exit_node(prefs: &Prefs) -> bool {
    prefs.advertise_routes.iter().flatten().any(|route| route.prefix_len() == 0)
}

/// One reason per preference that has no effect here.
pub(super) fn reasons(prefs: &Prefs) -> Vec<String> {
    FEATURES
        .iter()
        .filter(|feature| (feature.is_set)(prefs))
        .map(|feature| feature.reason.to_owned())
        .collect()
}

/// What [`remove_unsupported`] took out of stored prefs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// One text per preference.
    pub reasons: Vec<&'static str>,
    /// Whether the tunnel was kept from coming up: the user had asked for protection that is not here.
    pub held_down: bool,
}

/// Makes prefs of a state file, which another version or an editor may have written, into prefs that hold.
///
/// Where a removed preference protected the user's traffic, the tunnel also stays down: coming up without it would
/// send in the clear what was meant to go through the exit node.
pub fn remove_unsupported(prefs: &mut Prefs) -> Removed {
    let mut removed = Removed::default();
    for feature in FEATURES.iter().filter(|feature| (feature.is_set)(prefs)).collect::<Vec<_>>() {
        (feature.unset)(prefs);
        removed.reasons.push(feature.reason);
        if feature.protective {
            prefs.want_running = false;
            removed.held_down = true;
        }
    }
    removed
}
