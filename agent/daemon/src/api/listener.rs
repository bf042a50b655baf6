//! The socket: made, offered, served, removed.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use tokio::net::UnixListener;
use tokio::task::JoinSet;

use super::Api;
use super::connections::{self, Slot};

/// How long to wait when the system has no room for another connection, which usually means too many open files: a pause
/// keeps this from turning into a busy loop.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

/// A socket that clients may connect to. Dropping it removes the file.
#[derive(Debug)]
pub(crate) struct Listener {
    listener: UnixListener,
    path: PathBuf,
    /// Which file it is, so that a successor's is not removed.
    inode: u64,
}

impl Listener {
    /// Opens the socket at `path`, unless somebody answers there. Everybody may connect; rights come by credentials.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        if somebody_answers(path) {
            bail!(
                "{}: address already in use by a program that answers; stop it, or give this daemon another --socket",
                path.display()
            );
        }
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(dir);
            made.with_context(|| format!("create {}", dir.display()))?;
        }
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                bail!("{} exists and is no socket; remove it, or give another --socket", path.display());
            }
            Ok(_) => {
                fs::remove_file(path).with_context(|| format!("remove the dead socket {}", path.display()))?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("look at {}", path.display())),
        }
        let listener =
            UnixListener::bind(path).with_context(|| format!("open the socket {}", path.display()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o666))
            .with_context(|| format!("open {} to all users", path.display()))?;
        let inode = fs::symlink_metadata(path).with_context(|| format!("look at {}", path.display()))?.ino();
        Ok(Self { listener, path: path.to_owned(), inode })
    }

    /// Serves until it is dropped, which ends every connection.
    pub(crate) async fn serve(self, api: Arc<Api>) {
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        // Who is unknown may read.
                        let uid = api.users.peer(stream.as_fd()).ok().map(|peer| peer.uid);
                        match Slot::take(&api.slots, uid) {
                            Some(slot) => drop(open.spawn(connections::serve(stream, Arc::clone(&api), uid, slot))),
                            None => tracing::warn!(uid, "too many LocalAPI connections; one more was closed"),
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a LocalAPI connection was not accepted");
                        tokio::time::sleep(ACCEPT_RETRY).await;
                    }
                },
                Some(_) = open.join_next(), if !open.is_empty() => {}
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::debug!(%error, "the socket was not removed");
        }
    }
}

/// Whether a living program has the path. What cannot be found out counts as nobody: the socket is then replaced, or
/// cannot be, which says more.
fn somebody_answers(path: &Path) -> bool {
    // A program that hangs with a full queue must not hold us up.
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let probe = socket(AddressFamily::Unix, SockType::Stream, flags, None)
        .and_then(|probe| connect(probe.as_raw_fd(), &UnixAddr::new(path)?));
    matches!(probe, Ok(()) | Err(Errno::EAGAIN | Errno::EINPROGRESS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/dir/s.sock");
        let listener = Listener::open(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o666, 0o755));
        let refusal = Listener::open(&path).unwrap_err().to_string();
        assert!(refusal.contains("already in use"), "{refusal}");
        // A daemon that died leaves the file.
        let left = listener.path.clone();
        fs::hard_link(&left, dir.path().join("kept")).unwrap();
        drop(listener);
        assert!(!left.exists(), "an orderly end removes the socket");
        fs::rename(dir.path().join("kept"), &left).unwrap();
        drop(Listener::open(&left).unwrap());
    }

    #[tokio::test]
    async fn a_successors_socket_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let first = Listener::open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let second = Listener::open(&path).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        fs::write(&path, "precious").unwrap();
        assert!(Listener::open(&path).unwrap_err().to_string().contains("is no socket"));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
