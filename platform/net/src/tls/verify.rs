//! How a TLS server is verified.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

use super::roots::{Roots, sha256};
use super::{TlsError, der, is_derp_meta};

/// What a server must prove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verify {
    /// A certificate for the host, signed by an authority that this host trusts.
    Normal,
    /// The same, for another name than the host's.
    Name(String),
    /// Exactly the certificate with this SHA-256, valid now and for the host; no authority is asked.
    Pin([u8; 32]),
    /// Like `Normal`, but a fault is only reported. For connections on which another layer authenticates the server
    /// (control protocol sheet §5.1).
    WarnOnly,
    /// Nothing. The DERP map of a test tailnet may ask for it.
    InsecureForTests,
}

/// A certificate name in the DERP map that begins like a pin and is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the certificate pin in the DERP map is not sha256-raw: and 64 hex digits")]
pub struct ParsePinError;

impl Verify {
    /// How the DERP node of this host name is verified, given the `CertName` and `InsecureForTests` of its entry in
    /// the DERP map (data-plane sheet §4.1).
    pub fn derp(host: &str, cert_name: &str, insecure_for_tests: bool) -> Result<Self, ParsePinError> {
        if let Some(digits) = cert_name.strip_prefix("sha256-raw:") {
            let pin =
                data_encoding::HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).map_err(|_| ParsePinError)?;
            return Ok(Self::Pin(pin.try_into().map_err(|_| ParsePinError)?));
        }
        if !cert_name.is_empty() && cert_name != host {
            return Ok(Self::Name(cert_name.to_owned()));
        }
        Ok(if insecure_for_tests { Self::InsecureForTests } else { Self::Normal })
    }
}

/// Verifies by [`Verify`] and keeps what it found, for errors that say more than a TLS alert.
pub(crate) struct Verifier {
    verify: Verify,
    /// The name of `Verify::Name`.
    other_name: Option<ServerName<'static>>,
    roots: Arc<Roots>,
    algorithms: WebPkiSupportedAlgorithms,
    finding: Mutex<Option<TlsError>>,
}

