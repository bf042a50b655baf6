//! `netcheck`: how this host reaches the network.
//!
//! The official client measures in its own process. Here the daemon does, from the very socket that carries the tunnel, so
//! that the report says what the tunnel sees; the shape of the report is the official one.

use std::collections::BTreeMap;

use clap::ValueEnum;
use http::Method;
use serde::Deserialize;
use serde_json::Value;

use crate::client::Client;
use crate::error::Result;
use crate::output;

/// Flags of `netcheck`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Output format.
    #[arg(long, value_enum, default_value_t = Format::Text, hide_default_value = true)]
    format: Format,
    /// Print JSON; the same as --format=json.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    #[value(name = "text", alias = "")]
    Text,
    Json,
    JsonLine,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct Region {
    region_code: String,
    region_name: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct Map {
    regions: BTreeMap<i64, Option<Region>>,
}

pub(crate) async fn run(args: Args, client: &Client) -> Result {
    let report: Value = serde_json::from_slice(&client.send(Method::POST, "netcheck", Vec::new()).await?)?;
    if args.json || args.format == Format::Json {
        return output::json(&report);
    }
    if args.format == Format::JsonLine {
        output::line(report);
        return Ok(());
    }
    let map: Option<Map> = client.get("derpmap").await?;
    text(&report, &map.unwrap_or_default());
    Ok(())
}

fn text(report: &Value, map: &Map) {
    let word = |key: &str| match &report[key] {
        Value::Bool(value) => value.to_string(),
        Value::String(text) => text.clone(),
        Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_) => String::new(),
    };
    let name = |id: i64| {
        let region = map.regions.get(&id).and_then(Option::as_ref);
        region.map_or_else(|| format!("region {id}"), |region| region.region_name.clone())
    };
    output::line("\nReport:");
    output::line(format_args!("\t* Time: {}", word("Now")));
    output::line(format_args!("\t* UDP: {}", word("UDP")));
    output::line(format_args!(
        "\t* IPv4: {}",
        match word("GlobalV4").as_str() {
            "" => "no address found".to_owned(),
            address => format!("yes, {address}"),
        }
    ));
    output::line("\t* IPv6: not used");
    output::line(format_args!("\t* MappingVariesByDestIP: {}", word("MappingVariesByDestIP")));
    let mappers: Vec<&str> =
        ["UPnP", "PMP", "PCP"].into_iter().filter(|kind| report[*kind] == true).collect();
    output::line(format_args!("\t* PortMapping: {}", mappers.join(", ")));
    match report["PreferredDERP"].as_i64() {
        Some(home) if home != 0 => output::line(format_args!("\t* Nearest DERP: {}", name(home))),
        _ => output::line("\t* Nearest DERP: unknown (no response to latency probes)"),
    }
    let mut latencies: Vec<(u64, i64)> = report["RegionLatency"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(id, nanos)| Some((nanos.as_u64()?, id.parse().ok()?)))
        .collect();
    latencies.sort_unstable();
    if !latencies.is_empty() {
        output::line("\t* DERP latency:");
    }
    for (nanos, id) in latencies {
        let region = map.regions.get(&id).and_then(Option::as_ref);
        let code = region.map_or_else(|| id.to_string(), |region| region.region_code.clone());
        let micros = nanos / 1000;
        let latency = if micros < 1000 {
            format!("{micros}µs")
        } else {
            format!("{}.{}ms", micros / 1000, micros % 1000 / 100)
        };
        output::line(format_args!("\t\t- {code}: {latency:<7} ({})", name(id)));
    }
}
