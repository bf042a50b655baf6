//! Whom this host trusts.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::error::NetError;

/// A CA file holds a few certificates; the system's whole bundle is about 300 KiB.
const MAX_CA_FILE_LEN: u64 = 4 << 20;

/// Certificate authorities: those of the system (or of `SSL_CERT_FILE` and `SSL_CERT_DIR` instead), and those of the
/// user's CA files.
#[derive(Debug)]
pub(crate) struct Roots {
    store: RootCertStore,
    /// SHA-256 of each root: a server may present one of them itself.
    digests: HashSet<[u8; 32]>,
}

impl Roots {
    /// Reads the CA files and then what the system trusts. A CA file that cannot be used is an error, since the user
    /// named it; a fault in the system's own set is only logged.
    pub(crate) fn load(ca_files: &[PathBuf]) -> Result<Self, NetError> {
        let mut roots = Self { store: RootCertStore::empty(), digests: HashSet::new() };
        for path in ca_files {
            for certificate in read_ca_file(path)? {
                roots.add(certificate).map_err(|reason| ca_error(path, reason))?;
            }
        }
        let system = rustls_native_certs::load_native_certs();
        for error in system.errors {
            tracing::warn!(%error, "cannot read a certificate authority of the system");
        }
        for certificate in system.certs {
            if let Err(error) = roots.add(certificate) {
                tracing::debug!(error, "a certificate authority of the system is not usable");
            }
        }
        Ok(roots)
    }

    fn add(&mut self, certificate: CertificateDer<'static>) -> Result<(), String> {
        let digest = sha256(&certificate);
        self.store.add(certificate).map_err(|error| error.to_string())?;
        self.digests.insert(digest);
        Ok(())
    }

    pub(crate) const fn store(&self) -> &RootCertStore {
        &self.store
    }

    /// Whether this very certificate is trusted.
    pub(crate) fn contains(&self, certificate: &CertificateDer<'_>) -> bool {
        self.digests.contains(&sha256(certificate))
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

fn read_ca_file(path: &Path) -> Result<Vec<CertificateDer<'static>>, NetError> {
    let len = std::fs::metadata(path).map_err(|error| ca_error(path, error.to_string()))?.len();
    if len > MAX_CA_FILE_LEN {
        return Err(ca_error(path, format!("larger than {MAX_CA_FILE_LEN} bytes")));
    }
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| ca_error(path, error.to_string()))?;
    if certificates.is_empty() {
        return Err(ca_error(
            path,
            "it holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)".to_owned(),
        ));
    }
    Ok(certificates)
}

fn ca_error(path: &Path, reason: String) -> NetError {
    NetError::CaFile { path: path.display().to_string(), reason }
}
