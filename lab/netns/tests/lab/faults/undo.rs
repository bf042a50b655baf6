//! Killed at any moment, an agent leaves nothing that the next start or a clean-up does not undo.

use nix::sys::signal::Signal;
use tsrs_lab_control::{KeySpec, LabConfig};
use tsrs_lab_netns::{Host, Nat, Topology, wait};

use super::{agent_command, assert_names, at_once, daemon, joined, wait_state};
use crate::{SOON, turn_with_agent};

/// What an agent may change on its host, as the host's programs show it.
fn host_state(host: &Host) -> Vec<(String, String)> {
    let said: [&[&str]; 8] = [
        &["ip", "rule"],
        &["ip", "-6", "rule"],
        &["ip", "route", "show", "table", "all"],
        &["ip", "-6", "route", "show", "table", "all"],
        &["ip", "-brief", "link"],
        &["nft", "-s", "list", "ruleset"],
        &["find", "/etc", "-newer", "/etc/hostname", "-type", "f"],
        &[
            "sh",
            "-c",
            "grep -H . /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/*/*_filter /proc/sys/net/ipv4/conf/*/src_valid_mark",
        ],
    ];
    let run = |words: &&[&str]| (words.join(" "), host.run(words[0], &words[1..]).unwrap());
    let mut state: Vec<_> = said.iter().map(run).collect();
    state.push(("resolv.conf".to_owned(), host.resolv_conf().unwrap()));
    state
}

#[track_caller]
fn assert_same(before: &[(String, String)], host: &Host, when: &str) {
    for ((what, before), (_, after)) in before.iter().zip(host_state(host)) {
        assert_eq!(*before, after, "{when}: {what}");
    }
}

/// Something that can be seen from outside while an agent starts, in the order of its start.
const MOMENTS: [(&str, &str); 6] = [
    ("the process is there", "true"),
    ("the TUN is there", "test -e /sys/class/net/tailscale0"),
    ("the first rule is there", "ip rule | grep -q 52[1-7]0:"),
    ("the firewall is there", "nft list tables | grep -q ."),
    ("names are set", "grep -q 100.100.100.100 /etc/resolv.conf"),
    ("the address is there", "ip -4 addr show dev tailscale0 2>/dev/null | grep -q 100.64"),
];

#[test]
fn what_a_killed_agent_leaves_is_undone_to_the_letter() {
    let Some(_turn) = turn_with_agent("what_a_killed_agent_leaves") else { return };
    let net = Topology::empty("undo").behind("ra", Nat::Easy, &["a", "b"]).build().unwrap();
    let control = net.lab_control(LabConfig::default()).unwrap();
    let key = control.create_key(KeySpec::reusable());
    let scenario = |name: &str, by_cleanup: bool| {
        let host = net.host(name);
        // The kernel's own work on a new interface is over.
        let settled = || host.run("ip", &["-6", "addr", "show", "tentative"]).ok()?.is_empty().then_some(());
        wait::until("IPv6 addresses are no longer tentative", SOON, settled).unwrap();
        let before = host_state(host);
        let agent = joined(&net, name, &control.url(), &key);
        agent.cli(&["set", "--advertise-routes=192.168.77.0/24", "--accept-routes"]).unwrap();
        // What is compared does change.
        let during = host_state(host);
        let changed = |index: usize| before[index] != during[index];
        assert!([0, 2, 4, 5, 8].into_iter().all(changed), "{during:#?}");
        let id = control.node(name).unwrap().id;
        control.approve_routes(id, &["192.168.77.0/24".parse().unwrap()]).unwrap();
        assert!(agent.process().stop().unwrap().success());
        assert_same(&before, host, "after an orderly end");
        drop(agent);

        for (moment, test) in MOMENTS {
            let process = host.spawn("killed", agent_command(host, &["daemon"])).unwrap();
            wait::until(moment, SOON, || host.run("sh", &["-c", test]).is_ok().then_some(())).unwrap();
            process.signal(Signal::SIGKILL).unwrap();
            wait::until("it is dead", SOON, || process.exit_status()).unwrap();
            drop(process);
            if by_cleanup {
                host.output(agent_command(host, &["cleanup"])).unwrap();
            } else {
                let agent = daemon(&net, name, &[]);
                wait_state(&agent, "Running");
                assert!(agent.process().stop().unwrap().success());
            }
            assert_same(&before, host, &format!("killed when {moment}"));
        }
        // Killed while it ran, with everything set.
        let mut agent = daemon(&net, name, &[]);
        wait_state(&agent, "Running");
        let address = agent.ipv4().unwrap();
        agent.crash_and_restart().unwrap();
        wait_state(&agent, "Running");
        assert_eq!(agent.ipv4().unwrap(), address);
        assert_names(&agent.process().log(), &["undid what a predecessor left"]);
        agent.process().signal(Signal::SIGKILL).unwrap();
        drop(agent);
        let said = String::from_utf8(host.output(agent_command(host, &["cleanup"])).unwrap().stdout).unwrap();
        assert_names(&said, &["Undone:"]);
        assert_same(&before, host, "after `cleanup`");
        let said = String::from_utf8(host.output(agent_command(host, &["cleanup"])).unwrap().stdout).unwrap();
        assert_names(&said, &["nothing to undo"]);
    };
    at_once(&[&|| scenario("a", true), &|| scenario("b", false)]);
}
