//! Carrying out what the agent asks for.

use std::sync::Arc;
use std::time::Instant;

use tsrs_agent_core::agent::{Action, ControlAction, ControlEvent, ControlStart, Kept, Notice, TroubleKind};
use tsrs_agent_core::health::Problem;
use tsrs_agent_core::lock::StoreStep;
use tsrs_agent_core::state_file;
use tsrs_agent_core::status::engine_status;
use tsrs_agent_core::wanted::{HostChange as Wanted, HostEntry};
use tsrs_agent_localapi::Notify;
use tsrs_agent_services::dns::HostChange;
use tsrs_control_netmap::{Netmap, read_cache, write_cache};

use super::{Backend, Input, LOGOUT_LIMIT, RunningControl, SAVE_RETRY, now};
use crate::bus::BusItem;
use crate::{chain_store, store};

/// Largest cached netmap that is read: what control may send (design: 64 MiB), as JSON.
const MAX_NETMAP_LEN: usize = 128 << 20;

impl Backend {
    /// Carries out everything that the agent asks for, in its order, then publishes what readers see.
    pub(super) async fn drain(&mut self) {
        loop {
            while let Some(notice) = self.agent.poll_notice() {
                self.publish();
                self.tell(notice).await;
            }
            let Some(action) = self.agent.poll_action() else { break };
            self.carry_out(action).await;
        }
        self.publish();
    }

    fn publish(&self) {
        self.snapshot.send_replace(Arc::new(self.agent.snapshot(now())));
    }

    async fn tell(&mut self, notice: Notice) {
        let item = match notice {
            Notice::Message(notify) => BusItem { notify: Arc::new(*notify), netmap: None },
            Notice::WithNetmap(notify, netmap) => {
                let key = self.agent.snapshot(now()).node_key;
                BusItem { notify: Arc::new(*notify), netmap: Some((netmap, key)) }
            }
            Notice::EngineStatus if !self.bus.is_watched() => return,
            Notice::EngineStatus => {
                let engine = Some(engine_status(&self.tunnel.live().await));
                let version = self.agent.snapshot(now()).version;
                BusItem { notify: Arc::new(Notify { version, engine, ..Notify::default() }), netmap: None }
            }
        };
        self.logged.note(&item.notify);
        self.bus.tell(item);
    }

    async fn carry_out(&mut self, action: Action) {
        match action {
            Action::Save => self.save().await,
            Action::CacheNetmap { profile_id, netmap } => self.write_netmap(&profile_id, netmap).await,
            Action::StoreLock { profile_id, steps } => self.write_chain(&profile_id, steps).await,
            Action::ForgetProfile(profile_id) => self.forget_profile(&profile_id),
            Action::LoadProfile(profile_id) => {
                let kept = self.read_kept(&profile_id).await;
                self.agent.handle_kept(&profile_id, kept, now());
            }
            Action::Control(action) => self.control(action),
            Action::Tunnel(action) => self.tunnel.act(action).await,
            Action::Router(config) => {
                self.routes.set(&config);
                self.router_asked = self.host.set_router(config);
            }
            Action::Dns(config) => self.dns_asked = self.host.set_dns(config),
            Action::Resolver(config) => {
                if let Some(dns) = &self.dns {
                    dns.set_config(config).await;
                }
            }
            Action::Hosts(changes) => {
                if let Some(dns) = &self.dns {
                    dns.change_hosts(changes.into_iter().map(host_change).collect()).await;
                }
            }
        }
    }

