//! What the agent has changed on the host, written down before it is changed.
//!
//! The file holds what a successor cannot recognise by itself: how `/etc/resolv.conf` looked, and under which names
//! the rest was made. It is replaced atomically and synced, so that after a power cut it is the old or the new one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tsrs_platform_api::{Instance, PlatformError, Result};

use crate::dns::ResolvConfChange;

/// Name of the file in the state directory.
const FILE_NAME: &str = "journal.json";
/// Name that a file gets which cannot be read.
const CORRUPT_NAME: &str = "journal.json.corrupt";
/// Version of the file's form.
const VERSION: u32 = 1;

/// The journal of one agent. Clones share it.
#[derive(Clone, Debug)]
pub struct Journal(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    entries: Entries,
}

/// What is changed at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entries {
    version: u32,
    /// Rules, routes and firewall of this instance may exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) router: Option<RouterEntry>,
    /// `/etc/resolv.conf` may be ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) resolv_conf: Option<ResolvConfChange>,
}

/// Under which names routes, rules and firewall were made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RouterEntry {
    pub(crate) instance: Instance,
    pub(crate) tun: String,
}

impl Journal {
    /// Opens the journal in a state directory, which must exist.
    ///
    /// A file that cannot be understood is an error and stays as it is; [`crate::cleanup()`] undoes what it can
    /// recognise without it and moves it aside.
    pub fn open(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE_NAME);
        let entries = read(&path).map_err(|cause| {
            PlatformError::new(format!("read {}", path.display()), cause)
                .with_next("run `tsrs-agent cleanup` with the same --statedir")
        })?;
        Ok(Self(Arc::new(Mutex::new(Inner { directory: directory.to_owned(), entries }))))
    }

    /// Moves an unreadable journal aside and gives its new path.
    pub(crate) fn set_aside(directory: &Path) -> io::Result<PathBuf> {
        let aside = directory.join(CORRUPT_NAME);
        fs::rename(directory.join(FILE_NAME), &aside)?;
        Ok(aside)
    }

    /// What is changed at the moment.
    pub(crate) fn entries(&self) -> Entries {
        self.lock().entries.clone()
    }

    /// Directory of the journal, for copies of what was there before.
    pub(crate) fn directory(&self) -> PathBuf {
        self.lock().directory.clone()
    }

    /// Changes the entries; when this returns, the change is on the disk. Nothing is written if nothing changes.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Entries)) -> Result<()> {
        let mut inner = self.lock();
        let mut entries = inner.entries.clone();
        change(&mut entries);
        entries.version = VERSION;
        let unchanged = Entries { version: VERSION, ..inner.entries.clone() } == entries;
        if unchanged {
            return Ok(());
        }
        let path = inner.directory.join(FILE_NAME);
        let is_empty = Entries { version: VERSION, ..Entries::default() } == entries;
        // To be rid of a journal needs no room, so that a full disk keeps nothing from being given back.
        let written = if is_empty {
            remove(&inner.directory, &path)
        } else {
            write(&inner.directory, &path, &entries)
        };
        written.map_err(|cause| {
            PlatformError::new(format!("write {}", path.display()), cause)
                .with_next("nothing was changed, because it could not be undone after a crash; make room or check the permissions of the state directory")
        })?;
        inner.entries = entries;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(path: &Path) -> io::Result<Entries> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Entries::default()),
        Err(error) => return Err(error),
    };
    decode(&text)
}

pub(crate) fn decode(text: &[u8]) -> io::Result<Entries> {
    let entries: Entries = serde_json::from_slice(text)?;
    if entries.version != VERSION {
        let why = format!("version {} of the file is not known", entries.version);
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(entries)
}

fn write(directory: &Path, path: &Path, entries: &Entries) -> io::Result<()> {
    write_durably(path, &serde_json::to_vec_pretty(entries)?, 0o600)?;
    // Without this the new name may not survive a power cut.
    File::open(directory)?.sync_all()
}

fn remove(directory: &Path, path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    File::open(directory)?.sync_all()
}

/// Replaces a file by one with this content, synced, in one step.
pub(crate) fn write_durably(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let written = (|| {
        // A leftover of a crash in this very place may have other permissions.
        let _ = fs::remove_file(&temporary);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        // Whatever the umask is.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::isolated;

    fn entry() -> RouterEntry {
        RouterEntry { instance: Instance::ZERO, tun: "tailscale0".into() }
    }

    #[test]
    fn entries_survive_and_vanish() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(directory.path()).unwrap();
        journal.update(|entries| entries.router = Some(entry())).unwrap();
        assert_eq!(Journal::open(directory.path()).unwrap().entries().router, Some(entry()));
        let mode = fs::metadata(directory.path().join(FILE_NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        journal.update(|entries| entries.router = None).unwrap();
        assert_eq!(Journal::open(directory.path()).unwrap().entries().router, None);
        // Nothing is left that would have to be written.
        assert!(!directory.path().join(FILE_NAME).exists());
        journal.update(|entries| entries.router = Some(entry())).unwrap();
        assert!(directory.path().join(FILE_NAME).exists());
    }

    #[test]
    fn a_file_that_is_not_understood_is_an_error_and_stays() {
        for text in ["", "{", "{\"version\":9}", "[]", "{\"version\":1,\"new\":1}", "\0\0\0\0"] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join(FILE_NAME);
            fs::write(&path, text).unwrap();
            let error = Journal::open(directory.path()).unwrap_err().to_string();
            assert!(error.contains("journal.json") && error.contains("cleanup"), "{error}");
            assert_eq!(fs::read_to_string(path).unwrap(), text);
        }
    }

    #[test]
    fn what_cannot_be_written_is_not_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(&directory.path().join("missing")).unwrap();
        assert!(journal.update(|entries| entries.router = Some(entry())).is_err());
        assert_eq!(journal.entries(), Entries::default());
    }

    #[test]
    fn a_full_disk_leaves_the_old_journal() {
        isolated(|| {
            let directory = Path::new("/run/small");
            fs::create_dir(directory).unwrap();
            let options = Some("size=64k");
            nix::mount::mount(Some("tmpfs"), directory, Some("tmpfs"), nix::mount::MsFlags::empty(), options)
                .unwrap();
            let journal = Journal::open(directory).unwrap();
            journal.update(|entries| entries.router = Some(entry())).unwrap();
            let _ = fs::write(directory.join("ballast"), vec![1; 64 * 1024]);
            let mut other = entry();
            other.tun = "x".repeat(5000);
            assert!(journal.update(|entries| entries.router = Some(other)).is_err());
            assert_eq!(Journal::open(directory).unwrap().entries().router, Some(entry()));
        });
    }
}
