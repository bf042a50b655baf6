//! Go's JSON conventions (control sheet §3, client sheet §1).

use std::net::IpAddr;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serializer};
use serde_json::{Map, Value};

/// A type that clients send, with the names of its fields.
///
/// Go's decoder matches names in any case, ignores unknown ones and takes `null` as "leave the zero value".
pub trait FromClient: DeserializeOwned {
    /// The exact spelling of every field of the type and of the objects inside it.
    const NAMES: &'static [&'static str];
}

/// Decodes a body as leniently as Go does.
///
/// # Errors
/// The body is not one JSON value, or a field has the wrong type.
pub fn from_client<T: FromClient>(body: &[u8]) -> Result<T, serde_json::Error> {
    let value: Value = serde_json::from_slice(body)?;
    serde_json::from_value(canonical(value, T::NAMES))
}

/// Gives keys the spelling of `names` and drops members that are `null`.
fn canonical(value: Value, names: &[&str]) -> Value {
    match value {
        Value::Object(members) => {
            let mut out = Map::new();
            for (key, value) in members {
                if value.is_null() {
                    continue;
                }
                let exact = names.iter().find(|name| name.eq_ignore_ascii_case(&key));
                out.insert(exact.map_or(key, |name| (*name).to_owned()), canonical(value, names));
            }
            Value::Object(out)
        }
        Value::Array(items) => Value::Array(items.into_iter().map(|item| canonical(item, names)).collect()),
        scalar @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => scalar,
    }
}

/// For `skip_serializing_if`: Go's `omitempty` of a bool, number or string.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// An address that is the empty string when unset.
pub(crate) mod addr {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(addr: &Option<IpAddr>, serializer: S) -> Result<S::Ok, S::Error> {
        match addr {
            Some(addr) => serializer.collect_str(addr),
            None => serializer.serialize_str(""),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<IpAddr>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(None);
        }
        text.parse()
            .map(Some)
            .map_err(|_| D::Error::custom(format_args!("ParseAddr({text:?}): unable to parse IP")))
    }
}
