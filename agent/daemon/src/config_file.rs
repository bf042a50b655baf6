//! Applying the configuration file, at the start and when a client asks for it again.

use std::path::Path;

use tsrs_agent_core::config_file::{ConfigFile, MAX_LEN};
use tsrs_agent_localapi::StartOptions;

use crate::api::Api;
use crate::store;

/// Reads the file and sets what it names.
///
/// # Errors
/// The file cannot be read or not be applied; then nothing of it is. The text names the file.
pub(crate) async fn apply(path: &Path, api: &Api) -> Result<(), String> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let content = store::read(path, MAX_LEN).map_err(|error| named(&error))?;
    let content = content.ok_or_else(|| named(&"no such file"))?;
    let text = std::str::from_utf8(&content).map_err(|error| named(&error))?;
    let ConfigFile { edit, auth_key, locked } = ConfigFile::parse(text).map_err(|error| named(&error))?;
    let exists = api.known_users(&edit.prefs.operator_user).await;
    let applied = api.backend.call(move |backend, now| {
        backend.agent.set_locked(false);
        let edited = backend.agent.edit_prefs(&edit, &exists, now);
        if edited.is_ok() && !backend.agent.has_node_key() && edit.prefs.want_running {
            // Exposed to be used for the login that the file asks for.
            let key = auth_key.map(|key| key.expose().clone()).unwrap_or_default();
            let options = StartOptions { auth_key: key, ..StartOptions::default() };
            if let Err(error) = backend.agent.start(options, &exists, now) {
                tracing::warn!(%error, "the login of the configuration file did not begin");
            }
        }
        backend.agent.set_locked(locked);
        edited.map(drop).map_err(|error| error.to_string())
    });
    let (result, _) = applied.await.map_err(|error| error.to_string())?;
    result.map_err(|error| named(&error))
}
