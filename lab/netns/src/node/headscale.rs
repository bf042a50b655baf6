//! headscale, where one is found on `PATH` (control sheet §23.2).

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::host::Host;
use crate::process::Process;
use crate::{tools, wait};

/// Time that the server gets to answer its own client.
const START_LIMIT: Duration = Duration::from_secs(30);
/// User that [`Headscale::start`] makes.
const USER: &str = "lab";

/// A running headscale with embedded DERP and STUN; it ends with this value.
#[derive(Debug)]
pub struct Headscale<'a> {
    host: &'a Host,
    program: PathBuf,
    folder: PathBuf,
    address: Ipv4Addr,
    ca_pem: String,
    process: Process,
}

/// What a pre-auth key is good for.
#[derive(Clone, Debug, Default)]
pub struct HeadscaleKey {
    /// More than one node may use it.
    pub reusable: bool,
    /// Its nodes are deleted when they go away.
    pub ephemeral: bool,
    /// Tags of its nodes.
    pub tags: Vec<String>,
}

/// A node in headscale's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadscaleNode {
    /// Number.
    pub id: u64,
    /// Name.
    pub name: String,
    /// Addresses.
    pub addresses: Vec<String>,
    /// Whether it is connected.
    pub online: bool,
}

impl Host {
    /// Starts the `headscale` found on `PATH` on this host, listening on `address`, and makes a user.
    pub fn headscale(&self, address: Ipv4Addr) -> Result<Headscale<'_>> {
        let program = tools::find("headscale").context("headscale not found")?;
        let folder = self.folder().join("headscale");
        fs::create_dir_all(&folder)?;
        let key = rcgen::KeyPair::generate()?;
        let certificate = rcgen::CertificateParams::new(vec![address.to_string()])?.self_signed(&key)?;
        let ca_pem = certificate.pem();
        fs::write(folder.join("cert.pem"), &ca_pem)?;
        fs::write(folder.join("key.pem"), key.serialize_pem())?;
        fs::write(folder.join("policy.json"), "{}")?;
        fs::write(folder.join("config.yaml"), config(address, &folder))?;
        let mut command = self.command(&program);
        command.arg("serve").arg("-c").arg(folder.join("config.yaml"));
        let process = self.spawn("headscale", command)?;
        let headscale = Headscale { host: self, program, folder, address, ca_pem, process };
        wait::until_ok("headscale answers", START_LIMIT, || headscale.cli(&["users", "list", "-o", "json"]))?;
        headscale.cli(&["users", "create", USER])?;
        Ok(headscale)
    }
}

