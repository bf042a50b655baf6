//! `logout`: disconnect and expire the node key.

use http::Method;

use crate::client::Client;
use crate::commands::ssh_risk;
use crate::error::Result;

/// Flags of `logout`.
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
    ssh_risk::ask(&status, &args.accept_risk, "logging out")?;
    client.send_with_reason(Method::POST, "logout", &args.reason, Vec::new()).await
}
