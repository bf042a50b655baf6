//! Tailnet Lock, with real daemons: after each step all nodes agree with control on head and keys, and talk to those who are signed and
//! to nobody else.
//!
//! The steps are commands of Tailscale's own client, so that they are the same for every kind of node.

#[path = "lock/command_line.rs"]
mod command_line;
#[path = "lock/lies.rs"]
mod lies;
#[path = "lock/life.rs"]
mod life;
#[path = "lock/recovery.rs"]
mod recovery;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use tsrs_base_types::LockPublic;
use tsrs_lab_control::{LabConfig, LabControl, LabNode};
use tsrs_lab_netns::{Net, Node, NodeKind, Server, wait};

use crate::SOON;

/// Time for an answer that must not come: many times what one takes that does.
const IN_VAIN: Duration = Duration::from_millis(500);

/// A tailnet whose nodes are named after their hosts.
struct Tailnet<'a> {
    net: &'a Net,
    server: Server<'a>,
    auth_key: String,
    nodes: Vec<Node<'a>>,
}

impl<'a> Tailnet<'a> {
    /// Nodes that have joined, without a lock.
    fn start(net: &'a Net, members: &[(&str, NodeKind)]) -> Self {
        let server = Server::embedded(net, LabConfig::default()).unwrap();
        let auth_key = server.create_key().unwrap();
        let mut tailnet = Self { net, server, auth_key, nodes: Vec::new() };
        for (name, kind) in members {
            tailnet.join(name, *kind);
        }
        tailnet.agree_without_lock();
        tailnet
    }

    /// One more node, with the key that they all use.
    fn join(&mut self, name: &str, kind: NodeKind) {
        let node = Node::start(self.net.host(name), kind, &self.server).unwrap();
        node.up(&self.server, &self.auth_key).unwrap();
        self.nodes.push(node);
    }

    fn restart(&mut self, name: &str) {
        let node = self.nodes.iter_mut().find(|node| node.host().name() == name).unwrap();
        node.restart().unwrap();
    }

    fn control(&self) -> &LabControl {
        self.server.control().unwrap()
    }

