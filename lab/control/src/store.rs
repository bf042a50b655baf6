//! The state file: what a server must know to be the same after a restart.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use rand_core::OsRng;
use serde::{Deserialize, Serialize};
use tsrs_base_types::{MachinePrivate, NodePrivate, RegionId};

use crate::tailnet::Stored;
use crate::tls::Authority;

/// The server's own keys. A lab's keys guard nothing, so they are kept in clear.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct StateFile {
    noise_key: String,
    derp_keys: BTreeMap<RegionId, String>,
    authority: String,
}

#[derive(Serialize, Deserialize)]
struct Content<K> {
    warning: String,
    keys: K,
    tailnet: Option<Stored>,
}

impl StateFile {
    /// The keys and the tailnet of a file; fresh keys where there is none.
    pub(crate) fn open(path: Option<&Path>, regions: &[RegionId]) -> Result<(Self, Option<Stored>)> {
        let text = match path.map(std::fs::read_to_string) {
            Some(Ok(text)) => text,
            Some(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            Some(Err(_)) | None => return Ok((Self::fresh(regions)?, None)),
        };
        let content: Content<Self> = serde_json::from_str(&text).context("lab state file")?;
        let mut keys = content.keys;
        for region in regions {
            keys.derp_keys.entry(*region).or_insert_with(fresh_node_key);
        }
        Ok((keys, content.tailnet))
    }

    fn fresh(regions: &[RegionId]) -> Result<Self> {
        Ok(Self {
            noise_key: MachinePrivate::generate(&mut OsRng).expose_text().to_string(),
            derp_keys: regions.iter().map(|region| (*region, fresh_node_key())).collect(),
            authority: Authority::new(None)?.key_pem(),
        })
    }

    pub(crate) fn noise_key(&self) -> Result<MachinePrivate> {
        self.noise_key.parse().context("Noise key of the lab")
    }

    pub(crate) fn derp_key(&self, region: RegionId) -> Result<NodePrivate> {
        let text = self.derp_keys.get(&region).context("no DERP key for region")?;
        text.parse().context("DERP key of the lab")
    }

    pub(crate) fn authority(&self) -> Result<Authority> {
        Authority::new(Some(&self.authority))
    }

    /// Writes the file anew, by renaming, so that a kill leaves the old one.
    pub(crate) fn write(&self, path: &Path, tailnet: Stored) -> Result<()> {
        let warning = "test server: keys in clear".to_owned();
        let bytes = serde_json::to_vec(&Content { warning, keys: self, tailnet: Some(tailnet) })?;
        let new = path.with_extension("new");
        std::fs::write(&new, bytes)?;
        Ok(std::fs::rename(&new, path)?)
    }
}

fn fresh_node_key() -> String {
    NodePrivate::generate(&mut OsRng).expose_text().to_string()
}
