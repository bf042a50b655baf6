//! `whois`: who is behind an address.

use tsrs_agent_localapi::WhoIs;

use crate::client::Client;
use crate::error::{CliError, Result};
use crate::output;

/// Arguments of `whois`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Address, with or without a port.
    address: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Protocol that the port belongs to: tcp or udp.
    #[arg(long, default_value = "")]
    proto: String,
}

pub(crate) async fn run(args: Args, client: &Client) -> Result {
    let path = format!("whois?proto={}&addr={}", args.proto, args.address);
    let (status, body) = client.request(http::Method::GET, &path, Vec::new()).await?;
    if status == http::StatusCode::NOT_FOUND {
        return Err(CliError::new(format!("no node of the tailnet has the address {}", args.address)));
    }
    if !status.is_success() {
        return Err(crate::client::refusal(status, &body));
    }
    let who: WhoIs = serde_json::from_slice(&body)?;
    if args.json {
        return output::json(&who);
    }
    let node = who.node.unwrap_or_default();
    output::line("Machine:");
    output::line(format_args!("  Name:          {}", node.name.trim_end_matches('.')));
    output::line(format_args!("  ID:            {}", node.stable_id));
    output::line(format_args!("  Addresses:     [{}]", joined(node.addresses.iter(), " ")));
    let tags = joined(node.tags.iter(), ", ");
    if !tags.is_empty() {
        output::line(format_args!("  Tags:          {tags}"));
    } else if let Some(user) = who.user_profile {
        output::line("User:");
        output::line(format_args!("  Name:     {}", user.login_name));
        output::line(format_args!("  ID:       {}", user.id));
    }
    if let Some(caps) = who.cap_map.filter(|caps| !caps.is_empty()) {
        output::line("Capabilities:");
        for (name, values) in caps.iter() {
            if values.is_empty() {
                output::line(format_args!("  - {name}"));
            } else {
                output::line(format_args!("  - {name}: {}", serde_json::to_string(values)?));
            }
        }
    }
    Ok(())
}

fn joined<T: ToString>(items: impl Iterator<Item = T>, between: &str) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join(between)
}
