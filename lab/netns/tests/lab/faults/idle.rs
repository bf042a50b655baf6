//! Up, idle and connected, an agent sleeps.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use tsrs_base_types::RegionId;
use tsrs_lab_control::{KeySpec, LabConfig};
use tsrs_lab_netns::{Nat, Topology};

use super::{joined, wait_state};
use crate::{SOON, turn_with_agent};

/// How long an idle agent is watched. What it does rarely, such as keep-alives each minute, weighs more than over the
/// two minutes that the limit is meant for.
const WINDOW: Duration = Duration::from_secs(30);
/// Most context switches a second of all threads together.
const MAX_SWITCHES_PER_SEC: u64 = 2;

/// Context switches so far, by thread.
fn switches(pid: i32) -> BTreeMap<String, u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let count = |status: String| {
        let lines = status.lines().filter(|line| line.contains("voluntary_ctxt_switches:"));
        lines.filter_map(|line| line.rsplit('\t').next()?.parse::<u64>().ok()).sum()
    };
    // A thread may end between the two reads.
    let read = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let name = status.lines().next()?.trim_start_matches("Name:").trim().to_owned();
        Some((format!("{} {name}", task.file_name().to_string_lossy()), count(status)))
    };
    tasks.flatten().filter_map(read).collect()
}

#[test]
fn an_idle_agent_hardly_ever_wakes() {
    let Some(_turn) = turn_with_agent("an_idle_agent_hardly_ever_wakes") else { return };
    let net = Topology::pair(Nat::Easy, Nat::Easy).build().unwrap();
    let control = net.lab_control(LabConfig::default()).unwrap();
    let key = control.create_key(KeySpec::reusable());
    let a = joined(&net, "a", &control.url(), &key);
    let b = joined(&net, "b", &control.url(), &key);
    for (agent, name) in [(&a, "a"), (&b, "b")] {
        wait_state(agent, "Running");
        control.wait_online(name, SOON).unwrap();
    }
    // Which relay is home is known: the first measurement is over.
    for name in ["a", "b"] {
        let at_home = |node: &tsrs_lab_control::LabNode| {
            control.is_on_derp(RegionId(900), node) || control.is_on_derp(RegionId(901), node)
        };
        control
            .wait_for("a home relay", SOON, |nodes| {
                nodes.iter().any(|node| node.name == name && at_home(node)).then_some(())
            })
            .unwrap();
    }
    let pids = [a.process().pid(), b.process().pid()];
    let before = pids.map(switches);
    std::thread::sleep(WINDOW);
    for (pid, before) in pids.into_iter().zip(before) {
        let after = switches(pid);
        assert!(after.len() > 3, "{after:?}");
        let spent: BTreeMap<_, _> = after
            .iter()
            .map(|(thread, count)| (thread, count - before.get(thread).copied().unwrap_or(0)))
            .filter(|(_, count)| *count > 0)
            .collect();
        let all: u64 = spent.values().sum();
        assert!(all > 0, "nothing was measured");
        assert!(all <= MAX_SWITCHES_PER_SEC * WINDOW.as_secs(), "{all} in {WINDOW:?}: {spent:#?}");
    }
    wait_state(&a, "Running");
}
