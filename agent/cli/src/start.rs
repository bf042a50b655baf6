//! `up` on a host where no daemon runs: the installed service is started, otherwise a daemon in the background.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::client::Client;
use crate::error::{CliError, Result};
use crate::output;

/// Unit that the package installs.
const SERVICE: &str = "tsrs-agent.service";
/// How long the socket may take to appear; the daemon opens it before any login.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How often the socket is tried: there is nothing to wait on before it exists.
const TRY_EVERY: Duration = Duration::from_millis(50);

/// Makes sure that a daemon answers, and says what it did.
pub(crate) async fn ensure_daemon(client: &Client) -> Result {
    if client.is_there().await {
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(CliError::new("no daemon runs, and starting one needs root").denied());
    }
    let default = client.socket() == Path::new(crate::DEFAULT_SOCKET);
    if default && service_installed() {
        output::note(format_args!("No daemon runs: starting {SERVICE}."));
        let status = Command::new("systemctl").args(["start", SERVICE]).status()?;
        if !status.success() {
            return Err(CliError::new(format!("{SERVICE} did not start"))
                .hint(format!("See `journalctl -u {SERVICE}`.")));
        }
    } else {
        spawn(client.socket())?;
    }
    wait_for_socket(client).await
}

fn service_installed() -> bool {
    let booted = Path::new("/run/systemd/system").is_dir();
    booted
        && ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"]
            .iter()
            .any(|folder| Path::new(folder).join(SERVICE).exists())
}

fn spawn(socket: &Path) -> Result {
    let program = std::env::current_exe()?;
    let log_path = Path::new("/var/log/tsrs-agent.log");
    let log = std::fs::OpenOptions::new().create(true).append(true).open(log_path);
    let log = log.map_err(|error| CliError::new(format!("opening {}: {error}", log_path.display())))?;
    let mut command = Command::new(program);
    command.arg("daemon").arg("--socket").arg(socket);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // A process group of its own, so that Ctrl-C at `up` does not reach the daemon.
    command.process_group(0);
    let child = command.spawn()?;
    output::note(format_args!(
        "No daemon runs and no service is installed: started one in the background (process {}, log {}).",
        child.id(),
        log_path.display()
    ));
    Ok(())
}

async fn wait_for_socket(client: &Client) -> Result {
    let appears = async {
        while !client.is_there().await {
            tokio::time::sleep(TRY_EVERY).await;
        }
    };
    tokio::time::timeout(START_LIMIT, appears).await.map_err(|_| {
        CliError::new(format!("the daemon did not open {} within {START_LIMIT:?}", client.socket().display()))
            .hint("See /var/log/tsrs-agent.log, or run `tsrs-agent daemon` in a terminal.")
    })
}
