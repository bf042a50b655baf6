//! The socket: made, offered, served, removed.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::{Api, Caller};

/// Most connections at once; further ones wait. Each costs a task and two small buffers.
const MAX_CONNECTIONS: usize = 512;

/// How long a client may take to send the head of a request.
const HEAD_LIMIT: Duration = Duration::from_secs(30);

/// Largest head of a request.
const MAX_HEAD_LEN: usize = 64 << 10;

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
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
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

    /// Serves until it is dropped.
    pub(crate) async fn serve(self, api: Arc<Api>) {
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let api = Arc::clone(&api);
                    tokio::spawn(async move {
                        serve_connection(stream, api).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    // Usually: too many open files. A pause keeps this from turning into a busy loop.
                    tracing::warn!(%error, "a LocalAPI connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
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

async fn serve_connection(stream: UnixStream, api: Arc<Api>) {
    let caller = Caller { uid: api.users.peer(stream.as_fd()).ok().map(|peer| peer.uid) };
    let service = service_fn(move |request| {
        let api = Arc::clone(&api);
        async move { Ok::<_, Infallible>(api.answer(request, caller).await.into_response()) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(MAX_HEAD_LEN)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        // Clients leave in the middle all the time: that is how a watch ends.
        tracing::debug!(%error, "a LocalAPI connection ended");
    }
}
