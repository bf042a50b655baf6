//! The control client: when one runs, and what its events mean.

use rand_core::CryptoRngCore;
use tsrs_agent_localapi::notify::{Empty, HealthAction, HealthWarning};
use tsrs_agent_localapi::{NetworkProfile, Notify, UserProfile};
use tsrs_base_types::StableNodeId;
use tsrs_control_netmap::Change;
use tsrs_control_tailcfg::{Hostinfo, Login, User};

use super::{Agent, ControlAction, ControlEvent, ControlStart, Now, TroubleKind};
use crate::health::Problem;
use crate::wanted;

impl<R: CryptoRngCore> Agent<R> {
    /// Takes an event of the control client.
    pub fn handle_control(&mut self, event: ControlEvent, now: Now) {
        if !self.control_running {
            // It was stopped while the event was on its way.
            return;
        }
        match event {
            ControlEvent::AuthUrl(url) => {
                self.login.auth_url = Some(url.clone());
                self.login.error = None;
                self.tell(Notify { browse_to_url: Some(url), ..self.message() });
            }
            ControlEvent::LoggedIn { node_key, old_node_key, user, login } => {
                let kept = &mut self.state.profiles.current_mut().login;
                let new_key = kept.node_key.as_ref() != Some(&node_key);
                kept.node_key = Some(node_key);
                kept.old_node_key = old_node_key;
                self.note_logged_in(new_key, &user, &login, now);
            }
            ControlEvent::LoggedOut => {
                // The caller finishes the log-out; a server that expired us on its own leads to a login.
                self.control_online = false;
            }
            ControlEvent::Netmap { netmap, changes } => self.note_netmap(netmap, changes, now),
            ControlEvent::Online => {
                self.control_online = true;
                self.health.clear(Problem::TlsConnectionFailed);
            }
            ControlEvent::Offline => self.control_online = false,
            ControlEvent::KeyExpired => {}
            ControlEvent::Trouble { kind, during_login, text } => {
                self.note_trouble(kind, during_login, &text, now)
            }
            ControlEvent::OpenPage(url) => self.tell(Notify { browse_to_url: Some(url), ..self.message() }),
        }
        self.settle(now);
    }

    fn note_logged_in(&mut self, new_key: bool, user: &User, login: &Login, now: Now) {
        self.login.auth_url = None;
        self.login.error = None;
        let by_user = std::mem::take(&mut self.login.by_user);
        self.login.wanted = false;
        let profile = self.state.profiles.current_mut();
        if by_user {
            profile.prefs.logged_out = false;
            profile.prefs.want_running = true;
        }
        // The account is saved under its id at once, with its keys; the netmap tells the rest.
        let node_id = if new_key && profile.login.node_id.0.is_empty() {
            StableNodeId::default()
        } else {
            profile.login.node_id.clone()
        };
        let network = profile.meta.network_profile.clone();
        let user = merged(user, login, &profile.login.user);
        self.state.profiles.note_login(user, node_id, network, now.wall.into(), &mut self.rng);
        self.save();
        if new_key {
            self.tell_node_key();
        }
        if by_user || new_key {
            self.tell(Notify { login_finished: Some(Empty {}), ..self.message() });
            self.tell_prefs();
        }
        let public = self.state.profiles.current().login.public_node_key();
        let faster = self.netmap.clone().filter(|netmap| new_key && netmap.self_node().key == public);
        if let Some(netmap) = faster {
            self.tell_netmap(&netmap, &[Change::SelfNode], true);
        }
    }

    fn note_trouble(&mut self, kind: TroubleKind, during_login: bool, text: &str, now: Now) {
        if kind == TroubleKind::Certificate {
            self.health.set(Problem::TlsConnectionFailed, text, now.mono, now.wall);
        }
        if !during_login {
            if kind == TroubleKind::NodeUnknown {
                self.node_unknown = true;
                // Only a registration helps now.
                self.register_now();
            }
            return;
        }
        let first_login = self.state.profiles.current().login.node_key.is_none();
        if self.login.wanted || kind != TroubleKind::Passing {
            self.login.error = Some(text.to_owned());
        }
        // Clients take this as final. While somebody waits for a first login, an unreachable server is news too: its URL
        // may be wrong.
        if self.login.wanted && (kind != TroubleKind::Passing || first_login) {
            self.tell(Notify { err_message: Some(text.to_owned()), ..self.message() });
        }
    }

