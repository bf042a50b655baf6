//! The timers of one peer (data-plane sheet §1.4).

use std::sync::Arc;
use std::time::Instant;

use super::Device;
use crate::limits::{KEEPALIVE_TIMEOUT, NEW_HANDSHAKE_AFTER, REJECT_AFTER_TIME, REKEY_TIMEOUT};
use crate::peers::{Active, PeerId};
use crate::session::{Role, Session};

impl Device {
    /// Does all that is due for a peer: what workers have noted, what is too old, what is to be sent.
    pub(super) fn run_peer(&mut self, id: PeerId, now: Instant) {
        let idle = self.with_active(id, now, |device, active| {
            if active.next.as_ref().is_some_and(|next| next.is_confirmed()) {
                device.promote_next(active, now);
            }
            device.end_expired(active, now);
            device.run_handshake(id, active, now);
            device.run_silence(id, active, now);
            device.run_rekey(id, active, now);
            active.zero_at <= now && active.handshake.is_none()
        });
        if idle == Some(true) {
            self.deactivate(id);
        }
    }

    /// Begins the handshake for the successor of a session, if traffic asked for it.
    ///
    /// The previous session counts while it is the only one that we began: after handshakes that crossed, each side
    /// may send by the session that the other began, and would leave the renewal to it.
    pub(super) fn run_rekey(&mut self, id: PeerId, active: &mut Active, now: Instant) {
        let wants =
            |session: &Option<Arc<Session>>| session.as_ref().is_some_and(|session| session.wants_rekey());
        let crossed = match (&active.current, &active.previous) {
            (Some(current), Some(previous)) => {
                current.role() == Role::Responder
                    && current.created().saturating_duration_since(previous.created()) < REKEY_TIMEOUT
            }
            _ => false,
        };
        let wanted = wants(&active.current) || (crossed && wants(&active.previous));
        if wanted && active.handshake.is_none() {
            self.want_handshake(id, active, now);
        }
    }

    /// Ends our silence with a keepalive and the peer's with a handshake.
    fn run_silence(&mut self, id: PeerId, active: &mut Active, now: Instant) {
        if keepalive_at(active).is_some_and(|at| now >= at) {
            self.send_keepalive(active, now);
            // Also where there was no session to send it.
            active.activity.forget_received();
        }
        if silence_ends_at(active).is_some_and(|at| now >= at) {
            active.activity.forget_sent();
            active.silence_jitter = self.jitter();
            self.want_handshake(id, active, now);
        }
    }

    /// Sets the one timer of a peer to the earliest of all that it waits for.
    pub(super) fn set_timer(&mut self, id: PeerId, active: &mut Active, now: Instant) {
        let next = next_deadline(active, now);
        if active.deadline != Some(next) {
            if let Some(before) = active.deadline.replace(next) {
                self.timers.remove(&(before, id));
            }
            self.timers.insert((next, id));
        }
    }
}

fn next_deadline(active: &Active, now: Instant) -> Instant {
    let mut next = match &active.handshake {
        Some(handshake) => handshake.next_at,
        None => active.zero_at,
    };
    for session in active.sessions() {
        next = next.min(session.created() + REJECT_AFTER_TIME);
    }
    // Workers are told to speak up before the times are read, so that none is missed in between. While one of the times
    // runs they stay quiet: whatever they start later is seen when the shorter of the two delays is over.
    active.activity.set_watched(false);
    let silence = [keepalive_at(active), silence_ends_at(active)];
    if let Some(first) = silence.into_iter().flatten().min() {
        active.activity.set_watched(true);
        next = next.min(first).min(now + KEEPALIVE_TIMEOUT);
    }
    next
}

fn keepalive_at(active: &Active) -> Option<Instant> {
    Some(active.activity.unanswered_received()? + KEEPALIVE_TIMEOUT)
}

fn silence_ends_at(active: &Active) -> Option<Instant> {
    Some(active.activity.unanswered_sent()? + NEW_HANDSHAKE_AFTER + active.silence_jitter)
}
