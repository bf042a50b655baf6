//! Real handshakes over an in-memory stream, against certificates made on the spot.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SerialNumber, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::roots::sha256;
use super::verify::ParsePinError;
use super::*;

const HOST: &str = "derp.lab.test";
const SERVER_KEY: [u8; 32] = [0x5a; 32];

struct Server {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

fn params(names: &[&str]) -> CertificateParams {
    CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
}

/// A self-signed certificate, as most tools make it: marked as an authority.
fn self_signed(mut params: CertificateParams) -> Server {
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    Server { chain: vec![certificate.der().clone()], key }
}

/// A certificate signed by an authority, and that authority.
fn signed(params: &CertificateParams) -> (Server, CertificateDer<'static>) {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::from_params(&authority, &authority_key);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    (Server { chain: vec![certificate.der().clone()], key }, root.der().clone())
}

/// The certificate that a DERP server adds to its chain.
fn meta(common_name: &str, serial: &[u8]) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.serial_number = Some(SerialNumber::from(serial.to_vec()));
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
}

fn meta_of_server() -> CertificateDer<'static> {
    meta(&format!("derpkey{}", data_encoding::HEXLOWER.encode(&SERVER_KEY)), &[2])
}

/// A CA file with the certificate, and what is trusted with it. The system's own roots do not matter: no test server
/// is signed by them.
fn trusting(certificates: &[CertificateDer<'static>]) -> Arc<Roots> {
    let paths: Vec<_> = certificates.iter().map(crate::test_support::ca_file).collect();
    Arc::new(Roots::load(&paths.iter().map(|file| file.path().to_owned()).collect::<Vec<_>>()).unwrap())
}

async fn connect_to(
    server: &Server,
    versions: &[&'static rustls::SupportedProtocolVersion],
    roots: Arc<Roots>,
    host: &str,
    verify: Verify,
) -> Result<TlsConnection, TlsError> {
    let key = PrivateKeyDer::try_from(server.key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(server.chain.clone(), key)
        .unwrap();
    let (near, far) = tokio::io::duplex(64 * 1024);
    let serve = tokio::spawn(async move {
        if let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(far).await {
            let _ = stream.write_all(b"hello").await;
            let _ = stream.shutdown().await;
        }
    });
    let mut connected = connect(roots, Box::new(near), host, verify).await;
    if let Ok(connection) = &mut connected {
        let mut text = String::new();
        connection.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
    }
    serve.await.unwrap();
    connected
}

async fn outcome(server: &Server, roots: Arc<Roots>, host: &str, verify: Verify) -> Result<(), TlsError> {
    connect_to(server, rustls::ALL_VERSIONS, roots, host, verify).await.map(|_| ())
}

#[tokio::test]
async fn an_authority_of_a_ca_file_is_trusted_and_others_are_not() {
    let (server, root) = signed(&params(&[HOST]));
    assert_eq!(outcome(&server, trusting(std::slice::from_ref(&root)), HOST, Verify::Normal).await, Ok(()));
    assert_eq!(outcome(&server, trusting(&[]), HOST, Verify::Normal).await, Err(TlsError::Untrusted));
    assert!(TlsError::Untrusted.to_string().contains("--ca-file"));
    let error = outcome(&server, trusting(&[root]), "other.test", Verify::Normal).await.unwrap_err();
    assert!(
        matches!(&error, TlsError::WrongName { expected, presented }
        if expected == "other.test" && presented.contains(HOST)),
        "{error}"
    );
}

#[tokio::test]
async fn a_self_signed_certificate_in_a_ca_file_is_trusted_for_its_own_names() {
    let server = self_signed(params(&[HOST, "192.0.2.1"]));
    let roots = trusting(&server.chain);
    assert_eq!(outcome(&server, Arc::clone(&roots), HOST, Verify::Normal).await, Ok(()));
    assert_eq!(outcome(&server, Arc::clone(&roots), "192.0.2.1", Verify::Normal).await, Ok(()));
    let error = outcome(&server, roots, "192.0.2.2", Verify::Normal).await.unwrap_err();
    assert!(matches!(error, TlsError::WrongName { .. }), "{error}");
    assert!(error.to_string().contains("is for derp.lab.test, 192.0.2.1, not for 192.0.2.2"), "{error}");
    // The same names in another certificate are not that certificate.
    let other = self_signed(params(&[HOST]));
    assert!(outcome(&other, trusting(&server.chain), HOST, Verify::Normal).await.is_err());
}

#[tokio::test]
async fn dates_are_checked_and_the_local_time_is_named() {
    for is_signed in [false, true] {
        let mut early = params(&[HOST]);
        early.not_before = date_time_ymd(4000, 1, 1);
        let mut late = params(&[HOST]);
        late.not_after = date_time_ymd(2001, 1, 1);
        late.not_before = date_time_ymd(2000, 1, 1);
        for (params, word) in [(early, "valid from 4000"), (late, "expired at 2001")] {
            let (server, root) = if is_signed {
                signed(&params)
            } else {
                let server = self_signed(params);
                let root = server.chain[0].clone();
                (server, root)
            };
            let error = outcome(&server, trusting(&[root]), HOST, Verify::Normal).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::CertificateTime);
            assert!(
                error.to_string().contains(word) && error.to_string().contains("clock says 20"),
                "{error}"
            );
            let pin = Verify::Pin(sha256(&server.chain[0]));
            let error = outcome(&server, trusting(&[]), HOST, pin).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::CertificateTime);
        }
    }
}

#[tokio::test]
async fn another_name_is_verified_instead_of_the_host() {
    let (server, root) = signed(&params(&["real.test"]));
    let name = || Verify::Name("real.test".to_owned());
    assert_eq!(outcome(&server, trusting(std::slice::from_ref(&root)), HOST, name()).await, Ok(()));
    assert_eq!(outcome(&server, trusting(&[]), HOST, name()).await, Err(TlsError::Untrusted));
    let (server, root) = signed(&params(&[HOST]));
    assert!(outcome(&server, trusting(&[root]), HOST, name()).await.is_err());
}

#[tokio::test]
async fn a_pin_needs_exactly_that_certificate_and_no_authority() {
    let mut server = self_signed(params(&[HOST]));
    let pin = Verify::Pin(sha256(&server.chain[0]));
    assert_eq!(outcome(&server, trusting(&[]), HOST, pin.clone()).await, Ok(()));
    let error = outcome(&server, trusting(&[]), "other.test", pin.clone()).await.unwrap_err();
    assert!(matches!(error, TlsError::WrongName { .. }), "{error}");
    let error = outcome(&server, trusting(&server.chain), HOST, Verify::Pin([0; 32])).await.unwrap_err();
    assert!(matches!(error, TlsError::Pin(_)), "{error}");

    server.chain.push(meta_of_server());
    assert_eq!(outcome(&server, trusting(&[]), HOST, pin.clone()).await, Ok(()));
    server.chain.push(self_signed(params(&["more.test"])).chain.remove(0));
    let error = outcome(&server, trusting(&[]), HOST, pin).await.unwrap_err();
    assert!(matches!(error, TlsError::Pin(_)), "{error}");
}

#[tokio::test]
async fn a_fault_is_only_reported_where_another_layer_authenticates() {
    let server = self_signed(params(&["other.test"]));
    let versions = rustls::ALL_VERSIONS;
    let connection = connect_to(&server, versions, trusting(&[]), HOST, Verify::WarnOnly).await.unwrap();
    assert!(connection.warning().is_some());
    let connection =
        connect_to(&server, versions, trusting(&server.chain), "other.test", Verify::WarnOnly).await.unwrap();
    assert_eq!(connection.warning(), None);
    let connection =
        connect_to(&server, versions, trusting(&[]), HOST, Verify::InsecureForTests).await.unwrap();
    assert_eq!(connection.warning(), None);
}

#[tokio::test]
async fn the_meta_certificate_is_seen_under_tls_13_only() {
    let (mut server, root) = signed(&params(&[HOST]));
    server.chain.push(meta_of_server());
    let roots = trusting(&[root]);
    let expected = DerpCertificate { key: NodePublic::from_bytes(SERVER_KEY), version: 2 };
    for (version, seen) in [(&rustls::version::TLS13, Some(expected)), (&rustls::version::TLS12, None)] {
        let connection =
            connect_to(&server, &[version], Arc::clone(&roots), HOST, Verify::Normal).await.unwrap();
        assert_eq!(connection.derp_certificate(), seen);
    }
}

#[test]
fn only_a_whole_key_and_a_small_version_count_as_meta_certificate() {
    let hex = data_encoding::HEXLOWER.encode(&SERVER_KEY);
    for (name, serial, found) in [
        (format!("derpkey{hex}"), &[2u8][..], true),
        (format!("derpkey{hex}"), &[200], true),
        (format!("derpkey{hex}"), &[1, 2], false),
        (format!("derpkey{}", &hex[..62]), &[2], false),
        (format!("derpkey{hex}00"), &[2], false),
        (format!("Derpkey{hex}"), &[2], false),
        ("derpkey".to_owned(), &[2], false),
    ] {
        let certificate = meta(&name, serial);
        assert_eq!(derp_certificate(&[certificate]).is_some(), found, "{name} {serial:?}");
    }
}

#[test]
fn the_derp_map_chooses_the_verification() {
    let digits = "ab".repeat(32);
    for insecure in [false, true] {
        assert_eq!(
            Verify::derp(HOST, &format!("sha256-raw:{digits}"), insecure),
            Ok(Verify::Pin([0xab; 32]))
        );
        assert_eq!(Verify::derp(HOST, "a.test", insecure), Ok(Verify::Name("a.test".to_owned())));
        assert_eq!(Verify::derp(HOST, "sha256-raw:abcd", insecure), Err(ParsePinError));
    }
    assert_eq!(Verify::derp(HOST, "", false), Ok(Verify::Normal));
    assert_eq!(Verify::derp(HOST, "", true), Ok(Verify::InsecureForTests));
    assert_eq!(Verify::derp(HOST, HOST, true), Ok(Verify::InsecureForTests));
    assert_eq!(Verify::derp(HOST, HOST, false), Ok(Verify::Normal));
}

#[test]
fn an_unusable_ca_file_is_an_error_that_names_it() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "no certificate").unwrap();
    for path in [file.path().to_owned(), "/nonexistent/ca.pem".into()] {
        let error = Roots::load(std::slice::from_ref(&path)).unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
    }
}