    /// Writes the state file; a failure is shown, retried, and told to whoever asked for the change.
    pub(super) async fn save(&mut self) {
        self.save_again = None;
        let encoded = state_file::encode(self.agent.state());
        let path = self.store.state_file().to_owned();
        let written = tokio::task::spawn_blocking(move || {
            let bytes = encoded.map_err(std::io::Error::other)?;
            store::write_atomically(&path, &bytes)
        });
        let error = match written.await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("{}: {error}", self.store.state_file().display())),
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = &error {
            tracing::error!(error, "the state was not saved");
            self.save_again = Some(Instant::now() + SAVE_RETRY);
        }
        self.save_error = error;
        let detail = self.save_error.clone();
        self.agent.note_problem(Problem::StateStore, detail.as_deref(), now());
    }

    async fn write_netmap(&self, profile_id: &str, netmap: Arc<Netmap>) {
        let path = self.store.netmap_file(profile_id);
        let written = tokio::task::spawn_blocking(move || {
            let mut json = Vec::new();
            write_cache(&netmap, &mut json).map_err(std::io::Error::other)?;
            store::write_atomically(&path, &json)
        });
        match written.await {
            Ok(Ok(())) => {}
            // The next start then waits for control; nothing else is lost.
            Ok(Err(error)) => tracing::warn!(%error, "the netmap was not cached"),
            Err(error) => tracing::warn!(%error, "the netmap was not cached"),
        }
    }

    /// What the disk keeps of a profile; nothing of one that has no id yet.
    pub(super) async fn read_kept(&self, profile_id: &str) -> Kept {
        let netmap = self.read_netmap(profile_id).await;
        if profile_id.is_empty() {
            return Kept { netmap, ..Kept::default() };
        }
        let dir = self.store.chain_dir(profile_id);
        let read = tokio::task::spawn_blocking(move || chain_store::load(&dir));
        let chain = read.await.unwrap_or_else(|error| Err(error.to_string()));
        if let Err(error) = &chain {
            tracing::error!(error, "the chain of Tailnet Lock cannot be read");
        }
        Kept { netmap, chain }
    }

    async fn write_chain(&mut self, profile_id: &str, steps: Vec<StoreStep>) {
        let dir = self.store.chain_dir(profile_id);
        let written = tokio::task::spawn_blocking(move || {
            chain_store::write(&dir, &steps).map_err(|error| format!("{}: {error}", dir.display()))
        });
        let result = written.await.unwrap_or_else(|error| Err(error.to_string()));
        if let Err(error) = &result {
            tracing::error!(error, "the chain of Tailnet Lock was not written");
        }
        self.agent.handle_lock_stored(result, now());
    }

    fn forget_profile(&self, profile_id: &str) {
        let (netmap, chain) = (self.store.netmap_file(profile_id), self.store.chain_dir(profile_id));
        if let Err(error) = std::fs::remove_file(&netmap)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %netmap.display(), "a cached netmap could not be removed");
        }
        if let Err(error) = chain_store::clear(&chain) {
            tracing::warn!(%error, path = %chain.display(), "the chain of Tailnet Lock could not be removed");
        }
    }

    async fn read_netmap(&self, profile_id: &str) -> Option<Arc<Netmap>> {
        if profile_id.is_empty() {
            return None;
        }
        let path = self.store.netmap_file(profile_id);
        let shown = path.display().to_string();
        let read = tokio::task::spawn_blocking(move || {
            let json = store::read(&path, MAX_NETMAP_LEN).map_err(|error| error.to_string())?;
            let netmap = json.map(|json| read_cache(&json, jiff::Timestamp::now()));
            netmap.transpose().map_err(|error| error.to_string())
        });
        match read.await {
            Ok(Ok(netmap)) => netmap,
            Ok(Err(error)) => {
                tracing::warn!(error, path = shown, "the cached netmap is not used");
                None
            }
            Err(error) => {
                tracing::warn!(%error, "the cached netmap is not used");
                None
            }
        }
    }

    fn control(&mut self, action: ControlAction) {
        if let ControlAction::Start(start) = action {
            return self.start_control(*start);
        }
        let Some(control) = &self.control else {
            return tracing::debug!(?action, "no control client runs");
        };
        match action {
            ControlAction::Start(_) => {}
            ControlAction::Stop => self.control = None,
            ControlAction::Login { renew, auth_key } => {
                if let Err(text) = control.handle.login(renew, auth_key) {
                    let event = ControlEvent::Trouble { kind: TroubleKind::Final, during_login: true, text };
                    self.agent.handle_control(event, now());
                }
            }
            ControlAction::Logout => {
                let Some(reply) = self.logout_reply.take() else { return };
                let (asking, inputs) = (control.handle.logout(), self.inputs.clone());
                tokio::spawn(async move {
                    let result = tokio::time::timeout(LOGOUT_LIMIT, asking).await;
                    let result = result
                        .unwrap_or_else(|_| Err("the control server did not answer in time".to_owned()));
                    // The backend may be ending.
                    let _ = inputs.send(Input::LogoutDone(result, reply)).await;
                });
            }
            ControlAction::Lock { number, call } => {
                let (asking, inputs) = (control.handle.lock_call(call), self.inputs.clone());
                tokio::spawn(async move {
                    let answer = asking.await;
                    // The backend may be ending.
                    let _ = inputs.send(Input::LockAnswer(number, answer)).await;
                });
            }
            ControlAction::LockHead(head) => control.handle.set_lock_head(head),
            ControlAction::Hostinfo(hostinfo) => control.handle.set_hostinfo(*hostinfo),
            ControlAction::Pause(paused) => control.handle.set_paused(paused),
        }
    }

    fn start_control(&mut self, start: ControlStart) {
        self.last_control += 1;
        let number = self.last_control;
        match self.starter.start(start, self.facts.clone()) {
            Ok(mut started) => {
                self.control = Some(RunningControl { number, handle: started.handle });
                let inputs = self.inputs.clone();
                // Ends with the client.
                tokio::spawn(async move {
                    while let Some(event) = started.events.recv().await {
                        if inputs.send(Input::Control(number, event)).await.is_err() {
                            return;
                        }
                    }
                });
            }
            Err(text) => {
                let event = ControlEvent::Trouble { kind: TroubleKind::Final, during_login: true, text };
                self.agent.handle_control(event, now());
            }
        }
    }
}

fn host_change(change: Wanted) -> HostChange {
    match change {
        Wanted::Set(HostEntry { name, addresses, with_subdomains }) => {
            HostChange::Set { name, addresses, with_subdomains }
        }
        Wanted::Remove(name) => HostChange::Remove(name),
    }
}

/// What clients ask of the parts behind the agent.
impl Backend {
    /// Lets the node key expire earlier; `None` without a control client.
    pub(crate) fn set_expiry_sooner(
        &self,
        at: jiff::Timestamp,
    ) -> Option<futures_util::future::BoxFuture<'static, Result<(), String>>> {
        self.control.as_ref().map(|control| control.handle.set_expiry_sooner(at))
    }

    /// The control client, for calls that a user makes; `None` without one.
    pub(crate) fn control_client(&self) -> Option<tsrs_control_client::Handle> {
        self.control.as_ref().and_then(|control| control.handle.client())
    }

    /// Makes the connection to control anew, and with it the netmap.
    pub(crate) fn reconnect_control(&self) {
        if let Some(control) = &self.control {
            control.handle.note_link_change();
        }
    }

    /// Removes the cached netmaps of all accounts.
    pub(crate) fn forget_cached_netmaps(&self) -> std::io::Result<()> {
        for profile in self.agent.state().profiles.saved() {
            match std::fs::remove_file(self.store.netmap_file(&profile.meta.id)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}
