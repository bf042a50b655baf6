//! `POST /machine/register` (control sheet §8), apart from HTTP.

use jiff::Timestamp;
use rand_core::{OsRng, RngCore};
use tsrs_base_types::time::WireTime;
use tsrs_base_types::{LockPublic, MachinePublic, NodeId, NodePublic};
use tsrs_control_tailcfg::{
    Base64, CapabilityVersion, Hostinfo, Login, RegisterRequest, RegisterResponse, User,
};

use super::{LabNode, Tailnet, set_hostinfo};
use crate::keys::{KeyRefused, KeySpec};

/// Path below which login pages lie.
pub(crate) const LOGIN_PATH: &str = "/register/";

/// A login that waits for somebody to visit its page.
#[derive(Clone, Debug)]
pub struct PendingLogin {
    /// Number of its page.
    pub id: String,
    /// The machine that wants in.
    pub machine: MachinePublic,
    /// The node key that wants in.
    pub key: NodePublic,
    /// What it told about itself.
    pub hostinfo: Hostinfo,
    pub(crate) version: CapabilityVersion,
    pub(crate) old_key: NodePublic,
    pub(crate) lock_key: LockPublic,
    pub(crate) ephemeral: bool,
    /// Set when the login was refused on its page.
    pub(crate) refused: bool,
}

/// What a register call leads to.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// This answer, at once.
    Answer(Box<RegisterResponse>),
    /// An answer when the login of this id is decided; call again then.
    Wait(String),
}

impl Tailnet {
    /// Handles one register call of an authenticated machine.
    pub(crate) fn register(
        &mut self,
        machine: MachinePublic,
        request: &RegisterRequest,
        now: Timestamp,
    ) -> Outcome {
        let known =
            self.node_by_key(&request.node_key).map(|node| (node.id, node.machine, node.expired(now)));
        if let Some((_, owner, _)) = known
            && owner != machine
        {
            return refuse("node key is in use by another machine");
        }
        if let Some(expiry) = request.expiry.timestamp() {
            return match known {
                Some((id, ..)) => self.change_expiry(id, expiry, now),
                None => Outcome::Answer(Box::new(RegisterResponse {
                    node_key_expired: true,
                    ..RegisterResponse::default()
                })),
            };
        }
        if let Some(wait) = self.follow_up(request) {
            return wait;
        }
        let auth_key = request.auth.as_ref().map(|auth| auth.auth_key.expose()).filter(|key| !key.is_empty());
        let renews = match known {
            Some((id, ..)) => Some(id),
            None => {
                auth_key.and_then(|_| self.node_that_was(machine, request.old_node_key)).map(|node| node.id)
            }
        };
        if let Some(signature) = renews.and_then(|id| self.signature_to_renew(id, request)) {
            return Outcome::Answer(Box::new(RegisterResponse {
                node_key_signature: Some(signature),
                ..RegisterResponse::default()
            }));
        }
        if let Some((id, _, false)) = known {
            // A restart: the key, if one is still configured, is not used up again.
            self.refresh(id, request);
            return self.success(id);
        }
        match auth_key {
            Some(text) => match self.use_key(text, now) {
                Ok(spec) => {
                    let id = self.admit(&Applicant::of(machine, request), &spec, now);
                    self.success(id)
                }
                Err(refused) => refuse(&refused.to_string()),
            },
            None if known.is_some() => Outcome::Answer(Box::new(RegisterResponse {
                node_key_expired: true,
                ..RegisterResponse::default()
            })),
            None => self.ask_for_login(machine, request),
        }
    }

    /// Lets a pending login in as a node of `user`, or refuses it.
    pub(crate) fn decide_login(&mut self, id: &str, user: Option<&str>, now: Timestamp) -> bool {
        let Some(pending) = self.pending.get_mut(id) else { return false };
        let Some(user) = user else {
            pending.refused = true;
            return true;
        };
        let pending = pending.clone();
        self.pending.remove(id);
        let spec = KeySpec { user: user.to_owned(), ephemeral: pending.ephemeral, ..KeySpec::default() };
        let applicant = Applicant {
            machine: pending.machine,
            key: pending.key,
            old_key: pending.old_key,
            lock_key: pending.lock_key,
            signature: None,
            hostinfo: &pending.hostinfo,
            version: pending.version,
        };
        self.admit(&applicant, &spec, now);
        true
    }

    fn follow_up(&mut self, request: &RegisterRequest) -> Option<Outcome> {
        let id = request.followup.rsplit_once(LOGIN_PATH)?.1;
        let pending = self.pending.get(id)?;
        if pending.key != request.node_key {
            return Some(refuse("this login belongs to another node key"));
        }
        if pending.refused {
            self.pending.remove(id);
            return Some(refuse("login refused"));
        }
        Some(Outcome::Wait(id.to_owned()))
    }

    fn ask_for_login(&mut self, machine: MachinePublic, request: &RegisterRequest) -> Outcome {
        let mut random = [0; 12];
        OsRng.fill_bytes(&mut random);
        let id = data_encoding::HEXLOWER.encode(&random);
        let pending = PendingLogin {
            id: id.clone(),
            machine,
            key: request.node_key,
            old_key: request.old_node_key,
            lock_key: request.nl_key,
            hostinfo: request.hostinfo.as_deref().cloned().unwrap_or_default(),
            version: request.version,
            ephemeral: request.ephemeral,
            refused: false,
        };
        // One machine waits on one page at most, so the table is bounded by the machines.
        self.pending.retain(|_, other| other.machine != machine);
        let auth_url = format!("{}{LOGIN_PATH}{id}", self.url);
        self.pending.insert(id, pending);
        Outcome::Answer(Box::new(RegisterResponse { auth_url, ..RegisterResponse::default() }))
    }

