//! `down`: disconnect and stay logged in.

use http::Method;
use tsrs_agent_localapi::{BackendState, MaskedPrefs};

use crate::client::Client;
use crate::commands::ssh_risk;
use crate::error::Result;
use crate::output;

/// Flags of `down`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Why, for the audit log of the control server.
    #[arg(long, default_value = "")]
    reason: String,
    /// Accept a risk without being asked: lose-ssh or all.
    #[arg(long, default_value = "")]
    accept_risk: String,
}

pub(crate) async fn run(args: Args, client: &Client) -> Result {
    let status = client.status(true).await?;
    if status.backend_state == BackendState::Stopped {
        output::note("The tailnet was already disconnected.");
        return Ok(());
    }
    ssh_risk::ask(&status, &args.accept_risk, "disconnecting")?;
    let mut edit = MaskedPrefs::default();
    edit.mask.want_running = true;
    client.send_with_reason(Method::PATCH, "prefs", &args.reason, serde_json::to_vec(&edit)?).await
}
