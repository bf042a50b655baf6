//! `lock`: Tailnet Lock.

use serde_json::json;
use tsrs_agent_localapi::lock::LockStatus;

use crate::client::Client;
use crate::error::Result;
use crate::output;

/// Arguments of `lock`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Sub>,
}

#[derive(clap::Subcommand, Debug)]
enum Sub {
    /// Show whether the tailnet is locked.
    Status {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(crate) async fn run(args: Args, client: &Client) -> Result {
    let status: LockStatus = client.get("tka/status").await?;
    if let Some(Sub::Status { json: true }) = args.command {
        let mut out = json!({ "SchemaVersion": "1", "Enabled": status.enabled, "PublicKey": status.public_key.cli_text() });
        if let Some(key) = status.node_key {
            out["NodeKey"] = json!(key);
        }
        return output::json(&out);
    }
    output::line(if status.enabled { "Tailnet Lock is ENABLED." } else { "Tailnet Lock is NOT enabled." });
    output::line(format_args!("\nThis node's tailnet-lock key: {}", status.public_key.cli_text()));
    Ok(())
}