    fn node(&self, name: &str) -> &Node<'a> {
        self.nodes.iter().find(|node| node.host().name() == name).unwrap()
    }

    /// A node as control knows it.
    fn record(&self, name: &str) -> LabNode {
        self.control().node(name).unwrap()
    }

    /// `tailscale lock` with these arguments on a node; what it printed.
    fn lock(&self, name: &str, arguments: &[&str]) -> String {
        self.try_lock(name, arguments).unwrap()
    }

    fn try_lock(&self, name: &str, arguments: &[&str]) -> Result<String> {
        self.node(name).tailscale(&[&["lock"], arguments].concat())
    }

    /// A `tailscale lock` that must fail; what it said.
    fn refused(&self, name: &str, arguments: &[&str]) -> String {
        format!("{:#}", self.try_lock(name, arguments).unwrap_err())
    }

    fn status(&self, name: &str) -> Value {
        serde_json::from_str(&self.lock(name, &["status", "--json"])).unwrap()
    }

    /// A node's own key, as the commands take it.
    fn key(&self, name: &str) -> String {
        self.status(name)["PublicKey"].as_str().unwrap().to_owned()
    }

    /// Makes a lock that trusts the keys of these nodes; the secrets that end it.
    fn init(&self, by: &str, trusted: &[&str], more: &[&str]) -> Vec<String> {
        let keys: Vec<String> = trusted.iter().map(|name| self.key(name)).collect();
        let mut arguments = vec!["init", "--confirm"];
        arguments.extend(more);
        arguments.extend(keys.iter().map(String::as_str));
        let said = self.lock(by, &arguments);
        said.split_whitespace()
            .filter(|word| word.starts_with("disablement-secret:"))
            .map(str::to_owned)
            .collect()
    }

    /// Has a node sign another.
    fn sign(&self, by: &str, name: &str) {
        let (node, rotation) = (self.record(name).key.to_string(), self.key(name));
        self.lock(by, &["sign", &node, &rotation]);
    }

    /// Gives a node a new node key, with an auth key.
    fn renew_node_key(&self, name: &str) {
        let before = self.record(name).key;
        let (server, key) =
            (format!("--login-server={}", self.server.url()), format!("--auth-key={}", self.auth_key));
        self.node(name).cli(&["up", "--force-reauth", &server, &key, "--timeout=60s"]).unwrap();
        assert_ne!(self.record(name).key, before);
    }

    /// Waits until all nodes agree with control on head and keys, and until these are locked out and nobody else.
    #[track_caller]
    fn agree(&self, outside: &[&str]) {
        let agreed = || self.nodes.iter().try_for_each(|node| self.is_locked(node, outside));
        wait::until_ok("all nodes agree", SOON, agreed).unwrap();
        self.talk(outside);
    }

    /// Waits until no node has a lock any more, or none has one yet.
    #[track_caller]
    fn agree_without_lock(&self) {
        assert_eq!(self.control().lock_head(), None);
        let off =
            || (self.nodes.iter().all(|node| self.status(name(node))["Enabled"] == false)).then_some(());
        wait::until("no node has a lock", SOON, off).unwrap();
        self.talk(&[]);
    }

    fn is_locked(&self, node: &Node<'_>, outside: &[&str]) -> Result<()> {
        let (own, status) = (name(node), self.status(name(node)));
        let head = self.control().lock_head().unwrap_or_default();
        ensure!(
            status["Enabled"] == true && status["Head"] == head.as_str(),
            "{own}: {head} is not {status:#}"
        );
        let keys: Vec<String> = self.control().lock_keys().iter().map(LockPublic::cli_text).collect();
        let trusted = status["TrustedKeys"].as_array().into_iter().flatten().map(|key| &key["Public"]);
        ensure!(trusted.eq(&keys), "{own}: {keys:?} are not the keys of {status:#}");
        let is_out = |name: &str| outside.contains(&name);
        ensure!(status["NodeKeySigned"] == !is_out(own), "{own}: {status:#}");
        let expected = |out: bool| -> BTreeSet<String> {
            let peers = self.nodes.iter().map(name).filter(|peer| *peer != own && is_out(peer) == out);
            peers.map(str::to_owned).collect()
        };
        for (list, out) in [("VisiblePeers", false), ("FilteredPeers", true)] {
            ensure!(peers(&status[list]) == expected(out), "{own}: {list} of {status:#}");
        }
        Ok(())
    }

    /// Asserts that all who are inside reach each other, and nobody reaches those outside or is reached by them.
    #[track_caller]
    fn talk(&self, outside: &[&str]) {
        let names: Vec<&str> = self.nodes.iter().map(name).collect();
        std::thread::scope(|scope| {
            for (index, from) in names.iter().enumerate() {
                for (other, to) in names.iter().enumerate().filter(|(other, _)| *other != index) {
                    let apart = outside.contains(from) || outside.contains(to);
                    // An answer proves both directions; silence says nothing of the other one.
                    if apart || index < other {
                        scope.spawn(move || self.reaches(from, to, !apart));
                    }
                }
            }
        });
    }

    /// Waits until a ping is answered, or until none is any more.
    #[track_caller]
    fn reaches(&self, from: &str, to: &str, wanted: bool) {
        let (host, address) = (self.net.host(from), self.record(to).ipv4);
        if wanted {
            host.wait_ping(address, SOON).unwrap();
            return;
        }
        let silent = || (host.ping(address, 1, IN_VAIN).ok()?.received == 0).then_some(());
        wait::until(&format!("{from} no longer reaches {to}"), SOON, silent).unwrap();
    }

    /// The hashes of the updates that a node knows, the newest first.
    fn log(&self, name: &str) -> Vec<Value> {
        let log: Value = serde_json::from_str(&self.lock(name, &["log", "--json"])).unwrap();
        log["Messages"].as_array().unwrap().iter().map(|update| update["Hash"].clone()).collect()
    }
}

fn name<'n>(node: &'n Node<'_>) -> &'n str {
    node.host().name()
}

/// The host names of a list of peers.
fn peers(list: &Value) -> BTreeSet<String> {
    let names =
        list.as_array().into_iter().flatten().filter_map(|peer| peer["DNSName"].as_str()?.split('.').next());
    names.map(str::to_owned).collect()
}