    fn use_key(&mut self, text: &str, now: Timestamp) -> Result<KeySpec, KeyRefused> {
        let key = self.keys.iter_mut().find(|key| key.text == text).ok_or(KeyRefused::Unknown)?;
        key.check(now)?;
        key.used = true;
        Ok(key.spec.clone())
    }

    /// Makes the node, or gives the machine's existing one its new key.
    fn admit(&mut self, applicant: &Applicant<'_>, spec: &KeySpec, now: Timestamp) -> NodeId {
        let user = if spec.tags.is_empty() { self.user(&spec.user, now) } else { String::new() };
        let is_same = |node: &&LabNode| {
            node.key == applicant.key
                || (!applicant.old_key.is_zero()
                    && node.key == applicant.old_key
                    && node.machine == applicant.machine)
                || (node.machine == applicant.machine && node.user == user && node.tags == spec.tags)
        };
        let existing = self.nodes.values().find(is_same).map(|node| node.id);
        let id = existing.unwrap_or_else(|| self.add_node(applicant.machine, applicant.key, now).id);
        let lifetime = self.key_lifetime.filter(|_| spec.tags.is_empty());
        let auto_approve = self.policy.auto_approve_routes.clone();
        if let Some(node) = self.nodes.get_mut(&id) {
            if node.key != applicant.key {
                let signature = std::mem::take(&mut node.key_signature);
                let may_renew = node.key == applicant.old_key;
                node.renewable_signature = if may_renew { signature } else { Base64::default() };
            }
            node.key = applicant.key;
            node.lock_key = applicant.lock_key;
            node.user = user;
            node.tags.clone_from(&spec.tags);
            node.ephemeral = spec.ephemeral;
            node.authorized |= spec.preauthorized;
            node.version = applicant.version;
            node.key_expiry = lifetime
                .and_then(|lifetime| now.saturating_add(lifetime).ok())
                .map_or(WireTime::ZERO, WireTime::from);
            set_hostinfo(node, applicant.hostinfo, &auto_approve);
        }
        self.note_signature(id, applicant.signature);
        self.rename_by_hostname(id);
        id
    }

    fn refresh(&mut self, id: NodeId, request: &RegisterRequest) {
        let auto_approve = self.policy.auto_approve_routes.clone();
        if let Some(node) = self.nodes.get_mut(&id) {
            node.version = request.version;
            node.lock_key = request.nl_key;
            if let Some(hostinfo) = &request.hostinfo {
                set_hostinfo(node, hostinfo, &auto_approve);
            }
        }
        self.note_signature(id, request.node_key_signature.as_ref());
        self.rename_by_hostname(id);
    }

    /// The node of a machine whose key this is.
    fn node_that_was(&self, machine: MachinePublic, key: NodePublic) -> Option<&LabNode> {
        self.node_by_key(&key).filter(|node| node.machine == machine)
    }

    /// Takes over the signature that a node brings along. A bad one does not keep the node from joining: it is locked out by its peers.
    fn note_signature(&mut self, id: NodeId, signature: Option<&Base64>) {
        let Some(signature) = signature.filter(|signature| !signature.is_empty()) else { return };
        if let Err(error) = self.keep_signature(id, signature) {
            tracing::debug!(error = format!("{error:#}"), %id, "signature of a registration not kept");
        }
    }

    /// A time in the past logs out; one in the future may only shorten the key's life.
    fn change_expiry(&mut self, id: NodeId, expiry: Timestamp, now: Timestamp) -> Outcome {
        let Some(node) = self.nodes.get_mut(&id) else { return refuse("node not found") };
        if expiry <= now {
            let ephemeral = node.ephemeral;
            node.key_expiry = now.into();
            let mut goodbye = self.success(id);
            if let Outcome::Answer(response) = &mut goodbye {
                response.node_key_expired = true;
            }
            if ephemeral {
                self.delete(id);
            }
            return goodbye;
        }
        if node.key_expiry.timestamp().is_some_and(|current| current < expiry) {
            return refuse("extending key is not allowed");
        }
        node.key_expiry = expiry.into();
        self.success(id)
    }

    fn success(&self, id: NodeId) -> Outcome {
        let Some(node) = self.nodes.get(&id) else { return refuse("node not found") };
        let profile = self.profile(node);
        Outcome::Answer(Box::new(RegisterResponse {
            user: User {
                id: profile.id,
                display_name: profile.display_name.clone(),
                created: self.user_created(&node.user),
                ..User::default()
            },
            login: Login {
                id: profile.id,
                login_name: profile.login_name,
                display_name: profile.display_name,
                ..Login::default()
            },
            machine_authorized: node.authorized,
            ..RegisterResponse::default()
        }))
    }
}

/// Who wants to become a node.
struct Applicant<'a> {
    machine: MachinePublic,
    key: NodePublic,
    old_key: NodePublic,
    lock_key: LockPublic,
    signature: Option<&'a Base64>,
    hostinfo: &'a Hostinfo,
    version: CapabilityVersion,
}

impl<'a> Applicant<'a> {
    fn of(machine: MachinePublic, request: &'a RegisterRequest) -> Self {
        static NOTHING: std::sync::LazyLock<Hostinfo> = std::sync::LazyLock::new(Hostinfo::default);
        Self {
            machine,
            key: request.node_key,
            old_key: request.old_node_key,
            lock_key: request.nl_key,
            signature: request.node_key_signature.as_ref(),
            hostinfo: request.hostinfo.as_deref().unwrap_or(&NOTHING),
            version: request.version,
        }
    }
}

/// Servers in the field refuse with status 200 and a text.
fn refuse(text: &str) -> Outcome {
    Outcome::Answer(Box::new(RegisterResponse { error: text.to_owned(), ..RegisterResponse::default() }))
}
