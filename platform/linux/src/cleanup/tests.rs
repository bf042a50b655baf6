use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use tsrs_platform_api::{DnsConfigurator, EventSink, Router, TunConfig, contract};

use super::*;
use crate::dns::{HostFiles, LinuxDns};
use crate::router::LinuxRouter;
use crate::testing::{isolated, isolated_with, run, sh, veth};

/// Names the directory of the agent that is killed, to the process that plays it.
const VICTIM: &str = "TSRS_TEST_VICTIM";
const TUN: &str = "tailscale2";

fn instance() -> Instance {
    Instance::new(2).unwrap()
}

fn files(directory: &Path) -> HostFiles {
    let bus = format!("unix:path={}/no-bus", directory.display());
    HostFiles {
        resolv_conf: directory.join("etc/resolv.conf"),
        nsswitch: directory.join("nsswitch"),
        bus: Some(bus),
    }
}

/// Everything that an agent changes on a host.
fn system(directory: &Path) -> String {
    let resolv_conf = directory.join("etc/resolv.conf");
    let meta = fs::symlink_metadata(&resolv_conf).unwrap();
    let listed = fs::read_dir(directory.join("etc")).unwrap().count();
    [
        sh("ip -o addr show"),
        sh("ip -br link show"),
        sh("ip rule show"),
        sh("ip -6 rule show"),
        sh("ip route show table all"),
        sh("nft -s list ruleset"),
        fs::read_to_string("/proc/sys/net/ipv4/conf/all/src_valid_mark").unwrap(),
        fs::read_to_string(&resolv_conf).unwrap(),
        format!("{} {:o} {}.{} {listed}", meta.ino(), meta.mode(), meta.mtime(), meta.mtime_nsec()),
    ]
    .join("---\n")
}

/// The agent that is killed. It is run by the test below in a process of its own.
#[test]
#[ignore = "a part of the test of a killed agent"]
fn victim() {
    let Some(directory) = std::env::var_os(VICTIM).map(PathBuf::from) else { return };
    let device = crate::tun::create(&TunConfig::new(TUN)).unwrap();
    let journal = Journal::open(&directory).unwrap();
    let mut router =
        LinuxRouter::new(instance(), TUN, device.index, journal.clone(), EventSink::ignore()).unwrap();
    router.apply(&contract::full_router_config()).unwrap();
    let mut dns =
        LinuxDns::with_files(instance(), device.index, journal, EventSink::ignore(), files(&directory))
            .unwrap();
    dns.apply(&contract::full_dns_config(true)).unwrap();
    println!("\nready");
    let _ = io::stdin().read_line(&mut String::new());
}

/// Lets an agent set everything up and kills it.
fn kill_an_agent(directory: &Path) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "cleanup::tests::victim", "--ignored", "--nocapture", "--test-threads=1"]);
    command.env(VICTIM, directory).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    assert!(output.lines().any(|line| line.unwrap() == "ready"), "the agent did not come up");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A host with an uplink and a firewall that drops by policy.
fn host(directory: &Path) {
    fs::create_dir(directory.join("etc")).unwrap();
    fs::write(directory.join("etc/resolv.conf"), "nameserver 192.0.2.53\n").unwrap();
    veth("eth0", "192.0.2.7/24");
    sh("iptables-nft -P INPUT DROP");
    sh("iptables-nft -A INPUT -p tcp --dport 22 -j ACCEPT");
    sh("iptables-nft -P FORWARD DROP");
    run("ip", "rule add priority 100 fwmark 7 lookup 100".split(' '));
    run("ip", "route add 203.0.113.0/24 via 192.0.2.1 table 54".split(' '));
}

#[test]
fn nothing_of_a_killed_agent_is_left_and_nothing_else_is_touched() {
    isolated_with(&["iptables-nft"], || {
        let directory = tempfile::tempdir().unwrap();
        host(directory.path());
        let before = system(directory.path());
        kill_an_agent(directory.path());
        let dirty = system(directory.path());
        for left in
            ["lookup 54", "throw 10.20.30.0/24", "table ip tsrs-2", "tsrs-2 approved", "100.100.100.100"]
        {
            assert!(dirty.contains(left), "{left} would have to be left by a kill:\n{dirty}");
        }
        let report = cleanup(directory.path(), instance(), TUN).unwrap();
        assert!(report.errors.is_empty(), "{:?}", report.errors);
        assert_eq!(
            report.undone,
            ["name resolution", "policy rules", "routes", "rules in foreign tables", "firewall"]
        );
        assert_eq!(before, system(directory.path()));
        let again = cleanup(directory.path(), instance(), TUN).unwrap();
        assert!(again.undone.is_empty() && again.errors.is_empty());
        assert_eq!(before, system(directory.path()));
    });
}

#[test]
fn the_journal_names_the_instance_even_if_the_caller_does_not() {
    isolated_with(&["iptables-nft"], || {
        let directory = tempfile::tempdir().unwrap();
        host(directory.path());
        let before = system(directory.path());
        kill_an_agent(directory.path());
        cleanup(directory.path(), Instance::ZERO, "tailscale0").unwrap();
        assert_eq!(before, system(directory.path()));
    });
}

#[test]
fn with_a_corrupt_journal_the_rest_is_still_undone_and_the_file_is_kept() {
    isolated_with(&["iptables-nft"], || {
        let directory = tempfile::tempdir().unwrap();
        host(directory.path());
        kill_an_agent(directory.path());
        fs::write(directory.path().join("journal.json"), "{broken").unwrap();
        let report = cleanup(directory.path(), instance(), TUN).unwrap();
        assert_eq!(report.undone, ["policy rules", "routes", "rules in foreign tables", "firewall"]);
        assert!(report.errors.is_empty(), "{:?}", report.errors);
        let kept = report.corrupt_journal.unwrap();
        assert_eq!(fs::read_to_string(kept).unwrap(), "{broken");
        assert!(Journal::open(directory.path()).is_ok());
    });
}

#[test]
fn a_running_agent_is_not_cleaned_up_under_its_feet() {
    isolated(|| {
        let directory = tempfile::tempdir().unwrap();
        let _device = crate::tun::create(&TunConfig::new(TUN)).unwrap();
        let error = cleanup(directory.path(), instance(), TUN).unwrap_err().to_string();
        assert!(error.contains(TUN) && error.contains("running"), "{error}");
    });
}

#[test]
fn without_privilege_the_reason_is_told() {
    isolated(|| {
        let directory = tempfile::tempdir().unwrap();
        crate::sys::tests::set_thread_uid(65_534);
        let report = cleanup(directory.path(), instance(), TUN).unwrap();
        assert!(report.undone.is_empty());
        assert!(
            report.errors.iter().all(|error| error.to_string().contains("run as root")),
            "{:?}",
            report.errors
        );
    });
}
