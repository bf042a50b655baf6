//! Keys stay inside: not in logs, reports, or memory that no longer needs them.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};

use serde_json::Value;
use tsrs_lab_control::{KeySpec, LabConfig};
use tsrs_lab_netns::{Topology, UpArgs};

use super::{STATE_DIR, STATE_FILE, assert_names, joined, wait_state};
use crate::{SOON, turn_with_agent};

/// Largest piece of memory that is read at once.
const PIECE_BYTES: u64 = 1 << 20;

/// How often each of these byte strings lies in the memory of a process, the needles of this test's own never.
fn count_in_memory(pid: i32, needles: &[&[u8]]) -> Vec<usize> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let overlap = needles.iter().map(|needle| needle.len() as u64).max().unwrap();
    let mut counts = vec![0; needles.len()];
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, rights) = (words.next().unwrap(), words.next().unwrap());
        if !rights.starts_with("rw") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let [start, end] = [start, end].map(|number| u64::from_str_radix(number, 16).unwrap());
        let mut at = start;
        while at < end {
            let len = (end - at).min(PIECE_BYTES + overlap);
            let mut piece = vec![0; usize::try_from(len).unwrap()];
            // Pages of devices cannot be read.
            if memory.read_exact_at(&mut piece, at).is_ok() {
                for (needle, count) in needles.iter().zip(&mut counts) {
                    *count += occurrences(&piece, needle, PIECE_BYTES);
                }
            }
            at += PIECE_BYTES;
        }
    }
    counts
}

/// Occurrences that begin within the first `limit` bytes.
fn occurrences(haystack: &[u8], needle: &[u8], limit: u64) -> usize {
    let begins = haystack.iter().take(usize::try_from(limit).unwrap()).enumerate();
    begins.filter(|(at, byte)| **byte == needle[0] && haystack[*at..].starts_with(needle)).count()
}

/// All texts that are private keys in the state file, with the name of their field.
fn private_keys(value: &Value) -> Vec<(String, String)> {
    match value {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| match value.as_str() {
                Some(text) if text.starts_with("privkey:") || text.starts_with("nlpriv:") => {
                    vec![(name.clone(), text.to_owned())]
                }
                _ => private_keys(value),
            })
            .collect(),
        Value::Array(list) => list.iter().flat_map(private_keys).collect(),
        _ => Vec::new(),
    }
}

fn hex_part(key: &str) -> &str {
    key.split_once(':').unwrap().1
}

#[test]
fn keys_stay_out_of_logs_reports_and_memory_that_is_done_with_them() {
    let Some(_turn) = turn_with_agent("keys_stay_out_of_logs") else { return };
    let net = Topology::public_pair().build().unwrap();
    let control = net.lab_control(LabConfig::default()).unwrap();
    let key = control.create_key(KeySpec::reusable());
    let arguments = UpArgs::join(&control.url(), &key).trusting(net.ca_file());
    let arguments = UpArgs { daemon_flags: vec!["--verbose=2".to_owned()], ..arguments };
    let host = net.host("a");
    let agent = host.agent(arguments).unwrap();
    let peer = joined(&net, "b", &control.url(), &key);
    host.wait_ping(peer.ipv4().unwrap(), SOON).unwrap();

    let state: Value = serde_json::from_str(&host.read(STATE_FILE).unwrap()).unwrap();
    let keys = private_keys(&state);
    let named = |name: &str| keys.iter().find(|(field, _)| field == name).unwrap().1.clone();
    let (machine, node) = (named("MachineKey"), named("NodeKey"));
    let raw = data_encoding::HEXLOWER.decode(hex_part(&node).as_bytes()).unwrap();

    let said = agent.cli(&["bugreport", "a note"]).unwrap();
    let path = said.trim().split_once("-see-").unwrap().1.to_owned();
    let report = host.read(&path).unwrap();
    assert_names(&report, &["a note", "== status", "nodekey:"]);
    for file in fs::read_dir(host.outside(STATE_DIR)).unwrap().flatten() {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{file:?}");
    }
    let status = agent.cli(&["status", "--json"]).unwrap();
    let prefs = agent.cli(&["debug", "prefs"]).unwrap();
    let netmap = agent.cli(&["debug", "netmap"]).unwrap();

    // The scan finds what is there: the key in use.
    let pid = agent.process().pid();
    assert!(count_in_memory(pid, &[&raw])[0] > 0);

    agent.cli(&["logout"]).unwrap();
    wait_state(&agent, "NeedsLogin");
    let log = agent.process().log();
    assert!(log.contains("DEBUG"));
    let texts =
        [("log", &log), ("report", &report), ("status", &status), ("prefs", &prefs), ("netmap", &netmap)];
    for (what, text) in texts {
        // Where the format wants a private key, there is none: all zeros.
        let zero = format!("privkey:{}", "0".repeat(64));
        assert!(!text.replace(&zero, "").contains("privkey:"), "{what}");
        assert!(!text.contains(key.as_str()), "{what} holds the auth key");
        for (name, key) in &keys {
            assert!(!text.contains(hex_part(key)), "{what} holds {name}");
        }
    }
    let left = host.read(STATE_FILE).unwrap();
    assert!(!left.contains(hex_part(&node)) && left.contains(hex_part(&machine)));

    // Once logged out, neither the auth key nor the node key is needed any more.
    let needles: [(&str, &[u8]); 3] = [
        ("auth key", key.as_bytes()),
        ("text of the node key", hex_part(&node).as_bytes()),
        ("node key", &raw),
    ];
    let counts = count_in_memory(pid, &needles.map(|(_, needle)| needle));
    let found: Vec<_> = needles.iter().zip(counts).filter(|(_, count)| *count > 0).collect();
    let found: Vec<_> = found.iter().map(|((what, _), count)| format!("{what}: {count} times")).collect();
    assert!(found.is_empty(), "still in memory: {found:?}");
}
