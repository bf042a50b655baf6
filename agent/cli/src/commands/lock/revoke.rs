//! `lock revoke-keys`: an update that forks the chain from before the keys were trusted. It takes effect once those who sign it outweigh
//! what came after.

use data_encoding::{HEXLOWER_PERMISSIVE, HEXUPPER};
use http::Method;
use tsrs_agent_localapi::lock::RevokeRequest;
use tsrs_agent_localapi::tailcfg::Base64;

use super::{enabled, key};
use crate::client::Client;
use crate::error::{CliError, Result};
use crate::output;

/// Arguments of `lock revoke-keys`.
#[derive(clap::Args, Debug)]
pub(super) struct RevokeArgs {
    /// Add this node's signature to the update that another printed.
    #[arg(long, conflicts_with_all = ["finish", "fork_from"])]
    cosign: bool,
    /// Bring the update that enough have signed to the control server.
    #[arg(long, conflicts_with = "fork_from")]
    finish: bool,
    /// The update to fork from, in base32; found out if it is not given.
    #[arg(long, default_value = "")]
    fork_from: String,
    /// The keys to revoke (tlpub:…), or the hex digits of the update for --cosign and --finish.
    #[arg(required = true)]
    arguments: Vec<String>,
}

pub(super) async fn run(args: RevokeArgs, client: &Client) -> Result {
    enabled(client).await?;
    if args.cosign || args.finish {
        let [update] = args.arguments.as_slice() else {
            return Err(CliError::new("give the hex digits of one update"));
        };
        let update = HEXLOWER_PERMISSIVE.decode(update.as_bytes());
        let update = update.map_err(|_| CliError::new("the update is not written in hex digits"))?;
        if args.finish {
            client.send(Method::POST, "tka/submit-recovery-aum", update).await?;
            output::note("The keys are revoked.");
            return Ok(());
        }
        let signed = client.send(Method::POST, "tka/cosign-recovery-aum", update).await?;
        return show(&signed);
    }
    let keys = args.arguments.iter().map(|text| Ok(Base64(key(text)?.0.as_bytes().to_vec())));
    let request = RevokeRequest { keys: keys.collect::<Result<_>>()?, fork_from: args.fork_from };
    let update = client.post("tka/generate-recovery-aum", &request).await?;
    show(&update)
}

fn show(update: &[u8]) -> Result {
    let digits = HEXUPPER.encode(update);
    output::note("On another node with a trusted key, add its signature with:");
    output::line(format_args!("tsrs-agent lock revoke-keys --cosign {digits}"));
    output::note(
        "When more votes have signed it than the keys to revoke have, bring it to the control server with:",
    );
    output::line(format_args!("tsrs-agent lock revoke-keys --finish {digits}"));
    Ok(())
}
