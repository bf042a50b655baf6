//! Proxies that the environment asks for, between the agent and its servers.

pub(crate) mod env;
pub(crate) mod tunnel;

use crate::error::NetError;
use crate::stream::Stream;

/// Asks the HTTP proxy at the other end of `stream` for a stream to another host, without credentials. `proxy` names
/// it in errors.
pub async fn connect_tunnel(stream: Stream, proxy: &str, host: &str, port: u16) -> Result<Stream, NetError> {
    let tunnel = tunnel::http_connect(stream, host, port, None).await;
    tunnel.map_err(|error| NetError::Proxy { proxy: proxy.to_owned(), error })
}
