//! From a node of the DERP map to a connection that speaks DERP.

use std::time::Duration;

use tokio::time::timeout;
use tsrs_platform_net::{Dial, Net, NetError, Scheme, TlsConnection, Verify};
use tsrs_tunnel_derp::{Node, NodeAddress, Start, TlsPolicy};

/// How long one node may take until TLS stands (data-plane sheet §4.1). Longer than for a dial alone, since names and
/// proxies are in it.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Opens TCP and TLS; also says how the conversation begins.
pub(crate) async fn connect(net: &Net, node: &Node) -> Result<(TlsConnection, Start), NetError> {
    let literal;
    let addresses: &[_] = match node.ipv4 {
        NodeAddress::Literal(ip) => {
            literal = [ip];
            &literal
        }
        NodeAddress::Dns | NodeAddress::Disabled => &[],
    };
    let dial = Dial { addresses, ..Dial::new(Scheme::Https, &node.host_name, node.port) };
    let all = async {
        let stream = net.dial(dial).await?;
        net.tls(stream, &node.host_name, verify(&node.tls)).await
    };
    let connection = timeout(CONNECT_LIMIT, all).await.unwrap_or_else(|_| {
        Err(NetError::Timeout {
            what: format!("connecting to relay {}", node.host_name),
            after: CONNECT_LIMIT,
        })
    })?;
    let start =
        connection.derp_certificate().map_or(Start::Normal, |certificate| Start::Fast(certificate.key));
    Ok((connection, start))
}

fn verify(policy: &TlsPolicy) -> Verify {
    match policy {
        TlsPolicy::Normal => Verify::Normal,
        TlsPolicy::Name(name) => Verify::Name(name.clone()),
        TlsPolicy::Sha256Raw(pin) => Verify::Pin(*pin),
        TlsPolicy::InsecureForTests => Verify::InsecureForTests,
    }
}
