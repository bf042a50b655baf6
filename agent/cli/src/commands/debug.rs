//! `debug`: for finding out what is wrong.

use http::Method;
use serde_json::{Value, json};
use tsrs_agent_localapi::WatchMask;
use tsrs_agent_localapi::requests::Reloaded;

use crate::client::Client;
use crate::error::{CliError, Result};
use crate::output;

/// Arguments of `debug`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Sub,
}

#[derive(clap::Subcommand, Debug)]
enum Sub {
    /// Print the prefs as JSON.
    Prefs,
    /// Print the netmap as JSON.
    Netmap,
    /// Print the DERP map as JSON.
    DerpMap,
    /// Print what the daemon tells its watchers.
    WatchIpn {
        /// Begin with the whole state.
        #[arg(long)]
        initial: bool,
        /// End after this many messages; 0 = never.
        #[arg(long, default_value_t = 0)]
        count: u64,
    },
    /// Print the daemon's internal metrics.
    Metrics,
    /// Measure the network again.
    Restun,
    /// Bind the UDP socket again.
    Rebind,
    /// Read the daemon's configuration file again.
    ReloadConfig,
}

pub(crate) async fn run(args: Args, client: &Client) -> Result {
    match args.command {
        Sub::Prefs => output::json(&client.prefs().await?),
        Sub::Netmap => {
            let netmap = client.send(Method::POST, "debug?action=current-netmap", Vec::new()).await?;
            output::json(&serde_json::from_slice::<Value>(&netmap)?)
        }
        Sub::DerpMap => {
            // Scripts look for the regions, also before the first netmap.
            let map = client.get::<Option<Value>>("derpmap").await?;
            output::json(&map.unwrap_or_else(|| json!({ "Regions": null })))
        }
        Sub::Metrics => {
            output::text(client.get_text("metrics").await?);
            Ok(())
        }
        Sub::Restun => action("restun", client).await,
        Sub::Rebind => action("rebind", client).await,
        Sub::ReloadConfig => reload_config(client).await,
        Sub::WatchIpn { initial, count } => watch(initial, count, client).await,
    }
}

async fn action(name: &str, client: &Client) -> Result {
    client.send(Method::POST, &format!("debug?action={name}"), Vec::new()).await?;
    Ok(())
}

async fn reload_config(client: &Client) -> Result {
    let answer = client.send(Method::POST, "reload-config", Vec::new()).await?;
    let answer: Reloaded = serde_json::from_slice(&answer)?;
    match (answer.reloaded, answer.err.as_str()) {
        (true, _) => output::line("config reloaded"),
        (false, "") => {
            return Err(CliError::new("config mode not in use").hint("Start the daemon with --config FILE."));
        }
        (false, error) => return Err(CliError::new(error)),
    }
    Ok(())
}

async fn watch(initial: bool, count: u64, client: &Client) -> Result {
    let whole = WatchMask::INITIAL_STATE
        | WatchMask::INITIAL_PREFS
        | WatchMask::INITIAL_NETMAP
        | WatchMask::INITIAL_HEALTH
        | WatchMask::PEER_CHANGES;
    let mut bus = client.watch(if initial { whole } else { WatchMask::default() }).await?;
    let mut seen = 0;
    while count == 0 || seen < count {
        output::json(&serde_json::from_slice::<Value>(&bus.next_line().await?)?)?;
        seen += 1;
    }
    Ok(())
}