    /// The first netmap of a login tells who this node is.
    pub(super) fn note_identity(&mut self, now: Now) {
        let Some(netmap) = &self.netmap else { return };
        let node = netmap.self_node();
        let known = &self.state.profiles.current().login;
        let user = netmap
            .user_profile(node.user)
            .map_or_else(|| known.user.clone(), |user| UserProfile::clone(user));
        let network = NetworkProfile {
            magic_dns_name: netmap.magic_dns_suffix().to_owned(),
            domain_name: netmap.domain().to_owned(),
            display_name: String::new(),
        };
        let node_id = node.stable_id.clone();
        if self.state.profiles.note_login(user, node_id, network, now.wall.into(), &mut self.rng) {
            self.save();
            self.tell_prefs();
        }
    }

    pub(super) fn note_display_messages(&mut self) {
        let Some(netmap) = &self.netmap else { return };
        let messages = netmap.display_messages().into_iter().map(|(id, message)| {
            let primary_action =
                message.primary_action.map(|action| HealthAction { url: action.url, label: action.label });
            let warning = HealthWarning {
                severity: message.severity,
                title: message.title,
                text: message.text,
                impacts_connectivity: message.impacts_connectivity,
                primary_action,
                ..HealthWarning::default()
            };
            (id, warning)
        });
        self.health.set_control(messages);
    }

    /// A client runs while there is a key to use or a login to make.
    pub(super) fn settle_control(&mut self) {
        let profile = self.state.profiles.current();
        let registered = profile.login.node_key.is_some();
        let wanted = self.login.wanted
            || (self.login.leaving && registered)
            || (registered && profile.prefs.want_running && !profile.prefs.logged_out);
        match (wanted, self.control_running) {
            (true, false) if self.cache_asked => {}
            (true, false) => {
                self.start_control();
                if registered && !self.login.wanted && !self.login.leaving {
                    self.control(ControlAction::Login { renew: false, auth_key: None });
                }
            }
            (false, true) => self.stop_control(),
            (true, true) | (false, false) => {}
        }
    }

    fn start_control(&mut self) {
        let profile = self.state.profiles.current();
        let start = ControlStart {
            server_url: profile.prefs.control_url.clone(),
            machine_key: self.state.machine_key.clone(),
            node_key: profile.login.node_key.clone(),
            old_node_key: profile.login.old_node_key.clone(),
            lock_key: profile.login.lock_key.clone(),
            hostinfo: self.hostinfo(),
            netmap: self.lock.full.clone(),
            lock_head: self.lock_head(),
            paused: !self.link.any_up(),
        };
        self.control_running = true;
        self.control_online = false;
        self.control(ControlAction::Start(Box::new(start)));
    }

    pub(super) fn stop_control(&mut self) {
        if std::mem::take(&mut self.control_running) {
            self.control_online = false;
            self.node_unknown = false;
            self.login.delayed = None;
            self.lock.keeper.interrupt();
            self.control(ControlAction::Stop);
        }
    }

    /// The description of this host, as the control server shall see it now.
    fn hostinfo(&self) -> Hostinfo {
        wanted::hostinfo(&self.host, &self.state.profiles.current().prefs, &self.subnets())
    }

    pub(super) fn tell_control_about_us(&mut self) {
        if self.control_running {
            let hostinfo = Box::new(self.hostinfo());
            self.control(ControlAction::Hostinfo(hostinfo));
        }
    }
}

/// Who logged in: what the answer names, completed by what was known.
fn merged(user: &User, login: &Login, known: &UserProfile) -> UserProfile {
    let first =
        |texts: [&str; 3]| texts.into_iter().find(|text| !text.is_empty()).unwrap_or_default().to_owned();
    UserProfile {
        id: if user.id.0 == 0 { known.id } else { user.id },
        login_name: first([&login.login_name, &known.login_name, &user.display_name]),
        display_name: first([&user.display_name, &login.display_name, &known.display_name]),
        profile_pic_url: first([&user.profile_pic_url, &login.profile_pic_url, &known.profile_pic_url]),
        ..UserProfile::default()
    }
}
