//! `debug?action=…` (client sheet §2.2).

use http::StatusCode;
use http::header::HeaderValue;
use serde_json::json;
use tsrs_agent_core::status::{filter_json, netmap_json};

use super::request::Asked;
use super::settings::ended_answer;
use super::{Answer, Api};

impl Api {
    pub(super) async fn debug(&self, asked: &Asked) -> Answer {
        match asked.param("action") {
            "" => Answer::text(400, "missing parameter 'action'"),
            "restun" => {
                self.tunnel.restun().await;
                Answer::done()
            }
            "rebind" => {
                self.tunnel.rebind().await;
                Answer::done()
            }
            "break-derp-conns" => {
                self.tunnel.break_relays().await;
                Answer::done()
            }
            "force-netmap-update" => {
                match self.backend.call(|backend, _| backend.reconnect_control()).await {
                    Ok(_) => Answer::done(),
                    Err(ended) => ended_answer(ended),
                }
            }
            "current-netmap" => {
                let snapshot = self.backend.snapshot();
                match &snapshot.netmap {
                    Some(netmap) => Answer::json(&netmap_json(netmap, snapshot.node_key)),
                    None => Answer::text(400, "no netmap"),
                }
            }
            "derp-map" => self.derp_map(),
            "statedir" => Answer::json(&self.state_dir),
            "peer-relay-servers" => {
                let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
                Answer::with_body(StatusCode::OK, content_type, b"[]\n".to_vec())
            }
            "clear-netmap-cache" => {
                match self.backend.call(|backend, _| backend.forget_cached_netmaps()).await {
                    Ok((Ok(()), _)) => Answer::done(),
                    Ok((Err(error), _)) => Answer::text(500, &error.to_string()),
                    Err(ended) => ended_answer(ended),
                }
            }
            action => Answer::text(400, &format!("unknown action {action:?}")),
        }
    }

    /// The rules in the form that the official client shows after parsing.
    pub(super) fn filter_matches(&self) -> Answer {
        let snapshot = self.backend.snapshot();
        Answer::json(&snapshot.netmap.as_ref().map(|netmap| filter_json(netmap)))
    }
}

/// Logs are not switched by component while the daemon runs.
pub(super) fn component_logs() -> Answer {
    Answer::json(&json!({ "Error": "not supported; start the daemon with --verbose or TSRS_LOG" }))
}
