//! What the log says of the agent's own course: its state, and the warnings of `status` as they come and go.

use std::collections::BTreeMap;

use tsrs_agent_localapi::Notify;
use tsrs_agent_localapi::status::BackendState;

/// What was logged last.
#[derive(Debug, Default)]
pub(super) struct Logged {
    state: Option<BackendState>,
    warnings: BTreeMap<String, String>,
}

impl Logged {
    /// Logs what a message of the bus changes.
    pub(super) fn note(&mut self, notify: &Notify) {
        if let Some(state) = notify.state
            && self.state.replace(state) != Some(state)
        {
            tracing::info!(?state, "state");
        }
        if let Some(health) = &notify.health {
            let warnings = health.warnings.iter().flatten();
            let now = warnings.clone().map(|(code, warning)| (code.clone(), warning.text.clone())).collect();
            let before = std::mem::replace(&mut self.warnings, now);
            for (code, warning) in warnings.filter(|(code, warning)| before.get(*code) != Some(&warning.text))
            {
                if warning.severity == "low" {
                    tracing::info!(code, text = warning.text, "health");
                } else {
                    tracing::warn!(code, text = warning.text, "health");
                }
            }
            for code in before.keys().filter(|code| !self.warnings.contains_key(*code)) {
                tracing::info!(code, "health: no longer so");
            }
        }
    }
}
