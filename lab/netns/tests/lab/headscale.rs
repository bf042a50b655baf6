//! Two stock nodes and headscale: the same as with the embedded server, so that both are known to be alike.

use serde_json::json;
use tsrs_lab_netns::{HeadscaleKey, Nat, TailscaledOptions, Topology};

use crate::meet::{transfer, wait_connects};
use crate::{SOON, turn_with};

#[test]
fn two_nodes_meet_through_headscale() {
    let programs = ["headscale", "tailscaled", "tailscale"];
    let Some(_turn) = turn_with("two_nodes_meet_through_headscale", &programs) else { return };
    let net = Topology::pair(Nat::Easy, Nat::Easy).build().unwrap();
    let headscale = net.servers().headscale(net.server_addresses()[0]).unwrap();
    let key = headscale.create_key(&HeadscaleKey { reusable: true, ..HeadscaleKey::default() }).unwrap();
    let options = TailscaledOptions { ca_file: Some(headscale.ca_file()), ..TailscaledOptions::default() };
    let a = net.host("a").tailscaled(&options).unwrap();
    let b = net.host("b").tailscaled(&options).unwrap();
    a.up(&headscale.url(), &key, &[]).unwrap();
    b.up(&headscale.url(), &key, &[]).unwrap();
    a.wait_peer("b", SOON).unwrap();
    b.wait_peer("a", SOON).unwrap();

    let address = b.ipv4().unwrap();
    assert!(headscale.node("b").unwrap().addresses.contains(&address.to_string()));
    let said = a.ping(&address.to_string(), true).unwrap();
    assert!(said.contains("via 203.0.113.12:"), "{said}");
    transfer(&net, address, 7000);

    let open = net.host("b").tcp_server((address, 7100).into()).unwrap();
    let closed = net.host("b").tcp_server((address, 7200).into()).unwrap();
    wait_connects(&net, closed.address(), true);
    headscale
        .set_policy(&json!({"grants": [{"src": ["*"], "dst": ["*"], "ip": ["tcp:7100", "icmp:*"]}]}))
        .unwrap();
    wait_connects(&net, closed.address(), false);
    wait_connects(&net, open.address(), true);

    headscale.expire("b").unwrap();
    b.wait_status("b needs login", SOON, |status| (status["BackendState"] == "NeedsLogin").then_some(()))
        .unwrap();
    headscale.delete("b").unwrap();
    a.wait_status("no peer", SOON, |status| {
        status["Peer"].as_object().is_none_or(|peers| peers.is_empty()).then_some(())
    })
    .unwrap();
}
