//! A relay for UDP at a SOCKS5 proxy (RFC 1928 §7).

use std::io;
use std::net::SocketAddrV4;

use tokio::io::AsyncReadExt as _;
use tokio::sync::watch;
use tsrs_platform_api::ExitBinder;

use super::error::{DialError, ProxyFailure};
use super::socket::{RelaySocket, SocketError, connect_udp};
use super::stream::ProxyStream;
use crate::policy::Destination;
use crate::proxy::{ProxyUrl, UDP_HEADER_LEN, UdpHeaderError, split_udp, udp_header};

/// Longest payload of a datagram: what fits into one of the relay with its header (RFC 768, RFC 791).
pub const MAX_DATAGRAM_LEN: usize = 65_507 - UDP_HEADER_LEN;

/// Why an association is over.
#[derive(Debug, thiserror::Error)]
pub enum AssociationError {
    /// The connection that holds it ended.
    #[error("the proxy ended it")]
    Ended,
    /// The proxy is no longer set.
    #[error("the proxy is no longer set")]
    Retired,
    /// The socket failed; most often the relay is not there.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A datagram of the relay.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// From a host of the internet, as the proxy says. The caller drops those of hosts that were sent nothing.
    Datagram {
        /// Who sent it.
        sender: SocketAddrV4,
        /// What it says.
        payload: &'a [u8],
    },
    /// With a header that is none. It is dropped.
    Bad(UdpHeaderError),
}

/// A relay for UDP. It lives as long as its TCP connection to the proxy.
pub struct Association {
    control: ProxyStream,
    socket: RelaySocket,
    proxy: ProxyUrl,
    retired: watch::Receiver<bool>,
    out: Vec<u8>,
}

impl Association {
    pub(super) fn open(
        binder: &dyn ExitBinder,
        control: ProxyStream,
        relay: SocketAddrV4,
        proxy: ProxyUrl,
        retired: watch::Receiver<bool>,
    ) -> Result<Self, DialError> {
        match connect_udp(binder, relay) {
            Ok(socket) => Ok(Self { control, socket, proxy, retired, out: Vec::new() }),
            Err(SocketError::Mark(error)) => Err(DialError::Mark(error.to_string())),
            Err(SocketError::Io(error)) => {
                Err(DialError::Proxies(vec![(proxy, ProxyFailure::Unreachable(error.to_string()))]))
            }
        }
    }

    /// The proxy.
    pub const fn proxy(&self) -> &ProxyUrl {
        &self.proxy
    }

    /// Sends a datagram. One that is longer than [`MAX_DATAGRAM_LEN`] is refused.
    pub async fn send(&mut self, destination: Destination, payload: &[u8]) -> io::Result<()> {
        if payload.len() > MAX_DATAGRAM_LEN {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.out.clear();
        self.out.extend_from_slice(&udp_header(destination));
        self.out.extend_from_slice(payload);
        self.socket.send(&self.out).await
    }

    /// Waits for a datagram, or for the end. Can be dropped and called again without losing a datagram.
    pub async fn recv<'a>(&mut self, buffer: &'a mut [u8]) -> Result<Received<'a>, AssociationError> {
        let mut unexpected = [0; 64];
        let Self { control, socket, retired, .. } = self;
        let len = loop {
            tokio::select! {
                received = socket.recv(buffer) => break received?,
                // A proxy has nothing more to say here; what it says all the same is thrown away, a little at a time.
                read = control.read(&mut unexpected) => match read {
                    Ok(0) | Err(_) => return Err(AssociationError::Ended),
                    Ok(_) => {}
                },
                _ = retired.wait_for(|retired| *retired) => return Err(AssociationError::Retired),
            }
        };
        Ok(match split_udp(&buffer[..len]) {
            Ok((sender, payload)) => Received::Datagram { sender, payload },
            Err(error) => Received::Bad(error),
        })
    }
}
