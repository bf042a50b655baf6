//! The official client on our socket and on tailscaled's: each command at both, exit code and output compared.
//!
//! One tailnet: host `luna` runs our daemon, `mars` the real tailscaled, and `peer` is whom both talk to. A command runs at
//! both at the same time. Texts must be equal but for the names, addresses and numbers that are each one's own; JSON must
//! have one shape. What differs on purpose stands in a table with its reason, and a row that nothing needs any more fails
//! the test. After each change, the kernel of our host must be as the client says next.

#[path = "differential/accepted.rs"]
mod accepted;
#[path = "differential/kernel.rs"]
mod kernel;
#[path = "differential/own.rs"]
mod own;
#[path = "differential/pair.rs"]
mod pair;
#[path = "differential/reads.rs"]
mod reads;
#[path = "differential/report.rs"]
mod report;
#[path = "differential/rights.rs"]
mod rights;
#[path = "differential/sessions.rs"]
mod sessions;
#[path = "differential/settings.rs"]
mod settings;
#[path = "differential/shape.rs"]
mod shape;
#[path = "differential/states.rs"]
mod states;

use std::net::IpAddr;

use tsrs_lab_control::{KeySpec, LabConfig};
use tsrs_lab_netns::traffic::DnsServer;
use tsrs_lab_netns::{Nat, Topology, UpArgs, agent_binary, tools};

use crate::{SOON, TAILSCALE, options, turn_with};
use pair::{OURS, Pair, THEIRS};

/// A subnet that the third node serves.
const SUBNET: &str = "10.9.0.0/24";
/// Port of the third node at which transfers end.
const TCP_PORT: u16 = 7000;

#[test]
fn the_official_client_cannot_tell_the_daemons_apart() {
    let name = "the_official_client_cannot_tell_the_daemons_apart";
    if agent_binary().is_none() {
        return tools::skip(name, "tsrs-agent is not built beside the tests");
    }
    let Some(_turn) = turn_with(name, &TAILSCALE) else { return };
    let topology = Topology::empty("diff");
    let topology = topology.behind("ra", Nat::Easy, &[OURS]).behind("rb", Nat::Easy, &[THEIRS]);
    let net = topology.behind("rc", Nat::Easy, &["peer"]).build().unwrap();
    let outside: IpAddr = "198.51.100.7".parse().unwrap();
    let _names = DnsServer::start(
        net.servers().space(),
        "203.0.113.1:53".parse().unwrap(),
        &[("www.example.test", outside)],
    )
    .unwrap();
    let control = net.lab_control(LabConfig::default()).unwrap();
    let key = control.create_key(KeySpec::reusable());
    let third = net.host("peer").tailscaled(&options(&net)).unwrap();
    let offers = [&format!("--advertise-routes={SUBNET}"), "--advertise-exit-node"];
    third.up(&control.url(), &key, &offers).unwrap();
    let id = control.wait_online("peer", SOON).unwrap().id;
    control.approve_routes(id, &[SUBNET, "0.0.0.0/0", "::/0"].map(|net| net.parse().unwrap())).unwrap();
    // On the map, and never there.
    control.add_paper_nodes(1, &Default::default());
    let away = control.nodes().into_iter().find(|node| node.name != "peer").unwrap().name;
    let peer = third.ipv4().unwrap();
    let _transfers = net.host("peer").tcp_server((peer, TCP_PORT).into()).unwrap();
    let peer = peer.to_string();

    let ours = net.host(OURS).agent(UpArgs::default().trusting(net.ca_file())).unwrap();
    let theirs = net.host(THEIRS).tailscaled(&options(&net)).unwrap();
    let mut pair = Pair::new(ours, theirs);
    sessions::first_login(&pair, &control, &peer);
    for node in [OURS, THEIRS] {
        control.wait_online(node, SOON).unwrap();
    }
    reads::traffic(&pair, &peer, TCP_PORT);
    reads::running(&pair, &peer);
    own::running(&pair, &pair.ours.ipv4().unwrap().to_string(), &peer);
    rights::nobody(&pair, &peer);
    rights::operator(&pair);
    reads::away(&pair, &away);
    settings::set(&pair);
    settings::up(&pair, &control.url());
    settings::take_names_back(&pair, &control);
    own::set(&pair);
    sessions::down_and_up(&pair, &peer);
    states::restart(&mut pair, &control);
    states::not_approved(&pair, &control);
    states::expired(&pair, &control, &peer);
    sessions::accounts(&pair, &control, &peer);
    pair.report.finish();
}
