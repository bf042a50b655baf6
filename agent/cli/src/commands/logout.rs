//! `logout`: disconnect and expire the node key.

use http::Method;
use http_body_util::BodyExt;

use crate::client::{Client, refusal};
use crate::commands::down::reason_header;
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
    let response = client.exchange(Method::POST, "logout", reason_header(&args.reason)?, Vec::new()).await?;
    let status = response.status();
    let body =
        response.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    if status.is_success() { Ok(()) } else { Err(refusal(status, &body)) }
}
