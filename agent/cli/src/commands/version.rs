//! `version`: of this program and of the daemon.

use serde_json::json;
use tsrs_agent_localapi::tailcfg::CapabilityVersion;

use crate::client::Client;
use crate::error::Result;
use crate::output;

/// Flags of `version`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Ask the daemon for its version too.
    #[arg(long)]
    pub(crate) daemon: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args, client: &Client) -> Result {
    let own = env!("CARGO_PKG_VERSION");
    let daemon = if args.daemon { Some(client.status(false).await?.version) } else { None };
    if args.json {
        let mut out = json!({ "majorMinorPatch": own, "short": own, "long": own, "cap": CapabilityVersion::CURRENT_NUMBER });
        if let Some(daemon) = daemon {
            out["daemonLong"] = json!(daemon);
        }
        return output::json(&out);
    }
    match daemon {
        None => output::line(own),
        Some(daemon) => {
            output::line(format_args!("Client: {own}"));
            output::line(format_args!("Daemon: {daemon}"));
        }
    }
    Ok(())
}
