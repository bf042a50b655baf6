//! The agent's state, computed from facts and never stored (client sheet §2.4, control sheet §20).

use tsrs_agent_localapi::BackendState;

/// What the state follows from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The state file has been read and a profile chosen.
    pub loaded: bool,
    /// The user wants the tunnel up.
    pub want_running: bool,
    /// The user logged out, or never logged in.
    pub logged_out: bool,
    /// The profile has a node key.
    pub have_node_key: bool,
    /// There is a netmap, from control or from the disk.
    pub have_netmap: bool,
    /// The node key has expired.
    pub key_expired: bool,
    /// The netmap says that an admin approved the device.
    pub machine_authorized: bool,
    /// A login waits for a human, or failed in a way that only a human can mend.
    pub login_blocked: bool,
    /// The tunnel carries traffic: address set, and a relay or a peer was reached or has had its time.
    pub tunnel_up: bool,
}

/// The state that the facts amount to.
pub fn derive(facts: &Facts) -> BackendState {
    let &Facts { loaded, want_running, logged_out, have_node_key, have_netmap, .. } = facts;
    if !loaded {
        return BackendState::NoState;
    }
    if logged_out || !have_node_key {
        return BackendState::NeedsLogin;
    }
    if !want_running {
        return BackendState::Stopped;
    }
    if !have_netmap {
        return if facts.login_blocked { BackendState::NeedsLogin } else { BackendState::Starting };
    }
    if facts.key_expired {
        return BackendState::NeedsLogin;
    }
    if !facts.machine_authorized {
        return BackendState::NeedsMachineAuth;
    }
    if facts.tunnel_up { BackendState::Running } else { BackendState::Starting }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = Facts> {
        (0_u32..512).map(|bits| {
            let bit = |n: u32| bits & (1 << n) != 0;
            Facts {
                loaded: bit(0),
                want_running: bit(1),
                logged_out: bit(2),
                have_node_key: bit(3),
                have_netmap: bit(4),
                key_expired: bit(5),
                machine_authorized: bit(6),
                login_blocked: bit(7),
                tunnel_up: bit(8),
            }
        })
    }

    #[test]
    fn running_needs_every_condition() {
        let running: Vec<Facts> = all().filter(|facts| derive(facts) == BackendState::Running).collect();
        // A pending forced login does not take the tunnel down: the old key works on.
        assert_eq!(running.len(), 2);
        for facts in running {
            assert!(facts.loaded && facts.want_running && facts.have_node_key && facts.have_netmap);
            assert!(facts.machine_authorized && facts.tunnel_up && !facts.key_expired && !facts.logged_out);
        }
    }

    #[test]
    fn who_wants_it_down_never_sees_it_up() {
        for facts in all().filter(|facts| !facts.want_running) {
            let state = derive(&facts);
            assert!(
                [BackendState::NoState, BackendState::Stopped, BackendState::NeedsLogin].contains(&state),
                "{facts:?}: {state:?}"
            );
        }
    }

    #[test]
    fn captured_situations_have_their_state() {
        let up = Facts {
            loaded: true,
            want_running: true,
            have_node_key: true,
            have_netmap: true,
            machine_authorized: true,
            tunnel_up: true,
            ..Facts::default()
        };
        for (facts, state) in [
            (Facts::default(), BackendState::NoState),
            (Facts { loaded: true, logged_out: true, ..Facts::default() }, BackendState::NeedsLogin),
            (Facts { have_node_key: false, have_netmap: false, ..up }, BackendState::NeedsLogin),
            (Facts { have_netmap: false, ..up }, BackendState::Starting),
            (Facts { have_netmap: false, login_blocked: true, ..up }, BackendState::NeedsLogin),
            (Facts { key_expired: true, ..up }, BackendState::NeedsLogin),
            (Facts { key_expired: true, want_running: false, ..up }, BackendState::Stopped),
            (Facts { machine_authorized: false, ..up }, BackendState::NeedsMachineAuth),
            (Facts { tunnel_up: false, ..up }, BackendState::Starting),
            (Facts { login_blocked: true, ..up }, BackendState::Running),
            (Facts { want_running: false, ..up }, BackendState::Stopped),
            (up, BackendState::Running),
        ] {
            assert_eq!(derive(&facts), state, "{facts:?}");
        }
    }
}
