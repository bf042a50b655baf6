//! `dns`: settings and queries.

use std::collections::BTreeMap;

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use tsrs_agent_localapi::Status;
use tsrs_agent_localapi::requests::{DnsOsConfig, DnsQueryAnswer, ResolverAddr};

use crate::client::Client;
use crate::error::{CliError, Result};
use crate::output;

pub(crate) mod message;

/// Arguments of `dns`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Sub,
}

#[derive(clap::Subcommand, Debug)]
enum Sub {
    /// Show the DNS settings of tailnet and host.
    Status {
        /// Show everything.
        #[arg(long)]
        all: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Ask the agent's resolver.
    Query {
        /// Name to look up.
        name: String,
        /// Record type.
        #[arg(default_value = "A")]
        record_type: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// The parts of the tailnet's DNS settings that are shown.
#[derive(Deserialize, Default, Debug)]
#[serde(default)]
struct DnsConfig {
    #[serde(rename = "Resolvers")]
    resolvers: Option<Vec<ResolverAddr>>,
    #[serde(rename = "Routes")]
    routes: Option<BTreeMap<String, Option<Vec<ResolverAddr>>>>,
    #[serde(rename = "FallbackResolvers")]
    fallback_resolvers: Option<Vec<ResolverAddr>>,
    #[serde(rename = "Domains")]
    domains: Option<Vec<String>>,
    #[serde(rename = "CertDomains")]
    cert_domains: Option<Vec<String>>,
    #[serde(rename = "ExtraRecords")]
    extra_records: Option<Vec<Value>>,
}

pub(crate) async fn run(args: Args, client: &Client) -> Result {
    match args.command {
        Sub::Status { all, json } => status(all, json, client).await,
        Sub::Query { name, record_type, json } => query(&name, &record_type, json, client).await,
    }
}

async fn status(all: bool, as_json: bool, client: &Client) -> Result {
    let status = client.status(false).await?;
    let prefs = client.prefs().await?;
    let config: DnsConfig = match &status.current_tailnet {
        Some(_) => client.get("dns-config").await?,
        None => DnsConfig::default(),
    };
    let system: Result<DnsOsConfig> = client.get("dns-osconfig").await;
    if as_json {
        return status_json(&status, prefs.corp_dns, config, system);
    }
    output::line("\n=== Tailnet DNS ===\n");
    if prefs.corp_dns {
        output::line("Tailnet DNS: enabled. The agent answers DNS queries of this host.");
        output::line("Run 'tsrs-agent set --accept-dns=false' to go back to the host's own resolver.");
    } else {
        output::line("Tailnet DNS: disabled. The host's own resolver is used.");
        output::line("Run 'tsrs-agent set --accept-dns=true' to use the tailnet's settings.");
    }
    match &status.current_tailnet {
        Some(tailnet) if tailnet.magic_dns_enabled => {
            output::line(format_args!(
                "\nMagicDNS: enabled tailnet-wide (suffix = {})",
                tailnet.magic_dns_suffix
            ));
            if let Some(node) = &status.self_node {
                output::line(format_args!("This device is {}.", node.dns_name.trim_end_matches('.')));
            }
        }
        Some(_) => output::line("\nMagicDNS: disabled tailnet-wide."),
        None => output::line("\nNo tailnet: log in first."),
    }
    list("Resolvers (in order of preference)", &addresses(config.resolvers), "none; the host's own are used");
    let routes = config.routes.unwrap_or_default().into_iter().map(|(suffix, resolvers)| {
        let resolvers = addresses(resolvers);
        let to = if resolvers.is_empty() { "answered by the agent".to_owned() } else { resolvers.join(", ") };
        format!("{suffix} -> {to}")
    });
    list("Split DNS routes", &routes.collect::<Vec<_>>(), "none");
    list("Search domains", &config.domains.unwrap_or_default(), "none");
    if all {
        list("Fallback resolvers", &addresses(config.fallback_resolvers), "none");
        list("Certificate domains", &config.cert_domains.unwrap_or_default(), "none");
        let records = config.extra_records.unwrap_or_default();
        list("Extra records", &records.iter().map(ToString::to_string).collect::<Vec<_>>(), "none");
    }
    output::line("\n=== DNS of this host ===");
    match system {
        Ok(system) => {
            list("Name servers", &system.nameservers, "none");
            list("Search domains", &system.search_domains, "none");
            if !system.match_domains.is_empty() {
                list("Match domains", &system.match_domains, "none");
            }
        }
        Err(error) => output::line(format_args!("\n(not available: {error})")),
    }
    Ok(())
}

fn status_json(status: &Status, corp_dns: bool, config: DnsConfig, system: Result<DnsOsConfig>) -> Result {
    let mut out = json!({ "TailscaleDNS": corp_dns });
    let mut put = |key: &str, value: Value| {
        if !value.is_null() {
            out[key] = value;
        }
    };
    if let Some(tailnet) = &status.current_tailnet {
        put(
            "CurrentTailnet",
            json!({
                "MagicDNSEnabled": tailnet.magic_dns_enabled,
                "MagicDNSSuffix": tailnet.magic_dns_suffix,
                "SelfDNSName": status.self_node.as_ref().map(|node| node.dns_name.clone()).unwrap_or_default(),
            }),
        );
    }
    put("Resolvers", serde_json::to_value(config.resolvers)?);
    // A suffix without resolvers is the agent's own business; the official client leaves it out.
    let split = config
        .routes
        .unwrap_or_default()
        .into_iter()
        .filter(|(_, to)| to.as_ref().is_some_and(|to| !to.is_empty()));
    if status.current_tailnet.is_some() {
        put("SplitDNSRoutes", serde_json::to_value(split.collect::<BTreeMap<_, _>>())?);
    }
    put("FallbackResolvers", serde_json::to_value(config.fallback_resolvers)?);
    put("SearchDomains", serde_json::to_value(config.domains)?);
    put("CertDomains", serde_json::to_value(config.cert_domains)?);
    put("ExtraRecords", serde_json::to_value(config.extra_records)?);
    match system {
        Ok(system) => put("SystemDNS", serde_json::to_value(system)?),
        Err(error) => put("SystemDNSError", Value::String(error.to_string())),
    }
    output::json(&out)
}

fn addresses(resolvers: Option<Vec<ResolverAddr>>) -> Vec<String> {
    resolvers.unwrap_or_default().into_iter().map(|resolver| resolver.addr).collect()
}

fn list(title: &str, items: &[String], empty: &str) {
    output::line(format_args!("\n{title}:"));
    if items.is_empty() {
        output::line(format_args!("  ({empty})"));
    }
    for item in items {
        output::line(format_args!("  - {item}"));
    }
}

async fn query(name: &str, record_type: &str, as_json: bool, client: &Client) -> Result {
    let path = format!("dns-query?name={name}&type={record_type}");
    let answer: DnsQueryAnswer = serde_json::from_slice(&client.send(Method::GET, &path, Vec::new()).await?)?;
    let bytes = data_encoding::BASE64
        .decode(answer.bytes.as_bytes())
        .map_err(|_| CliError::new("the daemon's answer is not base64"))?;
    let parsed = message::parse(&bytes).ok_or_else(|| CliError::new("the answer is no DNS message"))?;
    if as_json {
        let mut out = json!({ "Name": name, "QueryType": record_type, "ResponseCode": parsed.code_text() });
        if !answer.resolvers.is_empty() {
            out["Resolvers"] = serde_json::to_value(&answer.resolvers)?;
        }
        if !parsed.answers.is_empty() {
            let rows = parsed.answers.iter().map(|record| json!({
                "Name": record.name, "TTL": record.ttl_secs, "Class": record.class_text(), "Type": record.type_text(), "Body": record.body,
            }));
            out["Answers"] = Value::Array(rows.collect());
        }
        return output::json(&out);
    }
    output::line(format_args!("DNS query for {name:?} ({record_type}) by the agent's resolver:"));
    if !answer.resolvers.is_empty() {
        list(
            "Forwarded to",
            &answer.resolvers.iter().map(|resolver| resolver.addr.clone()).collect::<Vec<_>>(),
            "",
        );
    }
    output::line(format_args!("\nResponse code: {}\n", parsed.code_text()));
    let mut rows = vec![["Name", "TTL", "Class", "Type", "Body"].map(str::to_owned).to_vec()];
    for record in &parsed.answers {
        rows.push(vec![
            record.name.clone(),
            record.ttl_secs.to_string(),
            record.class_text().to_owned(),
            record.type_text(),
            record.body.clone(),
        ]);
    }
    if rows.len() == 1 {
        output::line("No answers found.");
    } else {
        output::table(&rows);
    }
    Ok(())
}
