//! One headscale on loopback, with its files in a temporary folder.

use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{interval, timeout};
use tsrs_base_types::Redacted;

use crate::client::Place;

/// How long headscale may take to start on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long one command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Headscale {
    binary: PathBuf,
    folder: tempfile::TempDir,
    child: Child,
    url: String,
    tls: bool,
}

impl Drop for Headscale {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("headscale said last:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}

impl Headscale {
    /// Starts a server with one user; `None` when the program is not on PATH.
    pub(crate) async fn start(tls: bool) -> Option<Self> {
        let path = std::env::var_os("PATH")?;
        let binary =
            std::env::split_paths(&path).map(|dir| dir.join("headscale")).find(|file| file.is_file())?;
        let folder = tempfile::tempdir().unwrap();
        let (port, stun_port) = (free_tcp_port(), free_udp_port());
        let scheme = if tls { "https" } else { "http" };
        let url = format!("{scheme}://127.0.0.1:{port}");
        write_config(folder.path(), &url, port, stun_port, tls);
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = std::process::Command::new(&binary)
            .arg("-c")
            .arg(folder.path().join("config.yaml"))
            .arg("serve")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let headscale = Self { binary, folder, child, url, tls };
        timeout(START_LIMIT, headscale.started(port)).await.expect("headscale starts in time");
        headscale.run(&["users", "create", "lab"]).await;
        Some(headscale)
    }

    async fn started(&self, port: u16) {
        let mut tick = interval(Duration::from_millis(50));
        let socket = self.folder.path().join("headscale.sock");
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() || !socket.exists() {
            tick.tick().await;
        }
    }

    /// Where it is, and how to trust it.
    pub(crate) fn place(&self) -> Place {
        let ca_file = self.tls.then(|| self.folder.path().join("cert.pem"));
        Place { url: self.url.clone(), ca_file }
    }

    /// The same without its certificate.
    pub(crate) fn untrusted(&self) -> Place {
        Place { ca_file: None, ..self.place() }
    }

    /// Runs a command of the headscale CLI, and gives its output.
    pub(crate) async fn run(&self, args: &[&str]) -> String {
        let output = Command::new(&self.binary)
            .arg("-c")
            .arg(self.folder.path().join("config.yaml"))
            .args(args)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = timeout(COMMAND_LIMIT, output).await.expect("headscale answers in time").unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{args:?}: {text} {}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// A key with which any number of nodes may join.
    pub(crate) async fn auth_key(&self, more: &[&str]) -> Redacted<String> {
        let command = ["preauthkeys", "create", "--user", "1", "--reusable", "--expiration", "1h"];
        let output = self.run(&[&command, more].concat()).await;
        Redacted::new(output.trim().lines().last().unwrap().trim().to_owned())
    }

    /// Does what the user would do on the login page.
    pub(crate) async fn approve(&self, auth_url: &str) {
        let id = auth_url.rsplit('/').next().unwrap();
        self.run(&["auth", "register", "--auth-id", id, "--user", "lab"]).await;
    }
}

fn free_tcp_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn free_udp_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn write_config(folder: &Path, url: &str, port: u16, stun_port: u16, tls: bool) {
    let run = folder.display();
    let mut config = format!(
        "server_url: {url}
listen_addr: 127.0.0.1:{port}
metrics_listen_addr: \"\"
grpc_listen_addr: \"\"
disable_check_updates: true
unix_socket: {run}/headscale.sock
noise: {{ private_key_path: {run}/noise.key }}
prefixes: {{ v4: 100.64.0.0/10, allocation: sequential }}
database: {{ type: sqlite, sqlite: {{ path: {run}/db.sqlite, write_ahead_log: true }} }}
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
    stun_listen_addr: 127.0.0.1:{stun_port}
    private_key_path: {run}/derp.key
    ipv4: 127.0.0.1
dns: {{ magic_dns: true, base_domain: lab.test, override_local_dns: false, nameservers: {{ global: [] }} }}
policy: {{ mode: file, path: \"\" }}
log: {{ level: debug, format: text }}
logtail: {{ enabled: false }}
"
    );
    if tls {
        let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(folder.join("cert.pem"), certified.cert.pem()).unwrap();
        std::fs::write(folder.join("key.pem"), certified.signing_key.serialize_pem()).unwrap();
        config += &format!("tls_cert_path: {run}/cert.pem\ntls_key_path: {run}/key.pem\n");
    }
    std::fs::write(folder.join("config.yaml"), config).unwrap();
}
