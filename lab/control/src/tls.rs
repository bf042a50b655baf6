//! Certificates: a CA per server process, leaves signed by it, pinned self-signed ones, and DERP's meta certificate.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa,
    KeyPair, SanType, SerialNumber, date_time_ymd,
};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tsrs_base_types::NodePublic;

/// DERP's protocol version, which is the serial number of the meta certificate (data-plane sheet §4.1).
const DERP_PROTOCOL_VERSION: u8 = 2;
/// Days that a certificate is good for.
const VALIDITY_DAYS: i64 = 90;

/// The CA of one server.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and the key of it.
pub(crate) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

impl Authority {
    /// A CA with the key that `pem` holds, or a fresh one. The certificate itself is made anew; one that was made
    /// before with the same key verifies the same leaves.
    pub(crate) fn new(pem: Option<&str>) -> Result<Self> {
        let key = match pem {
            Some(pem) => KeyPair::from_pem(pem).context("key of the lab CA")?,
            None => KeyPair::generate()?,
        };
        let mut params = CertificateParams::new([])?;
        params.distinguished_name = common_name("tsrs lab CA (test only)");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, key)?;
        Ok(Self { issuer })
    }

    /// The CA's certificate, for `SSL_CERT_FILE` of a client.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// The CA's key, for the state file.
    pub(crate) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A certificate of this CA that becomes valid `start_in` from now.
    pub(crate) fn issue(
        &self,
        addresses: &[IpAddr],
        names: &[String],
        start_in: Duration,
    ) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let certificate = leaf(addresses, names, start_in)?.signed_by(&key, &self.issuer)?;
        Ok(Identity { chain: vec![certificate.der().clone()], key })
    }
}

impl Identity {
    /// A certificate that signs itself, to be pinned.
    pub(crate) fn self_signed(addresses: &[IpAddr]) -> Result<Self> {
        let key = KeyPair::generate()?;
        let certificate: Certificate = leaf(addresses, &[], Duration::ZERO)?.self_signed(&key)?;
        Ok(Self { chain: vec![certificate.der().clone()], key })
    }

    /// The value of `CertName` that pins it.
    pub(crate) fn pin(&self) -> String {
        let digest = self.chain.first().map(|leaf| ring::digest::digest(&ring::digest::SHA256, leaf));
        let hex = digest.map(|digest| data_encoding::HEXLOWER.encode(digest.as_ref())).unwrap_or_default();
        format!("sha256-raw:{hex}")
    }

    /// Adds the meta certificate that tells a DERP client the server key before any HTTP.
    pub(crate) fn add_derp_key(&mut self, derp_key: &NodePublic) -> Result<()> {
        let mut params = CertificateParams::new([])?;
        let hex = data_encoding::HEXLOWER.encode(derp_key.as_bytes());
        params.distinguished_name = common_name(&format!("derpkey{hex}"));
        params.serial_number = Some(SerialNumber::from(vec![DERP_PROTOCOL_VERSION]));
        let meta = params.self_signed(&KeyPair::generate()?)?;
        self.chain.push(meta.der().clone());
        Ok(())
    }

    /// The TLS side of a listener. No ALPN: HTTP/2 could not be upgraded.
    pub(crate) fn server_config(&self) -> Result<Arc<ServerConfig>> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), key)
            .context("certificate of a lab listener")?;
        Ok(Arc::new(config))
    }
}

fn leaf(addresses: &[IpAddr], names: &[String], start_in: Duration) -> Result<CertificateParams> {
    let mut params = CertificateParams::new([])?;
    params.distinguished_name = common_name("tsrs lab server (test only)");
    params.subject_alt_names = addresses.iter().map(|&address| SanType::IpAddress(address)).collect();
    for name in names {
        params.subject_alt_names.push(SanType::DnsName(Ia5String::try_from(name.as_str())?));
    }
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    // A day of slack on both sides, for clients whose clock a test has moved by hours.
    let start = jiff::Timestamp::now().checked_add(start_in)?;
    let today = jiff::tz::Offset::UTC.to_datetime(start).date();
    let from = today.yesterday()?;
    let until = today.checked_add(jiff::Span::new().days(VALIDITY_DAYS))?;
    params.not_before =
        date_time_ymd(from.year().into(), from.month().unsigned_abs(), from.day().unsigned_abs());
    params.not_after =
        date_time_ymd(until.year().into(), until.month().unsigned_abs(), until.day().unsigned_abs());
    Ok(params)
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
