//! Links that ask a signing node to sign another (Tailnet Lock sheet §17).
//!
//! The authentication code covers the fields without borders between them, so text may have been moved from one field to the
//! next. The two keys are checked for their exact form, which leaves only the three fields that are shown to a person.

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use ring::hmac;
use tsrs_base_types::{LockPublic, NodePublic};

use crate::state::{State, StateId};

const SCHEME: &str = "tailscale";
const HOST_AND_PATH: &str = "sign-device/v1/";

/// Characters of a link that are looked at.
pub const MAX_LINK_CHARS: usize = 8 << 10;

/// What a link asks to be signed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SigningLink {
    /// `nodekey:…`: the node key to sign.
    pub node_key: String,
    /// `tlpub:…`: the key that may rotate it.
    pub lock_key: String,
    /// The name of the node.
    pub device_name: String,
    /// Its operating system.
    pub os: String,
    /// The login of its owner.
    pub login: String,
}

/// Why a link is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Not a signing link.
    #[error("not a signing link")]
    Form,
    /// A field is missing, empty, or not of its form.
    #[error("field {0:?} of the link is missing or malformed")]
    Field(&'static str),
    /// It was not made for this tailnet, or was changed.
    #[error("the link was not made for this tailnet")]
    Mac,
}

impl State {
    /// Makes a link. The reference wants no more of the keys than their prefixes.
    pub fn make_link(&self, link: &SigningLink) -> Result<String, LinkError> {
        for (name, value, prefix) in link.fields() {
            if value.is_empty() || !value.starts_with(prefix) {
                return Err(LinkError::Field(name));
            }
        }
        let mac = HEXLOWER.encode(hmac::sign(&mac_key(self.id), &link.message()).as_ref());
        let mut pairs: Vec<(&str, &str)> =
            link.fields().iter().map(|(name, value, _)| (*name, *value)).collect();
        pairs.push(("hm", &mac));
        pairs.sort_unstable();
        let query: Vec<String> =
            pairs.into_iter().map(|(name, value)| format!("{name}={}", escape(value))).collect();
        Ok(format!("{SCHEME}://{HOST_AND_PATH}?{}", query.join("&")))
    }

    /// Checks a link. Stricter than the reference: nothing may stand behind the path, every field must be there, and the keys
    /// must be keys.
    pub fn check_link(&self, url: &str) -> Result<SigningLink, LinkError> {
        if url.len() > MAX_LINK_CHARS || url.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(LinkError::Form);
        }
        let url = url.split('#').next().unwrap_or_default();
        let (scheme, rest) = url.split_once("://").ok_or(LinkError::Form)?;
        let (place, query) = rest.split_once('?').ok_or(LinkError::Form)?;
        if !scheme.eq_ignore_ascii_case(SCHEME) || place != HOST_AND_PATH {
            return Err(LinkError::Form);
        }
        let field = |name: &'static str| first_value(query, name).ok_or(LinkError::Field(name));
        let link = SigningLink {
            node_key: field("nk")?,
            lock_key: field("tp")?,
            device_name: field("dn")?,
            os: field("os")?,
            login: field("em")?,
        };
        for (name, value, prefix) in link.fields() {
            if value.is_empty() || !value.starts_with(prefix) {
                return Err(LinkError::Field(name));
            }
        }
        link.node_key.parse::<NodePublic>().map_err(|_| LinkError::Field("nk"))?;
        link.lock_key.parse::<LockPublic>().map_err(|_| LinkError::Field("tp"))?;
        let mac = HEXLOWER_PERMISSIVE.decode(field("hm")?.as_bytes()).map_err(|_| LinkError::Mac)?;
        hmac::verify(&mac_key(self.id), &link.message(), &mac).map_err(|_| LinkError::Mac)?;
        Ok(link)
    }
}

impl SigningLink {
    /// Name, value and prefix of each field, in the order of the authentication code.
    fn fields(&self) -> [(&'static str, &str, &'static str); 5] {
        [
            ("nk", &self.node_key, "nodekey:"),
            ("tp", &self.lock_key, "tlpub:"),
            ("dn", &self.device_name, ""),
            ("os", &self.os, ""),
            ("em", &self.login, ""),
        ]
    }

    fn message(&self) -> Vec<u8> {
        self.fields().iter().flat_map(|(_, value, _)| value.bytes()).collect()
    }
}

fn mac_key(StateId(id1, _): StateId) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &id1.to_le_bytes())
}

/// The first value of a query key. Pairs that are malformed are passed over.
fn first_value(query: &str, name: &str) -> Option<String> {
    let pairs = query.split('&').filter(|pair| !pair.contains(';'));
    let mut decoded = pairs.filter_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((unescape(key)?, unescape(value)?))
    });
    decoded.find(|(key, _)| key == name).map(|(_, value)| value)
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            _ => {
                out.push('%');
                out.push_str(&data_encoding::HEXUPPER.encode(&[byte]));
            }
        }
    }
    out
}

fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                out.extend(HEXLOWER_PERMISSIVE.decode(&digits).ok()?);
            }
            _ => out.push(byte),
        }
    }
    String::from_utf8(out).ok()
}
