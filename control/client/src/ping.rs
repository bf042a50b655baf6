//! Requests of the server to prove something (control protocol sheet §18).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use tsrs_control_tailcfg::{PingRequest, PingResponse};
use tsrs_platform_net::{HttpRequest, Url};

use crate::c2n::{C2nHandler, C2nRequest, C2nResponse};
use crate::calls::{json, within};
use crate::connection::Connector;
use crate::error::Error;

/// Time for a HEAD request, and for the answer to a ping.
const HEAD_LIMIT: Duration = Duration::from_secs(15);
/// Time for the answer to a c2n request.
const C2N_LIMIT: Duration = Duration::from_secs(60);

/// What a ping request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// A HEAD request to the URL.
    Head,
    /// An answer to the HTTP request inside.
    C2n,
    /// A ping to a peer, which the owner makes.
    Peer,
}

pub(crate) fn wanted(ping: &PingRequest) -> Wanted {
    match ping.types.as_str() {
        "" => Wanted::Head,
        "c2n" => Wanted::C2n,
        _ => Wanted::Peer,
    }
}

/// Does what the server asks, unless that is for the owner to do.
pub(crate) async fn answer(
    connector: &Connector,
    c2n: &Arc<dyn C2nHandler>,
    ping: &PingRequest,
) -> Result<(), Error> {
    match wanted(ping) {
        Wanted::Head if ping.url_is_noise => {
            over_noise(connector, "answering a ping", HEAD_LIMIT, Method::HEAD, &ping.url, Bytes::new()).await
        }
        Wanted::Head => {
            let url = parse(&ping.url)?;
            let request = HttpRequest { limit: HEAD_LIMIT, ..HttpRequest::head(url) };
            connector.net().http(&request).await?;
            Ok(())
        }
        Wanted::C2n => {
            let response = match C2nRequest::parse(&ping.payload.0) {
                Ok(request) => c2n.answer(&request),
                Err(reason) => C2nResponse::text(400, reason),
            };
            // The answer goes over Noise whatever the request says: it may be about this host.
            let body = Bytes::from(response.to_bytes());
            over_noise(connector, "answering a c2n request", C2N_LIMIT, Method::POST, &ping.url, body).await
        }
        Wanted::Peer => Ok(()),
    }
}

/// Sends the result of a ping to a peer to where the server asked for it.
pub(crate) async fn respond(
    connector: &Connector,
    ping: &PingRequest,
    response: &PingResponse,
) -> Result<(), Error> {
    let body = json(response)?;
    over_noise(connector, "answering a ping", HEAD_LIMIT, Method::POST, &ping.url, body).await
}

/// The host in the URL means nothing: the connection leads to the server.
async fn over_noise(
    connector: &Connector,
    what: &'static str,
    limit: Duration,
    method: Method,
    url: &str,
    body: Bytes,
) -> Result<(), Error> {
    let request = Request::builder()
        .method(method)
        .uri(parse(url)?.path)
        .body(Full::new(body))
        .map_err(|error| Error::Request(error.to_string()))?;
    let response = within(what, limit, connector.send(request)).await?;
    match response.status() {
        status if status.is_success() => Ok(()),
        status => Err(Error::Status { what, status: status.as_u16(), text: String::new() }),
    }
}

fn parse(url: &str) -> Result<Url, Error> {
    url.parse()
        .map_err(|error| Error::Request(format!("the server asks for an answer to a bad URL: {error}")))
}
