//! What the server wants the user to know about the health of the node (control protocol sheet §11).

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use tsrs_control_tailcfg::DisplayMessage;

use crate::session::Error;

/// Most messages that are kept; the server has a handful of kinds.
pub const MAX_DISPLAY_MESSAGES: usize = 1000;

/// Both forms in which the server reports health. Messages, where there are any, win over plain texts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Health {
    texts: Vec<String>,
    messages: BTreeMap<String, DisplayMessage>,
}

impl Health {
    /// Replaces the plain texts.
    pub(crate) fn set_texts(&mut self, mut texts: Vec<String>) {
        texts.truncate(MAX_DISPLAY_MESSAGES);
        self.texts = texts;
    }

    /// Sets and deletes messages by id; `*` deletes all before anything else.
    pub(crate) fn patch(&mut self, patch: BTreeMap<String, Option<DisplayMessage>>) -> Result<(), Error> {
        if let Some(None) = patch.get("*") {
            self.messages.clear();
        }
        for (id, message) in patch {
            match message {
                _ if id == "*" => {}
                Some(message) => {
                    self.messages.insert(id, message);
                }
                None => {
                    self.messages.remove(&id);
                }
            }
        }
        if self.messages.len() > MAX_DISPLAY_MESSAGES { Err(Error::TooManyMessages) } else { Ok(()) }
    }

    /// The messages in force.
    pub(crate) fn messages(&self) -> BTreeMap<String, DisplayMessage> {
        if !self.messages.is_empty() {
            return self.messages.clone();
        }
        self.texts.iter().map(|text| (text_id(text), from_text(text))).collect()
    }

    pub(crate) fn texts(&self) -> &[String] {
        &self.texts
    }

    pub(crate) fn own_messages(&self) -> &BTreeMap<String, DisplayMessage> {
        &self.messages
    }
}

/// The id that a plain text gets: the same text has the same id in every frame.
fn text_id(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    format!("health-{}", HEXLOWER.encode(digest.as_ref()))
}

fn from_text(text: &str) -> DisplayMessage {
    DisplayMessage {
        title: "Coordination server reports an issue".to_owned(),
        text: format!("The coordination server is reporting a health issue: {text}"),
        severity: "medium".to_owned(),
        ..DisplayMessage::default()
    }
}
