//! What the watchers of the bus get: their first message, and what of each later one (client sheet §2.4).

use std::time::{Duration, Instant};

use tsrs_agent_localapi::{Notify, WatchMask};

/// How often a watcher that asks for it gets statistics and netmaps.
pub const RATE_LIMIT: Duration = Duration::from_secs(3);

/// Bits that ask for a first message.
const FIRST: WatchMask = WatchMask(
    WatchMask::INITIAL_STATE.0
        | WatchMask::INITIAL_PREFS.0
        | WatchMask::INITIAL_NETMAP.0
        | WatchMask::INITIAL_DRIVE_SHARES.0
        | WatchMask::INITIAL_OUTGOING_FILES.0
        | WatchMask::INITIAL_HEALTH.0
        | WatchMask::INITIAL_SUGGESTED_EXIT_NODE.0
        | WatchMask::INITIAL_CLIENT_VERSION.0
        | WatchMask::INITIAL_STATUS.0,
);

/// Reads the parameter `mask`. Absent is zero.
///
/// # Errors
/// It is no number, or asks for what only the inside of the official daemon may have. The text is the answer.
pub fn parse_mask(mask: Option<&str>) -> Result<WatchMask, &'static str> {
    let Some(text) = mask.filter(|text| !text.is_empty()) else { return Ok(WatchMask::default()) };
    let mask = WatchMask(text.parse().map_err(|_| "bad mask")?);
    if mask.has(WatchMask::IN_PROCESS) {
        return Err("NotifyInProcessNoDisconnect is only valid for in-process IPN bus subscribers");
    }
    Ok(mask)
}

/// Cuts a message that holds everything to the first message that a watcher asked for; `None` if it asked for none.
pub fn first(mask: WatchMask, everything: Notify) -> Option<Notify> {
    if !mask.has(FIRST) {
        return None;
    }
    let mut first = Notify { version: everything.version, ..Notify::default() };
    if mask.has(WatchMask::INITIAL_STATE) {
        first.session_id = everything.session_id;
        first.state = everything.state;
        first.browse_to_url = everything.browse_to_url;
    }
    if mask.has(WatchMask::INITIAL_PREFS) {
        first.prefs = everything.prefs;
    }
    if mask.has(WatchMask::INITIAL_NETMAP) {
        first.net_map = everything.net_map;
        first.self_change = everything.self_change;
    }
    if mask.has(WatchMask::INITIAL_HEALTH) {
        first.health = everything.health;
    }
    if mask.has(WatchMask::INITIAL_STATUS) {
        first.initial_status = everything.initial_status;
    }
    if mask.has(WatchMask::PEER_STATE) {
        first.peer_state = everything.peer_state;
    }
    Some(first)
}

/// Cuts a later message to what a watcher asked for; `None` if nothing is left.
pub fn later(mask: WatchMask, notify: &Notify) -> Option<Notify> {
    // Most watchers want no peers; the lists are not copied for them.
    let peers = mask.has(WatchMask::PEER_CHANGES);
    let patches = mask.has(WatchMask::PEER_PATCHES);
    let cut = Notify {
        version: notify.version.clone(),
        session_id: String::new(),
        err_message: notify.err_message.clone(),
        login_finished: notify.login_finished,
        state: notify.state,
        prefs: notify.prefs.clone(),
        self_change: notify.self_change.clone(),
        initial_status: None,
        net_map: if mask.has(WatchMask::NO_NETMAP) { None } else { notify.net_map.clone() },
        peer_changed_patch: if patches { notify.peer_changed_patch.clone() } else { Vec::new() },
        peers_changed: if peers { notify.peers_changed.clone() } else { Vec::new() },
        peers_removed: if peers { notify.peers_removed.clone() } else { Vec::new() },
        user_profiles: if peers { notify.user_profiles.clone() } else { Default::default() },
        peer_state: if mask.has(WatchMask::PEER_STATE) {
            notify.peer_state.clone()
        } else {
            Default::default()
        },
        engine: notify.engine.clone(),
        browse_to_url: notify.browse_to_url.clone(),
        drive_shares: notify.drive_shares.clone(),
        outgoing_files: notify.outgoing_files.clone(),
        health: notify.health.clone(),
    };
    (!cut.is_empty()).then_some(cut)
}

/// Holds back statistics and netmaps of one watcher that asked for a rate limit.
///
/// Everything else goes out at once and takes along what was held back.
#[derive(Debug, Default)]
pub struct RateLimiter {
    held: Option<Notify>,
    last_sent: Option<Instant>,
}

impl RateLimiter {
    /// Takes a message; gives what to send now.
    pub fn handle(&mut self, notify: Notify, now: Instant) -> Option<Notify> {
        let can_wait =
            Notify { engine: None, net_map: None, ..notify.clone() }.is_empty() && !self.is_due(now);
        let merged = match self.held.take() {
            Some(held) => Notify {
                engine: notify.engine.clone().or(held.engine),
                net_map: notify.net_map.clone().or(held.net_map),
                ..notify
            },
            None => notify,
        };
        if can_wait {
            self.held = Some(merged);
            return None;
        }
        self.last_sent = Some(now);
        Some(merged)
    }

    /// Gives what was held back when its time has come.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Notify> {
        if !self.is_due(now) {
            return None;
        }
        let held = self.held.take()?;
        self.last_sent = Some(now);
        Some(held)
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.held.as_ref()?;
        self.last_sent.and_then(|at| at.checked_add(RATE_LIMIT))
    }

    fn is_due(&self, now: Instant) -> bool {
        self.last_sent.is_none_or(|at| now.saturating_duration_since(at) >= RATE_LIMIT)
    }
}

#[cfg(test)]
mod tests;
