//! The lab against the real thing: a stock `tailscaled` joins it. Needs root, and `tailscaled` and `tailscale` in
//! `TSRS_TAILSCALED_DIR` or on `PATH`; without them the tests are skipped, loudly.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tsrs_lab_control::{Grant, KeySpec, LabConfig, Policy};
use tsrs_lab_netns::{MachineGuard, Nat, Net, TailscaledOptions, Topology, tools};

/// Time for something that takes a handful of round trips and a timer or two.
const SOON: Duration = Duration::from_secs(30);

fn logs() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("TSRS_LOG").unwrap_or_else(|_| "warn".into());
    // A second test in this process finds it set.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}

fn options(net: &Net) -> TailscaledOptions {
    TailscaledOptions { ca_file: Some(net.ca_file()), ..TailscaledOptions::default() }
}

#[test]
fn two_tailscaled_join_lab_control() {
    logs();
    if tools::find_all("two_tailscaled_join_lab_control", &["tailscaled", "tailscale"]).is_none() {
        return;
    }
    let guard = MachineGuard::note();
    {
        let net = Topology::pair(Nat::Easy, Nat::Easy).build().unwrap();
        let control = net.lab_control(LabConfig::default()).unwrap();
        let key = control.create_key(KeySpec::reusable());
        let a = net.host("a").tailscaled(&options(&net)).unwrap();
        let b = net.host("b").tailscaled(&options(&net)).unwrap();
        a.up(&control.url(), &key, &[]).unwrap();
        b.up(&control.url(), &key, &[]).unwrap();
        a.wait_peer("b", SOON).unwrap();
        b.wait_peer("a", SOON).unwrap();
        let b_address = b.ipv4().unwrap();
        println!("{}", a.ping(&b_address.to_string(), true).unwrap());
    }
    guard.compare().unwrap();
}
