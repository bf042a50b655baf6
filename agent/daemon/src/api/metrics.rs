//! Metrics: those that dashboards know (client sheet §2.6), and all that is counted.

use std::fmt::Write as _;

use http::StatusCode;
use http::header::HeaderValue;
use tsrs_agent_core::agent::Snapshot;

use super::{Answer, Api};
use crate::tunnel::{DirectionMetrics, TunnelMetrics};

/// Text format of Prometheus.
const USER_TYPE: HeaderValue = HeaderValue::from_static("text/plain;version=0.0.4;charset=utf-8");
/// What the official daemon says of the same format here.
const DEBUG_TYPE: HeaderValue = HeaderValue::from_static("text/plain");

impl Api {
    pub(super) async fn user_metrics(&self) -> Answer {
        let home = self.tunnel.live().await.home_derp.map_or(0, |region| region.0);
        let text = user_metrics(&self.backend.snapshot(), &self.tunnel.metrics(), home);
        Answer::with_body(StatusCode::OK, USER_TYPE, text.into_bytes())
    }

    pub(super) fn debug_metrics(&self) -> Answer {
        let mut text = String::new();
        for (name, value) in self.tunnel.metrics().detail {
            metric(&mut text, "counter", &format!("tsrs_{name}"), "", &[("", value)]);
        }
        Answer::with_body(StatusCode::OK, DEBUG_TYPE, text.into_bytes())
    }
}

/// One metric with its samples, each with its label in braces.
fn metric(out: &mut String, kind: &str, name: &str, help: &str, samples: &[(&str, u64)]) {
    // Writing to a text does not fail.
    let _ = writeln!(out, "# TYPE {name} {kind}");
    if !help.is_empty() {
        let _ = writeln!(out, "# HELP {name} {help}");
    }
    for (label, value) in samples {
        let _ = writeln!(out, "{name}{label} {value}");
    }
}

pub(super) fn user_metrics(snapshot: &Snapshot, tunnel: &TunnelMetrics, home: i64) -> String {
    let mut out = String::new();
    let count = |len: usize| u64::try_from(len).unwrap_or(u64::MAX);
    let approved = snapshot.netmap.as_ref().map_or(0, |netmap| {
        let node = netmap.self_node();
        node.routes().iter().filter(|net| !node.addresses.contains(net)).count()
    });
    let advertised = [("", count(snapshot.advertised_route_count))];
    let help = "Number of advertised network routes (e.g. by a subnet router)";
    metric(&mut out, "gauge", "tailscaled_advertised_routes", help, &advertised);
    let help = "Number of approved network routes (e.g. by a subnet router)";
    metric(&mut out, "gauge", "tailscaled_approved_routes", help, &[("", count(approved))]);
    let help = "Number of health messages broken down by type.";
    let warnings = [("{type=\"warning\"}", count(snapshot.health_texts.len()))];
    metric(&mut out, "gauge", "tailscaled_health_messages", help, &warnings);
    let help = "DERP region ID of this node's home relay server";
    let home = [("", u64::try_from(home).unwrap_or_default())];
    metric(&mut out, "gauge", "tailscaled_home_derp_region_id", help, &home);
    direction(
        &mut out,
        "inbound",
        ["received from", "dropped packets received by the node from"],
        &tunnel.inbound,
    );
    direction(&mut out, "outbound", ["sent to", "packets dropped while being sent to"], &tunnel.outbound);
    out
}

fn direction(out: &mut String, word: &str, [what, dropped]: [&str; 2], metrics: &DirectionMetrics) {
    let by_path = |direct, derp| {
        [
            ("{path=\"derp\"}", derp),
            ("{path=\"direct_ipv4\"}", direct),
            ("{path=\"direct_ipv6\"}", 0),
            ("{path=\"peer_relay_ipv4\"}", 0),
            ("{path=\"peer_relay_ipv6\"}", 0),
        ]
    };
    let name = format!("tailscaled_{word}_bytes_total");
    let help = format!("Counts the number of bytes {what} other peers");
    metric(out, "counter", &name, &help, &by_path(metrics.direct_bytes, metrics.derp_bytes));
    let name = format!("tailscaled_{word}_dropped_packets_total");
    let help = format!("Counts the number of {dropped} other peers");
    let labels: Vec<(String, u64)> =
        metrics.drops.iter().map(|(reason, count)| (format!("{{reason=\"{reason}\"}}"), *count)).collect();
    let samples: Vec<(&str, u64)> = labels.iter().map(|(label, count)| (label.as_str(), *count)).collect();
    metric(out, "counter", &name, &help, &samples);
    let name = format!("tailscaled_{word}_packets_total");
    let help = format!("Counts the number of packets {what} other peers");
    metric(out, "counter", &name, &help, &by_path(metrics.direct_packets, metrics.derp_packets));
}
