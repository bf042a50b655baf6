//! A connection to a proxy, and the handshake on it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout_at;
use tsrs_platform_net::TlsConnection;

use crate::proxy::{Handshake, MAX_HEAD_LEN, Outcome, ProxyError, Step};

/// TCP to a proxy, or TLS over it.
pub enum ProxyStream {
    /// Plain: SOCKS5 and `http`.
    Tcp(TcpStream),
    /// `https`.
    Tls(Box<TlsConnection>),
}

/// What the handshake gave, and what of the destination arrived with it.
pub(super) async fn negotiate(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    handshake: &mut Handshake,
) -> Result<(Outcome, Bytes), ProxyError> {
    let mut buffer = vec![0; MAX_HEAD_LEN];
    loop {
        let deadline = handshake.poll_timeout().into();
        if let Some(message) = handshake.poll_transmit() {
            let send = async {
                // Exposed to be sent to the proxy.
                stream.write_all(message.expose()).await?;
                stream.flush().await
            };
            let sent = timeout_at(deadline, send).await;
            sent.map_err(|_| handshake.silence())?.map_err(|_| ProxyError::Closed)?;
        }
        let len = match timeout_at(deadline, stream.read(&mut buffer)).await {
            Ok(Ok(len)) if len > 0 => len,
            Ok(_) => return Err(ProxyError::Closed),
            Err(_) => return Err(handshake.silence()),
        };
        if let Step::Done { consumed, outcome } = handshake.handle_input(&buffer[..len], now())? {
            return Ok((outcome, Bytes::copy_from_slice(&buffer[consumed..len])));
        }
    }
}

/// The runtime's clock.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl AsyncRead for ProxyStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for ProxyStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
