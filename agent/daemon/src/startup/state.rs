//! The state at the start: read, made new, or taken over from tailscaled.

use std::path::Path;

use anyhow::{Context, bail};
use rand_core::OsRng;
use tsrs_agent_core::health::Problem;
use tsrs_agent_core::profiles::Profiles;
use tsrs_agent_core::state_file::{self, Loaded, State, StateError};
use tsrs_agent_core::takeover;
use tsrs_base_types::MachinePrivate;

use crate::store::{self, Store};

/// The state, and what the user should know about it.
pub(super) struct Start {
    pub(super) state: State,
    pub(super) problems: Vec<(Problem, String)>,
}

/// Where tailscaled keeps its state.
const OFFICIAL_STATE: &str = "/var/lib/tailscale/tailscaled.state";

/// Reads the state file. A damaged one is kept under another name and a new state begun; any other trouble ends the
/// start, so that nothing is lost.
pub(super) fn load(store: &Store, import: Option<&Path>) -> anyhow::Result<Start> {
    let path = store.state_file();
    let shown = path.display();
    let content = store::read(path, state_file::MAX_LEN).with_context(|| {
        format!("read the state file {shown}; its owner must be the user that runs the daemon")
    })?;
    let Some(content) = content else { return begin(import) };
    if import.is_some() {
        tracing::warn!("--import is not used: there is a state of our own");
    }
    match state_file::decode(&content) {
        Ok(Loaded { state, removed }) => Ok(Start { state, problems: removed_problems(&removed) }),
        Err(StateError::Corrupt(reason)) => {
            let kept = store
                .set_aside(path)
                .with_context(|| format!("move the damaged state file {shown} aside"))?;
            let text = format!(
                "The state file {shown} was damaged ({reason}) and is kept as {}. A new login is needed.",
                kept.display()
            );
            tracing::error!(text, "the state file is damaged");
            Ok(Start { state: fresh(), problems: vec![(Problem::StateDamaged, text)] })
        }
        Err(error @ (StateError::TooNew(_) | StateError::Foreign)) => bail!("{shown}: {error}"),
    }
}

fn removed_problems(removed: &[(String, tsrs_agent_core::prefs::Removed)]) -> Vec<(Problem, String)> {
    if removed.is_empty() {
        return Vec::new();
    }
    let mut parts: Vec<String> = Vec::new();
    for (id, removed) in removed {
        let held = if removed.held_down { ", and the tunnel was kept down" } else { "" };
        parts.push(format!("account {id}: {}{held}", removed.reasons.join("; ")));
    }
    let text = format!("Stored settings have no effect here and were taken out: {}", parts.join(". "));
    tracing::warn!(text, "stored settings were taken out");
    vec![(Problem::SettingsRemoved, text)]
}

fn begin(import: Option<&Path>) -> anyhow::Result<Start> {
    let Some(path) = import else {
        if Path::new(OFFICIAL_STATE).exists() {
            tracing::info!(
                "tailscaled has a login on this host; to take it over, stop tailscaled and start this daemon once with \
                 --import {OFFICIAL_STATE}"
            );
        }
        return Ok(Start { state: fresh(), problems: Vec::new() });
    };
    let shown = path.display();
    let content = store::read(path, state_file::MAX_LEN).with_context(|| format!("read {shown}"))?;
    let content = content.with_context(|| format!("{shown} does not exist"))?;
    let Loaded { state, removed } =
        takeover::from_tailscaled(&content).with_context(|| format!("take the login over from {shown}"))?;
    tracing::info!(path = %shown, "took the login over; the file was not changed");
    Ok(Start { state, problems: removed_problems(&removed) })
}

fn fresh() -> State {
    State { machine_key: MachinePrivate::generate(&mut OsRng), profiles: Profiles::default() }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), &dir.path().join("tsrs-agent.state")).unwrap();
        (dir, store)
    }

    #[test]
    fn a_state_survives_a_restart() {
        let (_dir, store) = store();
        let first = load(&store, None).unwrap().state;
        store::write_atomically(store.state_file(), &state_file::encode(&first).unwrap()).unwrap();
        assert_eq!(load(&store, None).unwrap().state, first);
    }

    #[test]
    fn a_damaged_state_is_kept_and_named() {
        let (dir, store) = store();
        fs::write(store.state_file(), b"{\"Version\": 1, \"Mach").unwrap();
        let start = load(&store, None).unwrap();
        let (problem, text) = &start.problems[0];
        let kept = dir.path().join("tsrs-agent.state.damaged-0");
        assert_eq!(*problem, Problem::StateDamaged);
        assert!(text.contains(&kept.display().to_string()), "{text}");
        assert_eq!(fs::read(&kept).unwrap(), b"{\"Version\": 1, \"Mach");
        assert!(!store.state_file().exists());
    }

    #[test]
    fn a_state_of_a_later_version_or_of_tailscaled_is_not_touched() {
        let (_dir, store) = store();
        for content in [&b"{\"Version\": 9}"[..], b"{\"_machinekey\": \"x\"}"] {
            fs::write(store.state_file(), content).unwrap();
            let Err(error) = load(&store, None) else { panic!("taken") };
            assert!(error.to_string().contains("tsrs-agent.state"), "{error}");
            assert_eq!(fs::read(store.state_file()).unwrap(), content);
        }
    }

    #[test]
    fn an_unreadable_state_ends_the_start() {
        let (_dir, store) = store();
        fs::create_dir(store.state_file()).unwrap();
        assert!(load(&store, None).is_err());
        assert!(store.state_file().is_dir());
    }
}
