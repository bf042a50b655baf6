//! Status, prefs, start, login and logout.

use http::StatusCode;
use tsrs_agent_core::agent::CommandError;
use tsrs_agent_core::health::Problem;
use tsrs_agent_core::status;
use tsrs_agent_localapi::json::from_client;
use tsrs_agent_localapi::requests::CheckPrefsAnswer;
use tsrs_agent_localapi::{BackendState, MaskedPrefs, Prefs, StartOptions};

use super::request::Asked;
use super::{Answer, Api};
use crate::backend::Ended;

impl Api {
    pub(super) async fn status(&self, asked: &Asked) -> Answer {
        let with_peers = asked.param("peers") != "false";
        self.look_at_forwarding().await;
        let live = self.tunnel.live().await;
        Answer::json(&status::status(&self.backend.snapshot(), &live, with_peers))
    }

    /// The system tells nobody when forwarding is switched, so it is looked at when somebody wants to know.
    async fn look_at_forwarding(&self) {
        let snapshot = self.backend.snapshot();
        if snapshot.advertised_route_count == 0 || snapshot.state != BackendState::Running {
            return;
        }
        let problem = self.host.forwarding_problem().await;
        let noted = self.backend.call(move |backend, now| {
            backend.agent.note_problem(Problem::IpForwardingOff, problem.as_deref(), now);
        });
        if noted.await.is_err() {
            tracing::debug!("the daemon ends; forwarding is no longer of interest");
        }
    }

    pub(super) async fn edit_prefs(&self, asked: Asked) -> Answer {
        let body = match asked.body().await {
            Ok(body) => body,
            Err(answer) => return answer,
        };
        let edit: MaskedPrefs = match from_client(&body) {
            Ok(edit) => edit,
            Err(error) => return Answer::text(400, &json_error(&body, &error)),
        };
        let exists = self.known_users(&edit.prefs.operator_user).await;
        let edited = self.backend.call(move |backend, now| {
            backend.agent.edit_prefs(&edit, &exists, now).map_err(|error| error.to_string())
        });
        match edited.await {
            Ok((Ok(prefs), None)) => Answer::json(&prefs),
            Ok((Ok(_), Some(unsaved))) => unsaved_answer(&unsaved),
            Ok((Err(refusal), _)) => refused(&refusal),
            Err(ended) => ended_answer(ended),
        }
    }

    pub(super) async fn check_prefs(&self, asked: Asked) -> Answer {
        let body = match asked.body().await {
            Ok(body) => body,
            Err(answer) => return answer,
        };
        let Ok(prefs) = from_client::<Prefs>(&body) else { return Answer::text(400, "invalid JSON body") };
        let exists = self.known_users(&prefs.operator_user).await;
        let checked = self.backend.call(move |backend, _| {
            backend.agent.check_prefs(&prefs, &exists).err().map(|refusal| refusal.to_string())
        });
        match checked.await {
            Ok((refusal, _)) => Answer::json(&CheckPrefsAnswer { error: refusal.unwrap_or_default() }),
            Err(ended) => ended_answer(ended),
        }
    }

    pub(super) async fn start(&self, asked: Asked) -> Answer {
        let body = match asked.body().await {
            Ok(body) => zeroize::Zeroizing::new(body),
            Err(answer) => return answer,
        };
        let options: StartOptions = match from_client(&body) {
            Ok(options) => options,
            Err(error) => return Answer::text(400, &json_error(&body, &error)),
        };
        let named = options.update_prefs.as_ref().map_or("", |prefs| prefs.operator_user.as_str());
        let exists = self.known_users(named).await;
        let started = self.backend.call(move |backend, now| {
            backend.agent.start(options, &exists, now).map_err(|error| error.to_string())
        });
        match started.await {
            Ok((Ok(()), None)) => Answer::empty(StatusCode::NO_CONTENT),
            Ok((Ok(()), Some(unsaved))) => unsaved_answer(&unsaved),
            Ok((Err(refusal), _)) => refused(&refusal),
            Err(ended) => ended_answer(ended),
        }
    }

    pub(super) async fn login_interactive(&self) -> Answer {
        done(self.backend.call(|backend, now| backend.agent.login_interactive(now)).await)
    }

    pub(super) async fn logout(&self) -> Answer {
        match self.backend.logout().await {
            Ok(Ok(())) => Answer::empty(StatusCode::NO_CONTENT),
            Ok(Err(reason)) => Answer::error(
                StatusCode::INTERNAL_SERVER_ERROR,
                &format!(
                    "logged out here, but the control server was not told ({reason}); remove the node there, or its \
                     key stays valid until it expires"
                ),
            ),
            Err(ended) => ended_answer(ended),
        }
    }

    pub(super) async fn reset_auth(&self) -> Answer {
        done(self.backend.call(|backend, now| backend.agent.reset_auth(now)).await)
    }

    /// Tells whether the operator that prefs name is a user of this host. The one in use counts as one without a look-up:
    /// no other setting may depend on the user database.
    pub(crate) async fn known_users(&self, named: &str) -> impl Fn(&str) -> bool + Send + use<> {
        let in_use = self.backend.snapshot().prefs.operator_user.clone();
        let named = named.to_owned();
        let exists = !named.is_empty() && named != in_use && self.user_id(named.clone()).await.is_some();
        move |name| name == in_use || (exists && name == named)
    }
}

/// 204, unless the state could not be saved.
pub(super) fn done(result: Result<((), Option<String>), Ended>) -> Answer {
    match result {
        Ok(((), None)) => Answer::empty(StatusCode::NO_CONTENT),
        Ok(((), Some(unsaved))) => unsaved_answer(&unsaved),
        Err(ended) => ended_answer(ended),
    }
}

pub(super) fn ended_answer(ended: Ended) -> Answer {
    Answer::text(503, &ended.to_string())
}

pub(super) fn unsaved_answer(reason: &str) -> Answer {
    let text = format!("the change is in effect, but it could not be saved: {reason}");
    Answer::error(StatusCode::INTERNAL_SERVER_ERROR, &text)
}

/// Refusals by policy have this key in the official daemon.
pub(super) fn refused(reason: &str) -> Answer {
    Answer::json_status(StatusCode::BAD_REQUEST, &serde_json::json!({ "Error": reason }))
}

/// What is wrong with a body, in Go's words where scripts may look for them.
fn json_error(body: &[u8], error: &serde_json::Error) -> String {
    if body.is_empty() {
        "EOF".to_owned()
    } else if error.is_eof() {
        "unexpected EOF".to_owned()
    } else {
        format!("json: {error}")
    }
}

/// What a failed command means on the profile endpoints.
pub(super) fn command_answer(error: &CommandError) -> Answer {
    match error {
        CommandError::Profile(missing) => Answer::text(500, &missing.to_string()),
        CommandError::Prefs(refusal) => refused(&refusal.to_string()),
        CommandError::NotLoggedIn => Answer::text(400, &error.to_string()),
    }
}
