//! Files of the state directory: one daemon at a time, written whole or not at all, never lost.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// An opened state directory. It is locked for as long as this lives.
#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
    state_file: PathBuf,
    _lock: Flock<File>,
}

impl Store {
    /// Makes the directory if need be, closes it to others, and locks it.
    pub(crate) fn open(dir: &Path, state_file: &Path) -> anyhow::Result<Self> {
        for dir in
            [Some(dir), state_file.parent()].into_iter().flatten().filter(|dir| !dir.as_os_str().is_empty())
        {
            DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(|| {
                format!(
                    "create the state directory {}; run as root, or give another --statedir",
                    dir.display()
                )
            })?;
        }
        let mode = fs::metadata(dir).with_context(|| format!("read {}", dir.display()))?.permissions().mode();
        if mode & 0o077 != 0 {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
                .with_context(|| {
                    format!(
                        "close {} to other users; the state directory must be writable and our own, or give another \
                         --statedir",
                        dir.display()
                    )
                })?;
        }
        let path = dir.join("tsrs-agent.lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| {
                format!(
                    "open {}; the state directory must be writable, or give another --statedir",
                    path.display()
                )
            })?;
        let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, Errno::EWOULDBLOCK)) => bail!(
                "another daemon uses the state directory {}; stop it, or give this one another --instance or --statedir",
                dir.display()
            ),
            Err((_, error)) => {
                return Err(io::Error::from(error)).with_context(|| format!("lock {}", path.display()));
            }
        };
        Ok(Self { dir: dir.to_owned(), state_file: state_file.to_owned(), _lock: lock })
    }

    /// The directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The state file.
    pub(crate) fn state_file(&self) -> &Path {
        &self.state_file
    }

    /// Where the netmap of a profile is cached.
    pub(crate) fn netmap_file(&self, profile_id: &str) -> PathBuf {
        self.dir.join(format!("netmap-{profile_id}.json"))
    }

    /// Where the chain of Tailnet Lock of a profile is kept.
    pub(crate) fn chain_dir(&self, profile_id: &str) -> PathBuf {
        self.dir.join("tka-profiles").join(profile_id)
    }

    /// Moves a damaged file out of the way, to a name that nothing has yet.
    pub(crate) fn set_aside(&self, file: &Path) -> io::Result<PathBuf> {
        for n in 0..1000 {
            let mut name = file.as_os_str().to_owned();
            name.push(format!(".damaged-{n}"));
            let kept = PathBuf::from(name);
            if !kept.exists() {
                fs::rename(file, &kept)?;
                return Ok(kept);
            }
        }
        Err(io::Error::other("a thousand damaged files are kept already; remove some"))
    }
}

/// Reads a whole file of at most `limit` bytes; `None` if there is none.
pub(crate) fn read(path: &Path, limit: usize) -> io::Result<Option<zeroize::Zeroizing<Vec<u8>>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let len = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX).min(limit);
    let mut content = zeroize::Zeroizing::new(Vec::with_capacity(len.saturating_add(1)));
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    file.take(bound).read_to_end(&mut content)?;
    if content.len() > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {limit} bytes")));
    }
    Ok(Some(content))
}

/// Replaces a file: after a crash or on a full disk it holds the old content or the new, never a part.
pub(crate) fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let result = write_and_rename(&temporary, path, content);
    if result.is_err() {
        // A leftover would only fill the disk further.
        let _: io::Result<()> = fs::remove_file(&temporary);
    }
    result
}

fn write_and_rename(temporary: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    match fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    // `create_new` follows no link that somebody may have left there.
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    drop(file);
    fs::rename(temporary, path)?;
    // The rename itself has to reach the disk.
    match path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn directory_and_files_are_closed_to_others() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("state");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        let store = Store::open(&dir, &dir.join("a.state")).unwrap();
        write_atomically(store.state_file(), b"one").unwrap();
        write_atomically(store.state_file(), b"two").unwrap();
        assert_eq!((mode(&dir), mode(store.state_file())), (0o700, 0o600));
        assert_eq!(read(store.state_file(), 3).unwrap().unwrap().as_slice(), b"two");
        assert!(read(store.state_file(), 2).is_err());
        assert_eq!(read(&dir.join("none"), 2).unwrap(), None);
    }

    #[test]
    fn a_second_daemon_is_refused_by_name_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.state");
        let first = Store::open(dir.path(), &file).unwrap();
        let refusal = Store::open(dir.path(), &file).unwrap_err().to_string();
        assert!(refusal.contains("another daemon") && refusal.contains(&dir.path().display().to_string()));
        drop(first);
        assert!(Store::open(dir.path(), &file).is_ok());
    }

    #[test]
    fn damaged_files_are_kept_under_new_names() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.state");
        let store = Store::open(dir.path(), &file).unwrap();
        for n in 0..2 {
            fs::write(&file, format!("damage {n}")).unwrap();
            let kept = store.set_aside(&file).unwrap();
            assert_eq!(fs::read_to_string(&kept).unwrap(), format!("damage {n}"));
            assert!(!file.exists());
        }
    }

    #[test]
    fn a_failed_write_leaves_the_old_content() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.state");
        write_atomically(&file, b"old").unwrap();
        // A directory where the temporary file should be makes every step fail.
        fs::create_dir(dir.path().join("a.state.new")).unwrap();
        assert!(write_atomically(&file, b"new").is_err());
        assert_eq!(fs::read(&file).unwrap(), b"old");
    }
}
