//! The folder in which the chain of a profile is kept (Tailnet Lock sheet §16): a file per update, and one that says where
//! the active chain begins. Every file is replaced as a whole; files with other names are none of ours.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use tsrs_agent_core::lock::{StoreStep, Stored};
use tsrs_control_tka::{AumHash, Graph, StoredAum, Update, limits};

use crate::store::{read, write_atomically};

/// The file that names the update where the active chain begins: 32 raw bytes.
const ANCESTOR: &str = "last_active_ancestor";
/// Largest file of an update: the update, and the few bytes around it.
const MAX_FILE_LEN: usize = limits::MAX_AUM_BYTES + 64;
/// Most entries of the folders that are looked at: every update may have a leftover of an interrupted write beside it.
const MAX_ENTRIES: usize = 2 * limits::MAX_STORED_UPDATES;

/// Reads a chain. An empty graph if there is none; a file that cannot be used is an error, because nothing says what it held.
pub(crate) fn load(dir: &Path) -> Stored {
    graph(dir).map_err(|error| format!("{}: {error}", dir.display()))
}

fn graph(dir: &Path) -> io::Result<Graph> {
    let mut graph = Graph::default();
    let mut seen = 0;
    for folder in entries(dir)? {
        for path in entries(&folder)? {
            seen += 1;
            if seen > MAX_ENTRIES {
                return Err(io::Error::other(format!("more than {MAX_ENTRIES} files")));
            }
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(hash) = name.and_then(StoredAum::hash_of_name) else { continue };
            if path != file(dir, hash) {
                continue;
            }
            let Some(content) = read(&path, MAX_FILE_LEN)? else { continue };
            let Some(stored) = StoredAum::decode(&content, hash).map_err(io::Error::other)? else { continue };
            let stored_at = match stored.created {
                Some(created) => created,
                None => Timestamp::try_from(fs::metadata(&path)?.modified()?).map_err(io::Error::other)?,
            };
            if let Some(aum) = stored.aum {
                graph.insert(Arc::new(Update::new(aum)), stored_at);
            }
        }
    }
    if let Some(ancestor) = read(&dir.join(ANCESTOR), 32)? {
        let raw: [u8; 32] = ancestor.as_slice().try_into().map_err(io::Error::other)?;
        graph.set_last_active_ancestor(AumHash::from_bytes(raw));
    }
    Ok(graph)
}

/// Carries out steps in their order.
pub(crate) fn write(dir: &Path, steps: &[StoreStep]) -> io::Result<()> {
    for step in steps {
        match step {
            StoreStep::Clear => clear(dir)?,
            StoreStep::Put(hash, content) => {
                let path = file(dir, *hash);
                if let Some(folder) = path.parent() {
                    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
                }
                write_atomically(&path, content)?;
            }
            StoreStep::Ancestor(hash) => {
                DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
                write_atomically(&dir.join(ANCESTOR), hash.as_bytes())?;
            }
            StoreStep::Remove(hash) => remove(&file(dir, *hash))?,
        }
    }
    Ok(())
}

/// Removes all that is ours, then the folder itself if nothing else is in it.
pub(crate) fn clear(dir: &Path) -> io::Result<()> {
    // Without it a rest of the files is no chain.
    remove(&dir.join(ANCESTOR))?;
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn file(dir: &Path, hash: AumHash) -> PathBuf {
    dir.join(StoredAum::relative_path(hash))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => match path.parent() {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// The entries of a directory; none if it is not there or no directory.
fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let listed = match fs::read_dir(dir) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        listed => listed?,
    };
    listed.take(MAX_ENTRIES + 1).map(|entry| entry.map(|entry| entry.path())).collect()
}

#[cfg(test)]
mod tests;