impl Verifier {
    pub(crate) fn new(
        verify: Verify,
        roots: Arc<Roots>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Result<Self, TlsError> {
        let other_name = match &verify {
            Verify::Name(name) => Some(ServerName::try_from(name.clone()).map_err(|_| TlsError::Name)?),
            Verify::Normal | Verify::Pin(_) | Verify::WarnOnly | Verify::InsecureForTests => None,
        };
        Ok(Self { verify, other_name, roots, algorithms, finding: Mutex::new(None) })
    }

    /// What was wrong with the certificate.
    pub(crate) fn finding(&self) -> Option<TlsError> {
        self.finding.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, finding: TlsError) {
        *self.finding.lock().unwrap_or_else(PoisonError::into_inner) = Some(finding);
    }

    /// Chain and name. A certificate that is itself among the roots needs no chain: a self-signed server certificate
    /// given with `--ca-file` is marked as an authority by most tools, which the chain check would refuse.
    fn check_chain(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), TlsError> {
        let parsed = ParsedCertificate::try_from(leaf).map_err(|error| explain(&error, now))?;
        if self.roots.contains(leaf) {
            check_dates(leaf, now)?;
        } else {
            if self.roots.store().is_empty() {
                return Err(TlsError::NoRoots);
            }
            let chain: Vec<_> =
                chain.iter().filter(|certificate| !is_derp_meta(certificate)).cloned().collect();
            let (roots, algorithms) = (self.roots.store(), self.algorithms.all);
            verify_server_cert_signed_by_trust_anchor(&parsed, roots, &chain, now, algorithms)
                .map_err(|error| explain(&error, now))?;
        }
        verify_server_name(&parsed, name).map_err(|error| explain(&error, now))
    }

    fn check_pin(
        pin: &[u8; 32],
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), TlsError> {
        if is_derp_meta(leaf) || chain.iter().any(|certificate| !is_derp_meta(certificate)) {
            return Err(TlsError::Pin("the server presents a chain, not one certificate"));
        }
        if sha256(leaf) != *pin {
            return Err(TlsError::Pin("its SHA-256 is another"));
        }
        check_dates(leaf, now)?;
        let parsed = ParsedCertificate::try_from(leaf).map_err(|error| explain(&error, now))?;
        verify_server_name(&parsed, name).map_err(|error| explain(&error, now))
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let checked = match &self.verify {
            Verify::Normal => self.check_chain(leaf, chain, host, now),
            Verify::Name(_) => self.check_chain(leaf, chain, self.other_name.as_ref().unwrap_or(host), now),
            Verify::Pin(pin) => Self::check_pin(pin, leaf, chain, host, now),
            Verify::WarnOnly => {
                if let Err(finding) = self.check_chain(leaf, chain, host, now) {
                    self.note(finding);
                }
                Ok(())
            }
            Verify::InsecureForTests => Ok(()),
        };
        checked.map(|()| ServerCertVerified::assertion()).map_err(|finding| {
            let alert = match &finding {
                TlsError::Untrusted | TlsError::NoRoots => CertificateError::UnknownIssuer,
                TlsError::WrongName { .. } => CertificateError::NotValidForName,
                TlsError::NotYetValid { .. } => CertificateError::NotValidYet,
                TlsError::Expired { .. } => CertificateError::Expired,
                TlsError::Pin(_) | TlsError::Certificate(_) | TlsError::Handshake(_) | TlsError::Name => {
                    CertificateError::ApplicationVerificationFailure
                }
            };
            self.note(finding);
            Error::InvalidCertificate(alert)
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.verify {
            Verify::InsecureForTests | Verify::WarnOnly => Ok(HandshakeSignatureValid::assertion()),
            Verify::Normal | Verify::Name(_) | Verify::Pin(_) => {
                verify_tls12_signature(message, certificate, signature, &self.algorithms)
            }
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.verify {
            Verify::InsecureForTests | Verify::WarnOnly => Ok(HandshakeSignatureValid::assertion()),
            Verify::Normal | Verify::Name(_) | Verify::Pin(_) => {
                verify_tls13_signature(message, certificate, signature, &self.algorithms)
            }
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("verify", &self.verify).finish_non_exhaustive()
    }
}

fn timestamp(time: UnixTime) -> Timestamp {
    i64::try_from(time.as_secs())
        .ok()
        .and_then(|secs| Timestamp::from_second(secs).ok())
        .unwrap_or(Timestamp::MAX)
}

fn check_dates(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), TlsError> {
    let fields = der::Fields::parse(certificate)
        .ok_or_else(|| TlsError::Certificate("its dates cannot be read".to_owned()))?;
    let now = timestamp(now);
    if now < fields.not_before {
        return Err(TlsError::NotYetValid { not_before: fields.not_before, now });
    }
    if now > fields.not_after {
        return Err(TlsError::Expired { not_after: fields.not_after, now });
    }
    Ok(())
}

/// The TLS library's finding in words for the user.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's enums grow; what is new is reported by its own text"
)]
fn explain(error: &Error, now: UnixTime) -> TlsError {
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => TlsError::Untrusted,
        Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => {
            TlsError::Expired { not_after: timestamp(*not_after), now: timestamp(now) }
        }
        Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }) => {
            TlsError::NotYetValid { not_before: timestamp(*not_before), now: timestamp(now) }
        }
        Error::InvalidCertificate(CertificateError::NotValidForNameContext { expected, presented }) => {
            let expected = expected.to_str().into_owned();
            let presented = match presented.len() {
                0 => "no name".to_owned(),
                // There may be thousands.
                _ => presented.iter().take(4).map(|name| bare(name)).collect::<Vec<_>>().join(", "),
            };
            TlsError::WrongName { expected, presented }
        }
        Error::InvalidCertificate(other) => TlsError::Certificate(other.to_string()),
        other => TlsError::Certificate(other.to_string()),
    }
}

/// The name out of the library's `DnsName("a.test")` or `IpAddress(192.0.2.1)`.
fn bare(name: &str) -> &str {
    let inside = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    inside.trim_matches('"')
}
