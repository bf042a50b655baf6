//! Reads of the netmap.

use http::StatusCode;
use serde_json::{Value, json};
use tsrs_agent_core::status::{self, WhoIsAddr};
use tsrs_agent_core::wanted::shown_dns;
use tsrs_agent_localapi::BackendState;
use tsrs_agent_localapi::requests::ExitNodeSuggestion;
use tsrs_base_types::{NodeId, UserId};
use tsrs_control_tailcfg::FilterRule;

use super::request::Asked;
use super::{Answer, Api};

fn no_netmap() -> Answer {
    Answer::text(503, "no netmap")
}

impl Api {
    pub(super) fn whois(&self, asked: &Asked) -> Answer {
        let addr = asked.param("addr");
        if addr.is_empty() {
            return Answer::text(400, "missing 'addr' parameter");
        }
        let Some(addr) = WhoIsAddr::parse(addr) else { return Answer::text(400, "invalid 'addr' parameter") };
        match status::whois(&self.backend.snapshot(), addr) {
            Some(found) => Answer::json(&found),
            None => Answer::text(404, "no match for IP:port"),
        }
    }

    pub(super) fn derp_map(&self) -> Answer {
        match &self.backend.snapshot().netmap {
            Some(netmap) => Answer::json(&**netmap.derp_map()),
            None => Answer::json(&Value::Null),
        }
    }

    /// Tailscale Services are not there; the empty object says so.
    pub(super) fn services(&self) -> Answer {
        match &self.backend.snapshot().netmap {
            Some(_) => Answer::json(&json!({})),
            None => no_netmap(),
        }
    }

    pub(super) fn peer_by_id(&self, asked: &Asked) -> Answer {
        let Ok(id) = asked.param("id").parse() else { return Answer::text(400, "invalid 'id' parameter") };
        let snapshot = self.backend.snapshot();
        match snapshot.netmap.as_ref().and_then(|netmap| netmap.node(NodeId(id))) {
            Some(node) => Answer::json(&**node),
            None => Answer::text(404, "no peer with that NodeID"),
        }
    }

    pub(super) fn user_profile(&self, asked: &Asked) -> Answer {
        let Ok(id) = asked.param("id").parse() else { return Answer::text(400, "invalid 'id' parameter") };
        let snapshot = self.backend.snapshot();
        match snapshot.netmap.as_ref().and_then(|netmap| netmap.user_profile(UserId(id))) {
            Some(user) => Answer::json(&**user),
            None => Answer::text(404, "no user with that UserID"),
        }
    }

    pub(super) fn cert_domains(&self) -> Answer {
        let snapshot = self.backend.snapshot();
        let mut domains =
            snapshot.netmap.as_ref().map(|netmap| netmap.dns().cert_domains.clone()).unwrap_or_default();
        domains.sort_unstable();
        Answer::json(&(!domains.is_empty()).then_some(domains))
    }

    pub(super) fn dns_config(&self) -> Answer {
        match &self.backend.snapshot().netmap {
            Some(netmap) => Answer::json(&shown_dns(netmap)),
            None => no_netmap(),
        }
    }

    /// No exit node can be used yet, so none is suggested.
    pub(super) fn suggest_exit_node(&self) -> Answer {
        match &self.backend.snapshot().netmap {
            Some(_) => Answer::json(&ExitNodeSuggestion::default()),
            None => Answer::error(StatusCode::INTERNAL_SERVER_ERROR, "no preferred DERP, try again later"),
        }
    }

    /// Files cannot be sent yet, so there are no targets.
    pub(super) fn file_targets(&self) -> Answer {
        match self.backend.snapshot().state {
            BackendState::Running => Answer::json(&json!([])),
            BackendState::NoState
            | BackendState::InUseOtherUser
            | BackendState::NeedsLogin
            | BackendState::NeedsMachineAuth
            | BackendState::Stopped
            | BackendState::Starting => {
                Answer::error(StatusCode::INTERNAL_SERVER_ERROR, "not connected to the tailnet")
            }
        }
    }

    pub(super) fn filter_rules(&self) -> Answer {
        let snapshot = self.backend.snapshot();
        let rules: Option<Vec<&FilterRule>> =
            snapshot.netmap.as_ref().map(|netmap| netmap.filter_rules().collect());
        Answer::json(&rules)
    }
}
