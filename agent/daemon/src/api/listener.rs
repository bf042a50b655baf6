//! The socket: one daemon per path, open to every local user (client sheet §2.1).

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use tokio::net::UnixListener;

/// Where the official client looks for its daemon.
pub(crate) const OFFICIAL_SOCKET: &str = "/run/tailscale/tailscaled.sock";

/// Mode of the socket: every local user may connect, and the kernel tells who it is.
const SOCKET_MODE: u32 = 0o666;

/// Mode of the directory of the socket.
const DIR_MODE: u32 = 0o755;

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    /// Another daemon has the path.
    #[error("{0} is already in use by another daemon; stop it, or choose another --socket")]
    InUse(PathBuf),
    /// Something that is no socket has the path; it is left alone.
    #[error("{0} exists and is no socket; remove it, or choose another --socket")]
    NoSocket(PathBuf),
    /// The system refuses.
    #[error("cannot listen on {path}: {error}")]
    System {
        /// The path.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// Listens on a path. What a dead daemon left there is replaced; a living one is not.
///
/// # Errors
/// The path is taken or cannot be used.
pub(crate) fn bind(path: &Path) -> Result<UnixListener, ListenError> {
    let system = |error: io::Error| ListenError::System { path: path.to_owned(), error };
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir).map_err(system)?;
    }
    match path.symlink_metadata() {
        Ok(found) if !found.file_type().is_socket() => return Err(ListenError::NoSocket(path.to_owned())),
        Ok(_) => {
            if somebody_answers(path).map_err(|errno| system(errno.into()))? {
                return Err(ListenError::InUse(path.to_owned()));
            }
            std::fs::remove_file(path).map_err(system)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(system(error)),
    }
    let listener = UnixListener::bind(path).map_err(system)?;
    std::fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE)).map_err(system)?;
    Ok(listener)
}

/// Listens on a path where nobody else does; `None`, with the reason in the log, where that cannot be had.
pub(crate) fn bind_if_free(path: &Path) -> Option<UnixListener> {
    match bind(path) {
        Ok(listener) => Some(listener),
        Err(error) => {
            tracing::info!(%error, "the official client finds this agent by --socket only");
            None
        }
    }
}

fn somebody_answers(path: &Path) -> nix::Result<bool> {
    // Non-blocking, because a daemon that hangs with a full backlog would hold us here.
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let probe = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    match connect(probe.as_raw_fd(), &UnixAddr::new(path)?) {
        Ok(()) | Err(Errno::EAGAIN | Errno::EINPROGRESS) => Ok(true),
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}
