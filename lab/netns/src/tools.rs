//! Finding the programs of others that tests run against, and saying loudly when one is missing.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Folder that is searched for `tailscaled` and `tailscale` before `PATH`.
const TAILSCALE_FOLDER: &str = "TSRS_TAILSCALED_DIR";
/// File that collects the tests skipped by all test programs of a run.
const SKIP_LOG: &str = "TSRS_SKIP_LOG";

static SKIPPED: AtomicUsize = AtomicUsize::new(0);

/// Where a program lies: the folder named by `TSRS_TAILSCALED_DIR` for Tailscale's own, then `PATH`.
pub fn find(program: &str) -> Option<PathBuf> {
    let named = std::env::var_os(TAILSCALE_FOLDER).filter(|_| program.starts_with("tailscale"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    named
        .map(PathBuf::from)
        .into_iter()
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// A program of ours that was built into the same target folder as the running program or test.
pub fn beside(program: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    own.ancestors().skip(1).take(2).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Where all of these programs lie; or a loud, counted skip.
pub fn find_all(test: &str, programs: &[&str]) -> Option<Vec<PathBuf>> {
    let missing: Vec<&str> = programs.iter().copied().filter(|program| find(program).is_none()).collect();
    if missing.is_empty() {
        return Some(programs.iter().filter_map(|program| find(program)).collect());
    }
    skip(test, &format!("not found: {}", missing.join(", ")));
    None
}

/// Counts a test that cannot run here, and says so past the test runner's capture and in the file that collects them.
pub fn skip(test: &str, reason: &str) {
    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    let line = format!("SKIPPED ({count}): {test}: {reason}\n");
    if let Some(path) = std::env::var_os(SKIP_LOG)
        && let Ok(mut log) = std::fs::File::options().create(true).append(true).open(path)
    {
        // The line below is said in any case.
        let _ = log.write_all(format!("{test}: {reason}\n").as_bytes());
    }
    // Written to the descriptor itself: the runner captures only what goes through the print macros.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Tests skipped so far in this process.
pub fn skipped() -> usize {
    SKIPPED.load(Ordering::Relaxed)
}