impl Headscale<'_> {
    /// URL for `--login-server`.
    pub fn url(&self) -> String {
        format!("https://{}:443", self.address)
    }

    /// Its certificate, for `SSL_CERT_FILE`.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// A file with its certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.join("cert.pem")
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Runs a command of headscale's own client.
    pub fn cli(&self, arguments: &[&str]) -> Result<String> {
        let program = self.program.to_string_lossy();
        let config = self.folder.join("config.yaml");
        let config = config.to_string_lossy();
        let mut all = vec!["-c", &config];
        all.extend_from_slice(arguments);
        self.host.run(&program, &all)
    }

    /// Makes a pre-auth key of the one user.
    pub fn create_key(&self, key: &HeadscaleKey) -> Result<String> {
        let users: Vec<Value> = serde_json::from_str(&self.cli(&["users", "list", "-o", "json"])?)?;
        let user = users.iter().find(|user| user["name"] == USER).context("no user")?;
        let id = number(&user["id"]).context("user without number")?.to_string();
        let tags = key.tags.join(",");
        let mut arguments = vec!["preauthkeys", "create", "--user", &id, "--expiration", "24h"];
        if key.reusable {
            arguments.push("--reusable");
        }
        if key.ephemeral {
            arguments.push("--ephemeral");
        }
        if !tags.is_empty() {
            arguments.extend_from_slice(&["--tags", &tags]);
        }
        let said = self.cli(&arguments)?;
        Ok(said.lines().rfind(|line| !line.trim().is_empty()).context("no key printed")?.trim().to_owned())
    }

    /// Lets a pending login in; `id` is the last part of its URL.
    pub fn approve_login(&self, id: &str) -> Result<()> {
        self.cli(&["auth", "register", "--auth-id", id, "--user", USER]).map(drop)
    }

    /// Replaces the policy and waits until it is loaded.
    pub fn set_policy(&self, policy: &Value) -> Result<()> {
        let file = self.folder.join("policy.json");
        let new = self.folder.join("policy.new");
        fs::write(&new, serde_json::to_vec(policy)?)?;
        self.cli(&["policy", "check", "-f", &new.to_string_lossy()])?;
        fs::rename(&new, &file)?;
        self.process.signal(Signal::SIGHUP)
    }

    /// All nodes.
    pub fn nodes(&self) -> Result<Vec<HeadscaleNode>> {
        let text = self.cli(&["nodes", "list", "-o", "json"])?;
        let list: Option<Vec<Value>> = serde_json::from_str(&text).context("list of nodes")?;
        let node = |node: &Value| {
            let addresses = node["ipAddresses"].as_array().map(Vec::as_slice).unwrap_or_default();
            HeadscaleNode {
                id: number(&node["id"]).unwrap_or_default(),
                name: node["givenName"].as_str().unwrap_or_default().to_owned(),
                addresses: addresses.iter().filter_map(|text| Some(text.as_str()?.to_owned())).collect(),
                online: node["online"] == true,
            }
        };
        Ok(list.unwrap_or_default().iter().map(node).collect())
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Result<HeadscaleNode> {
        self.nodes()?.into_iter().find(|node| node.name == name).with_context(|| format!("no node {name}"))
    }

    /// Ends the life of a node's key.
    pub fn expire(&self, name: &str) -> Result<()> {
        self.for_node(name, &["nodes", "expire"], &[])
    }

    /// Deletes a node.
    pub fn delete(&self, name: &str) -> Result<()> {
        self.for_node(name, &["nodes", "delete"], &["--force"])
    }

    /// Approves these routes of a node, and no others.
    pub fn approve_routes(&self, name: &str, routes: &[&str]) -> Result<()> {
        self.for_node(name, &["nodes", "approve-routes"], &["-r", &routes.join(",")])
    }

    /// Gives a node tags.
    pub fn tag(&self, name: &str, tags: &[&str]) -> Result<()> {
        self.for_node(name, &["nodes", "tag"], &["-t", &tags.join(",")])
    }

    fn for_node(&self, name: &str, command: &[&str], more: &[&str]) -> Result<()> {
        let id = self.node(name)?.id.to_string();
        let mut arguments = command.to_vec();
        arguments.extend_from_slice(&["-i", &id]);
        arguments.extend_from_slice(more);
        let said = self.cli(&arguments)?;
        if said.contains("rror") {
            bail!("headscale {}: {said}", arguments.join(" "));
        }
        Ok(())
    }
}

/// headscale writes 64-bit numbers as JSON numbers or texts.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

fn config(address: Ipv4Addr, folder: &Path) -> String {
    let run = folder.display();
    format!(
        r#"server_url: https://{address}:443
listen_addr: {address}:443
metrics_listen_addr: ""
grpc_listen_addr: 127.0.0.1:50443
disable_check_updates: true
unix_socket: {run}/headscale.sock
noise: {{ private_key_path: {run}/noise.key }}
prefixes: {{ v4: 100.64.0.0/10, v6: "fd7a:115c:a1e0::/48", allocation: sequential }}
database: {{ type: sqlite, sqlite: {{ path: {run}/db.sqlite, write_ahead_log: true }} }}
tls_cert_path: {run}/cert.pem
tls_key_path: {run}/key.pem
derp:
  urls: []
  paths: []
  auto_update_enabled: false
  server:
    enabled: true
    region_id: 999
    region_code: lab
    region_name: Lab
    verify_clients: true
    automatically_add_embedded_derp_region: true
    stun_listen_addr: {address}:3478
    private_key_path: {run}/derp.key
    ipv4: {address}
dns: {{ magic_dns: true, base_domain: lab.test, override_local_dns: false, nameservers: {{ global: [] }} }}
policy: {{ mode: file, path: {run}/policy.json }}
log: {{ level: info, format: text }}
logtail: {{ enabled: false }}
"#
    )
}
