//! User name and password of a proxy: they come in and have no way out but to the proxy.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use data_encoding::BASE64;
use tsrs_base_types::Redacted;
use zeroize::Zeroizing;

/// Longest user name and longest password: RFC 1929 has one byte for each length.
pub const MAX_CREDENTIAL_LEN: usize = 255;
/// Longest file: two of them, the colon and a line end.
pub const MAX_CREDENTIAL_FILE_LEN: usize = 2 * MAX_CREDENTIAL_LEN + 3;
/// Longest name of a systemd credential: that of a file (`NAME_MAX`).
const MAX_NAME_LEN: usize = 255;

/// Why there are no credentials. The content is never part of it.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The text names no source.
    #[error("write file:PATH with an absolute path, or credential:NAME for a credential of systemd")]
    Source,
    /// The service has no credentials.
    #[error("systemd gave this service no credentials: add LoadCredential={0}:… to its unit")]
    NoDirectory(String),
    /// The file cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is a folder, a pipe or a device.
    #[error("{path} is no regular file")]
    NoFile {
        /// The path.
        path: PathBuf,
    },
    /// Others than the owner may read or change the file.
    #[error("{path} has mode {mode:03o}: others must not read the proxy's password; use chmod 600")]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is too long.
    #[error("a user name or password for a proxy has at most {MAX_CREDENTIAL_LEN} bytes")]
    TooLong,
    /// It is not what was expected.
    #[error("the credentials must be one line: user:password")]
    Form,
}

/// Where the credentials of a proxy are: `file:PATH`, or `credential:NAME` for one that systemd hands to the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialSource {
    /// A file of its own, which only its owner may read.
    File(PathBuf),
    /// A credential of systemd.
    Systemd(String),
}

impl FromStr for CredentialSource {
    type Err = CredentialError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("file:") {
            let path = PathBuf::from(path);
            return if path.is_absolute() { Ok(Self::File(path)) } else { Err(CredentialError::Source) };
        }
        let name = text.strip_prefix("credential:").ok_or(CredentialError::Source)?;
        let is_plain = !name.is_empty()
            && name.len() <= MAX_NAME_LEN
            && !name.starts_with('.')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if is_plain { Ok(Self::Systemd(name.to_owned())) } else { Err(CredentialError::Source) }
    }
}

impl fmt::Display for CredentialSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Systemd(name) => write!(f, "credential:{name}"),
        }
    }
}

/// User name and password. There is no way to read them back; `Debug` shows nothing of them, and they are wiped on drop.
pub struct Credentials {
    user: Redacted<Vec<u8>>,
    password: Redacted<Vec<u8>>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials([redacted])")
    }
}

impl Credentials {
    /// Reads them. `systemd` is the folder that `CREDENTIALS_DIRECTORY` names, if it is set.
    pub fn load(source: &CredentialSource, systemd: Option<&Path>) -> Result<Self, CredentialError> {
        match source {
            CredentialSource::File(path) => Self::from_file(path, true),
            CredentialSource::Systemd(name) => {
                let folder = systemd.ok_or_else(|| CredentialError::NoDirectory(name.clone()))?;
                // systemd protects the folder.
                Self::from_file(&folder.join(name), false)
            }
        }
    }

    fn from_file(path: &Path, only_owner: bool) -> Result<Self, CredentialError> {
        let read_error = |error| CredentialError::Read { path: path.to_owned(), error };
        // A pipe would be waited for.
        if !path.metadata().map_err(read_error)?.is_file() {
            return Err(CredentialError::NoFile { path: path.to_owned() });
        }
        let mut file = File::open(path).map_err(read_error)?;
        let mode = file.metadata().map_err(read_error)?.permissions().mode() & 0o777;
        if only_owner && mode & 0o077 != 0 {
            return Err(CredentialError::Mode { path: path.to_owned(), mode });
        }
        // One buffer of the final size: a buffer that grows leaves copies behind.
        let mut content = Zeroizing::new([0_u8; MAX_CREDENTIAL_FILE_LEN + 1]);
        let mut len = 0;
        while let Some(free) = content.get_mut(len..).filter(|free| !free.is_empty()) {
            match file.read(free) {
                Ok(0) => break,
                Ok(read) => len += read,
                Err(error) => return Err(read_error(error)),
            }
        }
        if len > MAX_CREDENTIAL_FILE_LEN {
            return Err(CredentialError::TooLong);
        }
        Self::parse(&content[..len])
    }

    /// Reads `user:password`, with or without a line end. The user name ends at the first colon (RFC 7617 §2).
    pub fn parse(content: &[u8]) -> Result<Self, CredentialError> {
        let line = content.strip_suffix(b"\n").unwrap_or(content);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let colon = line.iter().position(|byte| *byte == b':').ok_or(CredentialError::Form)?;
        let (user, password) = (&line[..colon], &line[colon + 1..]);
        if user.len() > MAX_CREDENTIAL_LEN || password.len() > MAX_CREDENTIAL_LEN {
            return Err(CredentialError::TooLong);
        }
        // RFC 1929 wants a byte of each, RFC 7617 §2 no control characters.
        if user.is_empty() || password.is_empty() || line.iter().any(u8::is_ascii_control) {
            return Err(CredentialError::Form);
        }
        Ok(Self { user: Redacted::new(user.to_vec()), password: Redacted::new(password.to_vec()) })
    }

    /// The login of RFC 1929 §2.
    pub(super) fn socks5_login(&self) -> Redacted<Vec<u8>> {
        // Exposed to be sent to the proxy, for which the operator wrote them.
        let (user, password) = (self.user.expose(), self.password.expose());
        let mut login = Vec::with_capacity(3 + user.len() + password.len());
        login.push(1);
        for part in [user, password] {
            login.push(u8::try_from(part.len()).unwrap_or(u8::MAX));
            login.extend_from_slice(part);
        }
        Redacted::new(login)
    }

    /// The value of a `Proxy-Authorization` field (RFC 7617 §2).
    pub(super) fn basic(&self) -> Redacted<String> {
        // Exposed to be sent to the proxy, for which the operator wrote them.
        let (user, password) = (self.user.expose(), self.password.expose());
        let mut pair = Vec::with_capacity(user.len() + 1 + password.len());
        pair.extend_from_slice(user);
        pair.push(b':');
        pair.extend_from_slice(password);
        let pair = Redacted::new(pair);
        let mut value = String::with_capacity(6 + BASE64.encode_len(pair.expose().len()));
        value.push_str("Basic ");
        BASE64.encode_append(pair.expose(), &mut value);
        Redacted::new(value)
    }
}
