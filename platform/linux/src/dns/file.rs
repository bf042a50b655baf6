//! Replaces `resolv.conf` and puts the former one back.
//!
//! The former file, or link, is *kept*: it gets a second name beside its own and later its first one back, so that it
//! returns with its inode, owner, times and attributes. Where that is impossible (a container mounts the file by
//! itself) its content is copied into the state directory and the file is overwritten in place, and later again.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tsrs_platform_api::{Instance, PlatformError, Result};

use crate::dns::resolv_conf::ResolvConf;
use crate::journal::{Journal, write_durably};

/// Everybody on the host reads the file.
const MODE: u32 = 0o644;

/// What was done to the file, as the journal holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResolvConfChange {
    path: PathBuf,
    instance: Instance,
    original: Original,
}

/// Where the former file is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Original {
    /// There was none.
    Absent,
    /// It has this name now.
    Kept(PathBuf),
    /// Its content is here; the file itself is overwritten in place.
    Copied(PathBuf),
}

/// Name of the copy in the state directory.
const COPY_NAME: &str = "resolv.conf.before";

/// The change that the files themselves tell of, for a journal that is lost; `None` if the file is not ours.
pub(crate) fn recognise_change(
    path: &Path,
    instance: Instance,
    state_directory: &Path,
) -> Option<ResolvConfChange> {
    if !is_ours(path, instance) {
        return None;
    }
    let (kept, copied) = (kept_name(path, instance), state_directory.join(COPY_NAME));
    let original = if !is_gone(&kept) {
        Original::Kept(kept)
    } else if !is_gone(&copied) {
        Original::Copied(copied)
    } else {
        Original::Absent
    };
    Some(ResolvConfChange { path: path.to_owned(), instance, original })
}

/// Whether a file at `path` was written by the agent of this instance.
pub(super) fn is_ours(path: &Path, instance: Instance) -> bool {
    fs::read_to_string(path).is_ok_and(|text| ResolvConf::parse(&text).written_by == Some(instance.number()))
}

/// Writes `content`; a foreign file at `path` is saved first, in place of what was saved before.
pub(super) fn install(path: &Path, content: &str, instance: Instance, journal: &Journal) -> Result<()> {
    let failed = |cause| PlatformError::new(format!("replace {}", path.display()), cause);
    let change = journal.entries().resolv_conf.filter(|change| change.path == path);
    if let Some(change) = change.filter(|_| is_gone(path) || is_ours(path, instance)) {
        return write(path, content, &change.original).map_err(failed);
    }
    let save = |original| {
        let change = ResolvConfChange { path: path.to_owned(), instance, original };
        journal.update(|entries| entries.resolv_conf = Some(change))
    };
    let file_type = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            save(Original::Absent)?;
            return write(path, content, &Original::Absent).map_err(failed);
        }
        Err(error) => return Err(failed(error)),
    };
    let kept = Original::Kept(kept_name(path, instance));
    save(kept.clone())?;
    let impossible = match keep(path, &kept).and_then(|()| write(path, content, &kept)) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    forget(&kept);
    // Overwriting by way of a link would write into a file that some other program owns.
    if !file_type.is_file() {
        journal.update(|entries| entries.resolv_conf = None)?;
        return Err(failed(impossible));
    }
    let copied = Original::Copied(journal.directory().join(COPY_NAME));
    copy(path, &copied).map_err(failed)?;
    save(copied.clone())?;
    write(path, content, &copied).map_err(failed)
}

/// Puts the former file back if ours is still there; a file that somebody else has written since stays.
pub(crate) fn restore_resolv_conf(change: &ResolvConfChange) -> io::Result<()> {
    let path = &change.path;
    let gone = is_gone(path);
    if !gone && !is_ours(path, change.instance) {
        forget(&change.original);
        return Ok(());
    }
    match &change.original {
        Original::Absent if gone => Ok(()),
        Original::Absent => fs::remove_file(path),
        Original::Kept(kept) => fs::rename(kept, path),
        Original::Copied(copy) => {
            fs::write(path, fs::read(copy)?)?;
            fs::remove_file(copy)
        }
    }?;
    sync_directory(path)
}

fn is_gone(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// Gives the former file its second name.
fn keep(path: &Path, original: &Original) -> io::Result<()> {
    let Original::Kept(kept) = original else { return Ok(()) };
    match fs::remove_file(kept) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    // Links the name itself, also when it is a symbolic link.
    fs::hard_link(path, kept)?;
    sync_directory(path)
}

fn copy(path: &Path, original: &Original) -> io::Result<()> {
    let Original::Copied(copy) = original else { return Ok(()) };
    write_durably(copy, &fs::read(path)?, 0o600)?;
    sync_directory(copy)
}

fn write(path: &Path, content: &str, original: &Original) -> io::Result<()> {
    match original {
        Original::Absent | Original::Kept(_) => {
            write_durably(path, content.as_bytes(), MODE)?;
            sync_directory(path)
        }
        Original::Copied(_) => fs::write(path, content),
    }
}

/// Removes what is no longer needed; a leftover does no harm.
fn forget(original: &Original) {
    match original {
        Original::Absent => {}
        Original::Kept(saved) | Original::Copied(saved) => _ = fs::remove_file(saved),
    }
}

fn kept_name(path: &Path, instance: Instance) -> PathBuf {
    beside(path, &format!("before-tsrs-agent-{instance}"))
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

fn sync_directory(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |directory| fs::File::open(directory)?.sync_all())
}
