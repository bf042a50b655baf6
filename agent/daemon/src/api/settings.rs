//! Settings, logins and accounts.

use http::{Method, StatusCode};
use jiff::Timestamp;
use tsrs_agent_localapi::requests::CheckPrefsAnswer;
use tsrs_agent_localapi::{MaskedPrefs, Prefs, StartOptions};

use super::request::Call;
use super::response::{self, Outcome, Refused};
use crate::ask::{Ask, Failure};

/// Header with the reason for a disconnection, in base64.
const REASON: &str = "X-Tailscale-Reason";

/// Longest reason that is kept, in bytes: a sentence for an audit log.
const MAX_REASON_LEN: usize = 1024;

pub(super) async fn prefs(mut call: Call) -> Outcome {
    if call.method != Method::PATCH {
        return response::json(&call.snapshot.prefs);
    }
    let edit: MaskedPrefs = call.json_body().await?.map_err(Refused::bad)?;
    if let Some(reason) = reason(&call) {
        tracing::info!(reason, uid = call.connection.uid, "settings are changed");
    }
    match call.api.asks.ask(|reply| Ask::EditPrefs(Box::new(edit), reply)).await {
        Ok(prefs) => response::json(&prefs),
        Err(Failure::Refused(why)) => {
            Err(Refused::json(StatusCode::BAD_REQUEST, "Error", &why.to_string()))
        }
        Err(failure) => Err(failure.into()),
    }
}

pub(super) async fn check_prefs(mut call: Call) -> Outcome {
    let prefs: Prefs = call.json_body().await?.map_err(|_| Refused::bad("invalid JSON body"))?;
    let error = match call.api.asks.ask(|reply| Ask::CheckPrefs(Box::new(prefs), reply)).await {
        Ok(()) => String::new(),
        Err(Failure::Refused(why)) => why.to_string(),
        Err(failure) => return Err(failure.into()),
    };
    response::json(&CheckPrefsAnswer { error })
}

pub(super) async fn start(mut call: Call) -> Outcome {
    let options: StartOptions = call.json_body().await?.map_err(Refused::bad)?;
    call.api.asks.ask(|reply| Ask::Start(Box::new(options), reply)).await?;
    Ok(response::empty(StatusCode::NO_CONTENT))
}

pub(super) async fn login_interactive(call: Call) -> Outcome {
    call.api.asks.ask(Ask::LoginInteractive).await?;
    Ok(response::empty(StatusCode::NO_CONTENT))
}

pub(super) async fn logout(call: Call) -> Outcome {
    let reason = reason(&call).unwrap_or_default();
    call.api.asks.ask(|reply| Ask::Logout(reason, reply)).await?;
    Ok(response::empty(StatusCode::NO_CONTENT))
}

pub(super) async fn reset_auth(call: Call) -> Outcome {
    call.api.asks.ask(Ask::ResetAuth).await?;
    Ok(response::empty(StatusCode::NO_CONTENT))
}

/// The list of accounts, or a new blank one.
pub(super) async fn profiles(call: Call) -> Outcome {
    if call.method == Method::PUT {
        call.api.asks.ask(Ask::NewProfile).await?;
        return Ok(response::empty(StatusCode::CREATED));
    }
    response::json(&call.snapshot.profiles)
}

/// One account: shown, switched to or forgotten.
pub(super) async fn profile(call: Call) -> Outcome {
    let id = call.path.trim_start_matches("profiles/").to_owned();
    if call.method == Method::GET {
        return match call.snapshot.profiles.iter().find(|profile| profile.id == id) {
            Some(profile) => response::json(profile),
            None => Err(Refused::text(StatusCode::NOT_FOUND, "profile not found")),
        };
    }
    let done = if call.method == Method::POST {
        call.api.asks.ask(|reply| Ask::SwitchProfile(id, reply)).await
    } else {
        call.api.asks.ask(|reply| Ask::DeleteProfile(id, reply)).await
    };
    match done {
        Ok(()) => Ok(response::empty(StatusCode::NO_CONTENT)),
        Err(Failure::Refused(why)) => {
            Err(Refused::text(StatusCode::INTERNAL_SERVER_ERROR, why.to_string()))
        }
        Err(failure) => Err(failure.into()),
    }
}

pub(super) async fn set_expiry_sooner(call: Call) -> Outcome {
    let expiry = call.query.value("expiry").parse().ok().and_then(|secs| Timestamp::from_second(secs).ok());
    let expiry = expiry.ok_or_else(|| Refused::bad("missing or invalid 'expiry' parameter"))?;
    call.api.asks.ask(|reply| Ask::SetExpirySooner(expiry, reply)).await?;
    Ok(response::line(StatusCode::OK, "done"))
}

pub(super) async fn reload_config(call: Call) -> Outcome {
    response::json(&call.api.asks.ask(Ask::ReloadConfig).await?)
}

pub(super) async fn shutdown(call: Call) -> Outcome {
    tracing::info!(uid = call.connection.uid, "a client asks the daemon to end");
    call.api.asks.ask(Ask::Shutdown).await?;
    Ok(response::empty(StatusCode::OK))
}

/// Why the user disconnects, if they said so.
fn reason(call: &Call) -> Option<String> {
    let text = Some(call.header(REASON)).filter(|text| !text.is_empty() && text.len() <= MAX_REASON_LEN)?;
    String::from_utf8(data_encoding::BASE64.decode(text.as_bytes()).ok()?).ok()
}
