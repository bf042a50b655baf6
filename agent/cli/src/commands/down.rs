//! `down`: disconnect and stay logged in.

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http_body_util::BodyExt;
use tsrs_agent_localapi::{BackendState, MaskedPrefs};

use crate::client::{Client, refusal};
use crate::commands::ssh_risk;
use crate::error::{CliError, Result};
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
    let response = client
        .exchange(Method::PATCH, "prefs", reason_header(&args.reason)?, serde_json::to_vec(&edit)?)
        .await?;
    let status = response.status();
    let body =
        response.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    if status.is_success() { Ok(()) } else { Err(refusal(status, &body)) }
}

/// The header that carries `--reason`.
pub(crate) fn reason_header(reason: &str) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    if !reason.is_empty() {
        let value = HeaderValue::from_str(&data_encoding::BASE64.encode(reason.as_bytes()))
            .map_err(|error| CliError::new(format!("--reason: {error}")))?;
        headers.insert(HeaderName::from_static("x-tailscale-reason"), value);
    }
    Ok(headers)
}
