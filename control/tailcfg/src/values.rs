//! Values with a wire form of their own: raw JSON, capability maps, base64 bytes, auth keys.

use std::collections::BTreeMap;
use std::fmt;

use data_encoding::BASE64;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use tsrs_base_types::Redacted;

/// A JSON value kept verbatim, `null` included.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RawMessage(Box<RawValue>);

impl RawMessage {
    /// From JSON text.
    pub fn from_text(text: String) -> Result<Self, serde_json::Error> {
        RawValue::from_string(text).map(Self)
    }

    /// From a value that can be written as JSON.
    pub fn from_value(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        serde_json::value::to_raw_value(value).map(Self)
    }

    /// The JSON text.
    pub fn text(&self) -> &str {
        self.0.get()
    }

    /// The value read as `T`.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.0.get())
    }
}

impl PartialEq for RawMessage {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl Eq for RawMessage {}

impl fmt::Debug for RawMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.get())
    }
}

/// Capabilities by name, each with a list of values that is usually empty: the name alone counts.
///
/// `null` and `[]` as a value mean the same; which of them was read is kept, so that the map is written as it came.
/// A netmap holds one map per peer, mostly with a few names, so it is a sorted list and not a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CapMap(Vec<(Box<str>, Values)>);

/// The values of a capability; `None` where the wire says `null`.
type Values = Option<Box<[RawMessage]>>;

impl CapMap {
    /// Whether there is no capability at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the capability is there.
    pub fn contains(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }

    /// The values of a capability; `None` if the capability is not there.
    pub fn values(&self, name: &str) -> Option<&[RawMessage]> {
        self.find(name).ok().map(|at| self.0[at].1.as_deref().unwrap_or_default())
    }

    /// All capabilities with their values, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[RawMessage])> {
        self.0.iter().map(|(name, values)| (name.as_ref(), values.as_deref().unwrap_or_default()))
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_ref())
    }

    /// Sets a capability and its values.
    pub fn insert(&mut self, name: &str, values: Vec<RawMessage>) {
        let values = Some(values.into());
        match self.find(name) {
            Ok(at) => self.0[at].1 = values,
            Err(at) => self.0.insert(at, (name.into(), values)),
        }
    }

    /// Adds a capability without values, unless it is there already.
    pub fn insert_name(&mut self, name: &str) {
        if let Err(at) = self.find(name) {
            self.0.insert(at, (name.into(), None));
        }
    }

    /// Where a name is, or where it would go.
    fn find(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.as_ref().cmp(name))
    }
}

impl Serialize for CapMap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, values)| (name, values)))
    }
}

impl<'de> Deserialize<'de> for CapMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = BTreeMap::<Box<str>, Values>::deserialize(deserializer)?;
        Ok(Self(map.into_iter().collect()))
    }
}

/// Bytes that travel as standard base64 with padding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

impl Base64 {
    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64.decode(text.as_bytes()).map(Self).map_err(|_| D::Error::custom("not base64"))
    }
}

/// Secret bytes that travel as [`Base64`]. Not printed, wiped on drop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretBase64(Redacted<Vec<u8>>);

impl SecretBase64 {
    /// Wraps the bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Redacted::new(bytes))
    }

    /// The bytes themselves.
    pub fn expose(&self) -> &[u8] {
        self.0.expose()
    }
}

impl Default for SecretBase64 {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Serialize for SecretBase64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(Redacted::new(BASE64.encode(self.expose())).expose())
    }
}

impl<'de> Deserialize<'de> for SecretBase64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Redacted::new(String::deserialize(deserializer)?);
        BASE64.decode(text.expose().as_bytes()).map(Self::new).map_err(|_| D::Error::custom("not base64"))
    }
}

/// An auth key on its way to the server. Not printed, wiped on drop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthKey(Redacted<String>);

impl AuthKey {
    /// Wraps the key.
    pub fn new(key: String) -> Self {
        Self(Redacted::new(key))
    }

    /// The key itself.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

impl Default for AuthKey {
    fn default() -> Self {
        Self::new(String::new())
    }
}

impl Serialize for AuthKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose())
    }
}

impl<'de> Deserialize<'de> for AuthKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}
