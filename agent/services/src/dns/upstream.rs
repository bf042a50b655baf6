//! One attempt to ask an upstream resolver.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::timeout;
use tsrs_platform_api::SocketBinder;
use tsrs_platform_net::{Dial, Net, Scheme, Url, Verify};
use tsrs_tunnel_dns::{LegFailure, LegKind, MAX_RESPONSE_LEN};

use super::ThroughTunnel;

/// The longest wait for an answer by UDP: as long as the whole query may take.
const UDP_LIMIT: Duration = Duration::from_secs(10);
/// The longest wait for an answer by TCP or HTTP.
const TCP_LIMIT: Duration = Duration::from_secs(5);

/// Asks and waits for the answer.
pub(super) async fn ask(
    kind: LegKind,
    message: Vec<u8>,
    net: Net,
    binder: Arc<dyn SocketBinder>,
    through_tunnel: ThroughTunnel,
) -> Result<Vec<u8>, LegFailure> {
    let (limit, asking) = match kind {
        LegKind::Udp(server) => (UDP_LIMIT, by_udp(server, &message, &binder, &through_tunnel).await),
        LegKind::Tcp(server) => {
            let exchange = by_tcp(server, &message, &binder, &through_tunnel);
            (
                TCP_LIMIT,
                timeout(TCP_LIMIT, exchange).await.map_err(|_| io::ErrorKind::TimedOut.into()).flatten(),
            )
        }
        LegKind::Https { url, addresses } => {
            let exchange = by_https(&url, &addresses, message, &net);
            (
                TCP_LIMIT,
                timeout(TCP_LIMIT, exchange).await.map_err(|_| io::ErrorKind::TimedOut.into()).flatten(),
            )
        }
        LegKind::PeerApi(server) => {
            let exchange = by_peer_api(server, message);
            (
                TCP_LIMIT,
                timeout(TCP_LIMIT, exchange).await.map_err(|_| io::ErrorKind::TimedOut.into()).flatten(),
            )
        }
    };
    asking.map_err(|error| {
        tracing::debug!(%error, ?limit, "asking an upstream resolver");
        if error.kind() == io::ErrorKind::TimedOut {
            LegFailure::TimedOut
        } else if error.kind() == io::ErrorKind::InvalidData {
            LegFailure::Garbage
        } else {
            LegFailure::Unreachable
        }
    })
}

/// Marks the socket unless the resolver is reached through the tunnel: then it is asked like any peer.
fn bind_for(
    server: SocketAddr,
    socket: &impl AsFd,
    binder: &Arc<dyn SocketBinder>,
    through_tunnel: &ThroughTunnel,
) -> io::Result<()> {
    match server.ip() {
        IpAddr::V4(ip) if ip.is_loopback() || through_tunnel(ip) => Ok(()),
        IpAddr::V4(_) => binder.mark_bypass(socket.as_fd()),
        IpAddr::V6(_) => Err(io::Error::new(io::ErrorKind::Unsupported, "the underlay is IPv4")),
    }
}

async fn by_udp(
    server: SocketAddr,
    message: &[u8],
    binder: &Arc<dyn SocketBinder>,
    through_tunnel: &ThroughTunnel,
) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    bind_for(server, &socket, binder, through_tunnel)?;
    // Connected: answers of anybody else are not received.
    socket.connect(server).await?;
    socket.send(message).await?;
    let mut answer = vec![0; MAX_RESPONSE_LEN];
    let received = async {
        loop {
            let len = socket.recv(&mut answer).await?;
            // Another id is a late answer to somebody else's port, or forged: the true one may still come.
            if answer.get(..2) == message.get(..2) && len >= 2 {
                return io::Result::Ok(len);
            }
        }
    };
    let len = timeout(UDP_LIMIT, received).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    answer.truncate(len);
    Ok(answer)
}

async fn by_tcp(
    server: SocketAddr,
    message: &[u8],
    binder: &Arc<dyn SocketBinder>,
    through_tunnel: &ThroughTunnel,
) -> io::Result<Vec<u8>> {
    let socket = TcpSocket::new_v4()?;
    bind_for(server, &socket, binder, through_tunnel)?;
    let mut stream = socket.connect(server).await?;
    let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let len = u16::try_from(message.len()).map_err(too_long)?;
    stream.write_all(&[&len.to_be_bytes()[..], message].concat()).await?;
    let len = usize::from(stream.read_u16().await?);
    if len > MAX_RESPONSE_LEN {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "answer is too long"));
    }
    let mut answer = vec![0; len];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

async fn by_https(url: &str, addresses: &[IpAddr], message: Vec<u8>, net: &Net) -> io::Result<Vec<u8>> {
    let url: Url =
        url.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, format!("{error}")))?;
    let v4 = |address: &IpAddr| match address {
        IpAddr::V4(v4) => Some(*v4),
        IpAddr::V6(_) => None,
    };
    let addresses: Vec<Ipv4Addr> = addresses.iter().filter_map(v4).collect();
    let dial =
        Dial { addresses: &addresses, limit: TCP_LIMIT, ..Dial::new(Scheme::Https, &url.host, url.port()) };
    let stream = net.dial(dial).await.map_err(io::Error::other)?;
    let stream = net.tls(stream, &url.host, Verify::Normal).await.map_err(io::Error::other)?;
    post(stream, &url.authority(), &url.path, message).await
}

/// Through the tunnel, so without a mark.
async fn by_peer_api(server: SocketAddr, message: Vec<u8>) -> io::Result<Vec<u8>> {
    let stream = TcpSocket::new_v4()?.connect(server).await?;
    post(stream, &server.to_string(), "/dns-query", message).await
}

/// DNS over HTTP (RFC 8484 §4.1).
async fn post(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &str,
    path: &str,
    message: Vec<u8>,
) -> io::Result<Vec<u8>> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let driving = AbortOnDrop(tokio::spawn(connection).abort_handle());
    let request = http::Request::post(path)
        .header(http::header::HOST, host)
        .header(http::header::CONTENT_TYPE, "application/dns-message")
        .header(http::header::ACCEPT, "application/dns-message")
        .body(Full::new(Bytes::from(message)))
        .map_err(io::Error::other)?;
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    if response.status() != http::StatusCode::OK {
        return Err(io::Error::other(format!("the resolver answers {}", response.status())));
    }
    let body = Limited::new(response.into_body(), MAX_RESPONSE_LEN).collect().await;
    drop(driving);
    let body = body.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(body.to_bytes().to_vec())
}

/// Ends the task that drives a connection together with the attempt.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
