//! `nc`: standard input and output to a port of a peer, for use as ssh's ProxyCommand.

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tsrs_agent_localapi::requests::dial;

use crate::client::{Client, refusal};
use crate::commands::ping::connected;
use crate::error::{CliError, Result};

/// Arguments of `nc`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Name or address.
    host: String,
    /// TCP port.
    port: u16,
}

pub(crate) async fn run(args: Args, client: &Client) -> Result {
    // Without the tunnel the address would be looked for on the network that this host happens to be in.
    connected(&client.status(false).await?)?;
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("upgrade", dial::UPGRADE.to_owned()),
        ("connection", "upgrade".to_owned()),
        ("dial-host", args.host.clone()),
        ("dial-port", args.port.to_string()),
        ("dial-network", "tcp".to_owned()),
    ] {
        let value =
            HeaderValue::from_str(&value).map_err(|_| CliError::new(format!("{value:?} is no host name")))?;
        headers.insert(HeaderName::from_static(name), value);
    }
    let response = client.exchange(Method::POST, "dial", headers, Vec::new()).await?;
    let status = response.status();
    if status == StatusCode::SWITCHING_PROTOCOLS {
        let upgraded = hyper::upgrade::on(response)
            .await
            .map_err(|error| CliError::new(format!("upgrading: {error}")))?;
        return pump(TokioIo::new(upgraded)).await;
    }
    if response.headers().contains_key(dial::SELF) {
        let address = response.headers().get(dial::ADDR).and_then(|value| value.to_str().ok());
        let address = address.ok_or_else(|| CliError::new("the daemon did not say which address to dial"))?;
        let stream = tokio::net::TcpStream::connect(address).await?;
        return pump(stream).await;
    }
    let body =
        response.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    Err(refusal(status, &body))
}

/// Copies both ways; done when the peer is, since input may never end.
async fn pump(stream: impl AsyncRead + AsyncWrite) -> Result {
    let (mut from_peer, mut to_peer) = tokio::io::split(stream);
    let upload = async {
        let result = tokio::io::copy(&mut tokio::io::stdin(), &mut to_peer).await;
        to_peer.shutdown().await.and(result)
    };
    let download = async {
        let mut out = tokio::io::stdout();
        tokio::io::copy(&mut from_peer, &mut out).await?;
        out.flush().await
    };
    tokio::pin!(upload, download);
    let mut uploaded = false;
    loop {
        tokio::select! {
            done = &mut download => return Ok(done?),
            sent = &mut upload, if !uploaded => {
                sent?;
                uploaded = true;
            }
        }
    }
}
