//! What path finding asks of the network: names, and round trips over HTTPS.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tsrs_base_types::RegionId;
use tsrs_platform_net::{Net, read_response_head};
use tsrs_tunnel_derp::{Node, Region};

use super::relays::connect;

/// Limit for one round trip (data-plane sheet §5.2).
const HTTPS_LIMIT: Duration = Duration::from_secs(5);

/// An answer for path finding.
#[derive(Debug)]
pub(super) enum Answer {
    Resolved { host: String, addresses: Vec<Ipv4Addr> },
    Https { region: RegionId, latency: Option<Duration> },
}

/// Questions under way.
pub(super) struct Questions {
    net: Net,
    tasks: JoinSet<Answer>,
}

impl Questions {
    pub(super) fn new(net: Net) -> Self {
        Self { net, tasks: JoinSet::new() }
    }

    /// Looks a name up.
    pub(super) fn resolve(&mut self, host: String) {
        let net = self.net.clone();
        self.tasks.spawn(async move {
            let addresses = net.resolve(&host).await.unwrap_or_else(|error| {
                tracing::debug!(%error, "cannot look up a relay");
                Vec::new()
            });
            Answer::Resolved { host, addresses }
        });
    }

    /// Measures the round trip to a region.
    pub(super) fn measure_https(&mut self, id: RegionId, region: Option<Arc<Region>>) {
        let net = self.net.clone();
        self.tasks.spawn(async move {
            let node = region.as_ref().and_then(|region| region.nodes.iter().find(|node| node.is_dialable()));
            let latency = match node {
                Some(node) => timeout(HTTPS_LIMIT, round_trip(&net, node)).await.ok().flatten(),
                None => None,
            };
            Answer::Https { region: id, latency }
        });
    }

    /// The next answer; never comes while nothing is asked.
    pub(super) async fn next(&mut self) -> Answer {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(answer)) => return answer,
                Some(Err(error)) => tracing::error!(%error, "a question was not answered"),
                None => std::future::pending().await,
            }
        }
    }
}

/// From the request to the head of the answer, on a connection that stands.
async fn round_trip(net: &Net, node: &Node) -> Option<Duration> {
    let (mut stream, _) = connect(net, node).await.ok()?;
    let request = format!(
        "GET /derp/latency-check HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        node.http_host()
    );
    let start = Instant::now();
    stream.write_all(request.as_bytes()).await.ok()?;
    stream.flush().await.ok()?;
    let (head, _) = read_response_head(&mut stream).await.ok()?;
    let latency = start.elapsed();
    (200..300).contains(&head.status).then_some(latency)
}
