//! Waiting for a condition of the world, with a limit.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition outside this process is looked at. Short beside everything a lab waits for.
const INTERVAL: Duration = Duration::from_millis(20);

/// Looks until `check` gives something; an error that names `what` when `limit` has passed.
pub fn until<T>(what: &str, limit: Duration, mut check: impl FnMut() -> Option<T>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = check() {
            return Ok(found);
        }
        if Instant::now() >= end {
            bail!("waited {limit:?} in vain: {what}");
        }
        std::thread::sleep(INTERVAL);
    }
}

/// Like [`until`] for a check that may fail; the last failure stands in the error.
pub fn until_ok<T>(what: &str, limit: Duration, mut check: impl FnMut() -> Result<T>) -> Result<T> {
    let mut last = None;
    let found = until(what, limit, || match check() {
        Ok(found) => Some(found),
        Err(error) => {
            last = Some(error);
            None
        }
    });
    found.map_err(|error| match last {
        Some(last) => error.context(format!("last try: {last:#}")),
        None => error,
    })
}
