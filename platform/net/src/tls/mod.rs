//! TLS connections of the agent: trust roots, verification, and what a DERP server says in its certificates.

pub(crate) mod der;
pub(crate) mod roots;
pub(crate) mod verify;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tsrs_base_types::NodePublic;

use crate::error::ErrorKind;
use crate::stream::Stream;
use roots::Roots;
use verify::{Verifier, Verify};

/// What the common name of a DERP server's meta certificate begins with.
const DERP_NAME_PREFIX: &[u8] = b"derpkey";

/// Why a TLS connection was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// No authority that this host trusts has signed the certificate.
    #[error(
        "the certificate is not signed by an authority that this host trusts; if it is your own, pass its certificate \
         (or that of its authority) with --ca-file"
    )]
    Untrusted,
    /// There is nothing to trust.
    #[error(
        "this host has no certificate authorities; install the package ca-certificates, or use --ca-file"
    )]
    NoRoots,
    /// The certificate is for another name.
    #[error("the certificate is for {presented}, not for {expected}; check the name in the URL")]
    WrongName {
        /// The name that was wanted.
        expected: String,
        /// The names that the certificate has.
        presented: String,
    },
    /// The certificate is not valid yet.
    #[error(
        "the certificate is valid from {not_before} on, and this host's clock says {now}; check the clock \
         (timedatectl)"
    )]
    NotYetValid {
        /// Begin of validity.
        not_before: Timestamp,
        /// This host's time.
        now: Timestamp,
    },
    /// The certificate has expired.
    #[error(
        "the certificate expired at {not_after}, and this host's clock says {now}; check the clock (timedatectl), or \
         renew the certificate"
    )]
    Expired {
        /// End of validity.
        not_after: Timestamp,
        /// This host's time.
        now: Timestamp,
    },
    /// It is not the certificate that the DERP map pins.
    #[error("the certificate is not the one that the DERP map pins: {0}")]
    Pin(&'static str),
    /// The certificate has another fault.
    #[error("the certificate cannot be used: {0}")]
    Certificate(String),
    /// The handshake failed otherwise.
    #[error("{0}; is this port really TLS?")]
    Handshake(String),
    /// The host cannot be named in TLS.
    #[error("not a name that TLS can check")]
    Name,
}

impl TlsError {
    pub(crate) const fn kind(&self) -> ErrorKind {
        match self {
            Self::Untrusted | Self::NoRoots | Self::Pin(_) | Self::Certificate(_) => {
                ErrorKind::UntrustedCertificate
            }
            Self::WrongName { .. } => ErrorKind::WrongName,
            Self::NotYetValid { .. } | Self::Expired { .. } => ErrorKind::CertificateTime,
            Self::Handshake(_) => ErrorKind::Protocol,
            Self::Name => ErrorKind::Configuration,
        }
    }
}

/// What a DERP server says about itself in its meta certificate (data-plane sheet §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DerpCertificate {
    /// The server's key: the connection may start without waiting for an HTTP answer.
    pub key: NodePublic,
    /// Version of the DERP protocol.
    pub version: u8,
}

/// An open TLS connection.
pub struct TlsConnection {
    stream: TlsStream<Stream>,
    derp: Option<DerpCertificate>,
    warning: Option<TlsError>,
}

impl TlsConnection {
    /// The meta certificate of a DERP server. Only TLS 1.3 hides it from who changes packets on the way, so it is
    /// looked at only there.
    pub const fn derp_certificate(&self) -> Option<DerpCertificate> {
        self.derp
    }

    /// What is wrong with the server's certificate, where [`Verify::WarnOnly`] let it pass.
    pub const fn warning(&self) -> Option<&TlsError> {
        self.warning.as_ref()
    }
}

/// Opens TLS on a stream.
pub(crate) async fn connect(
    roots: Arc<Roots>,
    stream: Stream,
    host: &str,
    verify: Verify,
) -> Result<TlsConnection, TlsError> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Name)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(Verifier::new(verify, roots, provider.signature_verification_algorithms)?);
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Handshake(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::<Verifier>::clone(&verifier))
        .with_no_client_auth();
    let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    let stream =
        connected.map_err(|error| verifier.finding().unwrap_or(TlsError::Handshake(error.to_string())))?;
    let session = stream.get_ref().1;
    let derp = match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => derp_certificate(session.peer_certificates().unwrap_or_default()),
        _ => None,
    };
    Ok(TlsConnection { stream, derp, warning: verifier.finding() })
}

fn derp_certificate(certificates: &[CertificateDer<'_>]) -> Option<DerpCertificate> {
    certificates.iter().find_map(|certificate| {
        let fields = der::Fields::parse(certificate)?;
        let digits = fields.common_name?.strip_prefix(DERP_NAME_PREFIX)?;
        let key = data_encoding::HEXLOWER_PERMISSIVE.decode(digits).ok()?.try_into().ok()?;
        let version = match fields.serial {
            [version] | [0, version] => *version,
            _ => return None,
        };
        Some(DerpCertificate { key: NodePublic::from_bytes(key), version })
    })
}

/// Whether this is the meta certificate of a DERP server, which is no part of the chain.
fn is_derp_meta(certificate: &CertificateDer<'_>) -> bool {
    der::Fields::parse(certificate)
        .and_then(|fields| fields.common_name)
        .is_some_and(|name| name.starts_with(DERP_NAME_PREFIX))
}

impl AsyncRead for TlsConnection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for TlsConnection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
