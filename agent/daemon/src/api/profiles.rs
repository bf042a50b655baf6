//! Accounts.

use http::{Method, StatusCode};

use super::request::Asked;
use super::settings::{command_answer, done, ended_answer, unsaved_answer};
use super::{Answer, Api};

impl Api {
    pub(super) async fn profile_list(&self, asked: &Asked) -> Answer {
        if !asked.is(&Method::PUT) {
            return Answer::json(&self.backend.snapshot().profiles);
        }
        match self.backend.call(|backend, now| backend.agent.new_profile(now)).await {
            Ok(((), None)) => Answer::empty(StatusCode::CREATED),
            Ok(((), Some(unsaved))) => unsaved_answer(&unsaved),
            Err(ended) => ended_answer(ended),
        }
    }

    pub(super) async fn profile(&self, asked: &Asked) -> Answer {
        let id = asked.path().strip_prefix("profiles/").unwrap_or_default().to_owned();
        if asked.is(&Method::GET) {
            let snapshot = self.backend.snapshot();
            return match snapshot.profiles.iter().find(|profile| profile.id == id) {
                Some(profile) => Answer::json(profile),
                None => Answer::text(404, "Profile not found"),
            };
        }
        if asked.is(&Method::DELETE) {
            return done(self.backend.call(move |backend, now| backend.agent.delete_profile(&id, now)).await);
        }
        match self.backend.call(move |backend, now| backend.agent.switch_profile(&id, now)).await {
            Ok((Ok(()), None)) => Answer::empty(StatusCode::NO_CONTENT),
            Ok((Ok(()), Some(unsaved))) => unsaved_answer(&unsaved),
            Ok((Err(error), _)) => command_answer(&error),
            Err(ended) => ended_answer(ended),
        }
    }
}
