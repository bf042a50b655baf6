//! What this process has made and must take away again: namespaces, processes, folders.
//!
//! The list lies in memory for drops and signals, and in a journal for the next run, should this process be killed
//! without a word. Only processes that stand in a list are ever ended, and only while their start time is the noted one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::command::run;

/// Folder of the journals, one file per process that has a lab.
const JOURNALS: &str = "/run/tsrs-lab";
/// Exit status after SIGINT, as shells count it.
const INTERRUPTED_STATUS: i32 = 130;

/// Everything that is to be removed.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Made {
    /// The process that made it.
    owner: i32,
    owner_started: u64,
    /// Process groups by leader, with the leader's start time.
    processes: BTreeMap<i32, u64>,
    namespaces: Vec<String>,
    folders: Vec<PathBuf>,
    /// Labs that stay up after the process has ended.
    kept: bool,
}

fn list() -> &'static Mutex<Made> {
    static MADE: OnceLock<Mutex<Made>> = OnceLock::new();
    MADE.get_or_init(|| {
        let owner = Pid::this().as_raw();
        Mutex::new(Made { owner, owner_started: start_time(owner).unwrap_or_default(), ..Made::default() })
    })
}

fn made() -> MutexGuard<'static, Made> {
    list().lock().unwrap_or_else(PoisonError::into_inner)
}

/// Clears what dead predecessors left, and makes SIGINT and SIGTERM clean up. Once per process; called by every build.
pub(crate) fn prepare() -> Result<()> {
    static DONE: OnceLock<()> = OnceLock::new();
    if DONE.set(()).is_err() {
        return Ok(());
    }
    sweep().context("clear what an earlier lab left")?;
    if cfg!(panic = "abort") {
        clean_up_at_panic();
    }
    std::thread::Builder::new().name("lab-signals".to_owned()).spawn(watch_signals)?;
    Ok(())
}

/// Where a panic ends the process at once, nothing is dropped.
fn clean_up_at_panic() {
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        previous(panic);
        // A panic in this module holds the list; then the next lab sweeps.
        if let Ok(mut made) = list().try_lock()
            && !made.kept
        {
            made.remove_all();
        }
    }));
}

fn watch_signals() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    let arrived = runtime.block_on(async {
        let (Ok(mut interrupt), Ok(mut terminate)) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return false;
        };
        tokio::select! {
            _ = interrupt.recv() => true,
            _ = terminate.recv() => true,
        }
    });
    if arrived {
        made().remove_all();
        std::process::exit(INTERRUPTED_STATUS);
    }
}

/// Removes what processes that are no more have left. Also what the `lab-tool sweep` command does.
pub fn sweep() -> Result<()> {
    let Ok(journals) = fs::read_dir(JOURNALS) else { return Ok(()) };
    for journal in journals {
        let path = journal?.path();
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let Ok(mut left) = serde_json::from_str::<Made>(&text) else { continue };
        if !left.kept && start_time(left.owner) != Some(left.owner_started) {
            left.remove_all();
        }
    }
    Ok(())
}

/// Removes labs that were left up on purpose, by the process that built them.
pub fn remove_kept(owner: i32) -> Result<()> {
    let path = journal_of(owner);
    let text = fs::read_to_string(&path).with_context(|| format!("no lab of process {owner}"))?;
    let mut left: Made = serde_json::from_str(&text)?;
    left.remove_all();
    Ok(())
}

/// Leaves everything up when this process ends.
pub fn keep() {
    let mut made = made();
    made.kept = true;
    made.write();
}

pub(crate) fn is_kept() -> bool {
    made().kept
}

pub(crate) fn note_process(pid: i32) {
    let mut made = made();
    made.processes.insert(pid, start_time(pid).unwrap_or_default());
    made.write();
}

pub(crate) fn forget_process(pid: i32) {
    let mut made = made();
    made.processes.remove(&pid);
    made.write();
}

pub(crate) fn note_namespace(name: &str) {
    let mut made = made();
    made.namespaces.push(name.to_owned());
    made.write();
}

/// Deletes a namespace of ours. Interfaces inside vanish with it.
pub(crate) fn remove_namespace(name: &str) {
    let mut made = made();
    delete_namespace(name);
    made.namespaces.retain(|known| known != name);
    made.write();
}

pub(crate) fn note_folder(path: &Path) {
    let mut made = made();
    made.folders.push(path.to_owned());
    made.write();
}

pub(crate) fn remove_folder(path: &Path) {
    let mut made = made();
    delete_folder(path);
    made.folders.retain(|known| known != path);
    made.write();
}

impl Made {
    fn remove_all(&mut self) {
        for (&pid, &started) in &self.processes {
            if start_time(pid) == Some(started) {
                // Already gone is as good.
                let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        self.namespaces.iter().for_each(|name| delete_namespace(name));
        self.folders.iter().for_each(|path| delete_folder(path));
        *self = Self { owner: self.owner, owner_started: self.owner_started, ..Self::default() };
        self.write();
    }

    /// Writes the journal, or removes it when nothing is left. A lab works without one, so failures are only logged.
    fn write(&self) {
        let path = journal_of(self.owner);
        let empty = self.processes.is_empty() && self.namespaces.is_empty() && self.folders.is_empty();
        if empty {
            // Neither file nor folder need be there; the folder stays while other processes have theirs in it.
            let _ = fs::remove_file(&path);
            let _ = fs::remove_dir(JOURNALS);
            return;
        }
        let result = fs::create_dir_all(JOURNALS).and_then(|()| fs::write(&path, serde_json::to_vec(self)?));
        if let Err(error) = result {
            tracing::warn!(%error, "lab journal not written");
        }
    }
}

fn journal_of(owner: i32) -> PathBuf {
    Path::new(JOURNALS).join(format!("{owner}.json"))
}

fn delete_namespace(name: &str) {
    if let Err(error) = run("ip", &["netns", "delete", name]) {
        tracing::warn!(%error, name, "lab namespace not removed");
    }
}

fn delete_folder(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path) {
        tracing::warn!(%error, path = %path.display(), "lab folder not removed");
    }
}

/// Clock ticks after boot at which a process started; tells a process from a later one with its number.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_start_time(&stat)
}

/// Field 22 of `/proc/PID/stat`; field 2 is a name in parentheses that may hold anything.
fn parse_start_time(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_is_found_behind_any_name() {
        let tail = (3..=30).map(|number| number.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(parse_start_time(&format!("7 (a) b (c)) {tail}")), Some(22));
        assert_eq!(parse_start_time("7 (cut"), None);
        assert_eq!(parse_start_time("7 (cut) S 1"), None);
    }

    #[test]
    fn this_process_has_a_start_time_and_process_zero_has_none() {
        assert!(start_time(Pid::this().as_raw()).is_some());
        assert_eq!(start_time(0), None);
    }
}
