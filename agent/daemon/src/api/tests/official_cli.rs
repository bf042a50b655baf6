//! The official client on our socket, where it is installed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;
use tsrs_lab_netns::tools;

use super::super::Listener;
use super::bench::{Bench, PEER};

/// A daemon on a real socket, and the client.
struct Cli {
    bench: Bench,
    program: PathBuf,
    socket: PathBuf,
}

struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Cli {
    /// `None`, said loudly, where the client is not installed.
    fn new(test: &str, bench: Bench) -> Option<Self> {
        let program = tools::find_all(test, &["tailscale"])?.pop()?;
        let socket = bench.api.state_dir.join("cli.sock");
        tokio::spawn(Listener::open(&socket).unwrap().serve(Arc::clone(&bench.api)));
        Some(Self { bench, program, socket })
    }

    async fn run(&self, args: &[&str]) -> Run {
        let mut command = Command::new(&self.program);
        command.arg(socket_flag(&self.socket)).args(args).kill_on_drop(true);
        let output = tokio::time::timeout(Duration::from_secs(30), command.output()).await;
        let output = output.unwrap_or_else(|_| panic!("{args:?} does not end")).unwrap();
        Run {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs a command that must succeed and print all of `wanted`.
    async fn prints(&self, args: &[&str], wanted: &[&str]) -> String {
        let run = self.run(args).await;
        assert_eq!(run.code, Some(0), "{args:?}: {}{}", run.stdout, run.stderr);
        for text in wanted {
            assert!(run.stdout.contains(text), "{args:?}: {text:?} is missing in {}", run.stdout);
        }
        run.stdout
    }

    /// Runs a command that must fail and say `wanted`.
    async fn fails(&self, args: &[&str], wanted: &str) {
        let run = self.run(args).await;
        assert_eq!(run.code, Some(1), "{args:?}: {}{}", run.stdout, run.stderr);
        let said = run.stdout + &run.stderr;
        assert!(said.contains(wanted), "{args:?}: {wanted:?} is missing in {said}");
    }
}

fn socket_flag(socket: &Path) -> String {
    format!("--socket={}", socket.display())
}

#[tokio::test]
async fn the_official_client_looks_at_a_running_daemon() {
    let Some(cli) = Cli::new("the official client on a running daemon", Bench::running().await) else {
        return;
    };
    cli.prints(&["status"], &["100.64.0.3", "alpha", PEER, "beta"]).await;
    let status: Value = serde_json::from_str(&cli.prints(&["status", "--json"], &[]).await).unwrap();
    assert_eq!(status["BackendState"], "Running");
    cli.prints(&["status", "--peers=false"], &["alpha"]).await;
    cli.prints(&["ip", "-4"], &["100.64.0.3"]).await;
    cli.prints(&["ip", "-4", "beta"], &[PEER]).await;
    cli.prints(&["whois", PEER], &["beta.lab.test"]).await;
    cli.fails(&["whois", "100.64.99.99"], "peer not found").await;
    cli.prints(&["ping", "--c=1", "beta"], &["pong from beta (100.64.0.1) via 192.0.2.8:41641"]).await;
    cli.prints(&["ping", "--c=1", "--tsmp", PEER], &["pong from beta"]).await;
    cli.fails(&["ping", "--c=1", "100.64.99.99"], "no matching peer").await;
    cli.prints(&["dns", "status"], &["MagicDNS", "lab.test"]).await;
    cli.prints(&["dns", "query", "beta.lab.test"], &[PEER]).await;
    cli.prints(&["debug", "prefs"], &["\"WantRunning\": true"]).await;
    cli.prints(&["debug", "netmap"], &["alpha.lab.test."]).await;
    cli.prints(&["debug", "derp-map"], &["\"RegionCode\": \"lab\""]).await;
    cli.prints(&["debug", "restun"], &[]).await;
    cli.prints(&["debug", "rebind"], &[]).await;
    cli.prints(&["debug", "metrics"], &["tsrs_tun_reads 11"]).await;
    cli.prints(&["metrics"], &["tailscaled_home_derp_region_id 999"]).await;
    cli.prints(&["bugreport"], &["BUG-"]).await;
    cli.prints(&["version", "--daemon"], &["Daemon: 0.1.0-tsrs"]).await;
    cli.prints(&["switch", "--list"], &["lab"]).await;
    cli.prints(&["lock", "status"], &["Tailnet Lock is NOT enabled"]).await;
    cli.fails(&["exit-node", "list"], "no exit nodes found").await;
    cli.prints(&["exit-node", "suggest"], &["No exit node suggestion"]).await;
    cli.prints(&["serve", "status"], &["No serve config"]).await;
    cli.fails(&["cert", "alpha.lab.test"], "certificates are not supported").await;
}

#[tokio::test]
async fn the_official_client_changes_settings() {
    let Some(cli) = Cli::new("the official client changes settings", Bench::running().await) else { return };
    cli.prints(&["set", "--hostname=other", "--accept-dns=false"], &[]).await;
    let prefs = cli.bench.backend.snapshot().prefs.clone();
    assert_eq!((prefs.hostname.as_str(), prefs.corp_dns), ("other", false));
    cli.fails(&["set", "--ssh"], "ssh").await;
    cli.fails(&["set", "--advertise-routes=8.8.8.0/24"], "8.8.8.0/24").await;
    cli.prints(&["down"], &[]).await;
    cli.fails(&["status"], "Tailscale is stopped.").await;
    cli.prints(&["up"], &[]).await;
    cli.prints(&["status"], &["beta"]).await;
    cli.prints(&["switch", "--list"], &["*"]).await;
    cli.prints(&["logout"], &[]).await;
    cli.fails(&["status"], "Logged out.").await;
}

#[tokio::test]
async fn the_official_client_logs_in() {
    let Some(cli) = Cli::new("the official client logs in", Bench::new().await) else { return };
    cli.fails(&["status"], "Logged out.").await;
    cli.fails(&["ip"], "no current Tailscale IPs").await;
    let server = "--login-server=https://control.lab.test";
    cli.fails(&["up", server, "--timeout=2s"], "https://control.lab.test/a/1").await;
    let key = format!("--auth-key={}", super::bench::GOOD_KEY);
    // The fake engine has no relay; the agent counts as up a while later all the same.
    cli.prints(&["up", server, "--timeout=20s", &key], &[]).await;
    cli.prints(&["ip", "-4"], &["100.64.0.3"]).await;
}
