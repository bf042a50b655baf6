//! What several tests of this crate need.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::BorrowedFd;

use rustls::pki_types::CertificateDer;
use tsrs_platform_api::SocketBinder;

/// An operating system that gives no mark.
pub(crate) struct RefusingBinder;

impl SocketBinder for RefusingBinder {
    fn mark_bypass(&self, _fd: BorrowedFd<'_>) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

pub(crate) fn v4(address: SocketAddr) -> SocketAddrV4 {
    match address {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(address) => panic!("{address}"),
    }
}

/// A file with the certificate in PEM form.
pub(crate) fn ca_file(certificate: &CertificateDer<'_>) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let body = data_encoding::BASE64.encode(certificate);
    let pem = format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
    std::fs::write(file.path(), pem).unwrap();
    file
}
