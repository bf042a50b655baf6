//! The login machine: which key goes out, and what each answer means (control protocol sheet §8.2 to §8.4, §20).
//!
//! A new node key stays in memory until the server accepts it; the key in use keeps working meanwhile.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use rand_core::CryptoRngCore;
use tsrs_base_types::time::WireTime;
use tsrs_base_types::{LockPrivate, NodePrivate, NodePublic, Redacted};
use tsrs_control_tailcfg::{
    AuthKey, Base64, CapabilityVersion, Hostinfo, RegisterRequest, RegisterResponse, RegisterResponseAuth,
};
use tsrs_control_tka::{NodeKeySignature, WrappedAuthKey};

use crate::backoff::Backoff;
use crate::config::NodeKeys;
use crate::error::{Error, server_text};
use crate::server::ServerUrl;

/// Pause after the server refused us in its own words. Trying more often would not change its mind.
const REFUSED_RETRY: Duration = Duration::from_secs(300);
/// The time in the past that means "log out".
const LOGOUT_TIME: Timestamp = Timestamp::constant(123, 0);
/// Begins the part of an auth key that is for Tailnet Lock and not for the server.
const LOCK_SUFFIX: &str = "--TL";
/// Begins an OAuth client secret, which is no auth key.
const OAUTH_PREFIX: &str = "tskey-client-";

/// What a registration says besides keys and host.
pub(crate) struct LoginSettings {
    pub(crate) lock_key: Option<LockPrivate>,
    pub(crate) auth_key: Option<Redacted<String>>,
    pub(crate) ephemeral: bool,
    pub(crate) tailnet: String,
}

/// What came out of an answer.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The user must visit this page.
    Visit(String),
    /// The keys are accepted.
    LoggedIn(Box<RegisterResponse>),
    /// It goes on by itself, at once.
    GoOn,
    /// It failed, and is tried again after this time.
    Failed(Error, Duration),
}

pub(crate) struct Login {
    settings: LoginSettings,
    keys: NodeKeys,
    trying: Option<Trying>,
    phase: Phase,
    backoff: Backoff,
}

/// The keys of a login that the server has not accepted yet.
struct Trying {
    keys: NodeKeys,
    /// Made for this login; the server does not know it.
    is_fresh: bool,
    /// The signature of the new key, built on the one that the server gave back (Tailnet Lock sheet §11).
    resigned: Option<Resigned>,
}

/// Whether the server's old signature could be built on. If not, the node registers without one and is locked out.
struct Resigned(Option<Vec<u8>>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// No login is wanted.
    Idle,
    /// A call is to be made at this time.
    Due(Instant, Call),
    /// The call is under way.
    InFlight(Call),
    /// Logged in.
    Done,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Call {
    Register,
    /// Waits until the user has visited the page.
    Followup(String),
}

impl Login {
    pub(crate) const fn new(settings: LoginSettings, keys: NodeKeys) -> Self {
        Self { settings, keys, trying: None, phase: Phase::Idle, backoff: Backoff::NEW }
    }

    /// The keys in use.
    pub(crate) const fn keys(&self) -> &NodeKeys {
        &self.keys
    }

    /// The public key in use; zero if there is none.
    pub(crate) fn node_key(&self) -> NodePublic {
        self.keys.current.as_ref().map(NodePrivate::public).unwrap_or_default()
    }

    pub(crate) fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    pub(crate) fn is_in_flight(&self) -> bool {
        matches!(self.phase, Phase::InFlight(_))
    }

    /// The page that the user must visit, while the login waits for it.
    pub(crate) fn waiting_for(&self) -> Option<&str> {
        match &self.phase {
            Phase::Due(_, Call::Followup(url)) | Phase::InFlight(Call::Followup(url)) => Some(url),
            Phase::Idle | Phase::Due(_, Call::Register) | Phase::InFlight(Call::Register) | Phase::Done => {
                None
            }
        }
    }

    pub(crate) fn set_auth_key(&mut self, key: Option<Redacted<String>>) {
        self.settings.auth_key = key;
    }

    /// Begins a login: with a fresh key where `renew` says so or there is none, else with the key in use.
    pub(crate) fn start(&mut self, renew: bool, rng: &mut impl CryptoRngCore, now: Instant) {
        self.trying = Some(self.next_keys(renew, rng));
        self.backoff.reset();
        self.phase = Phase::Due(now, Call::Register);
    }

    /// Ends a login that is under way, and forgets its keys.
    pub(crate) fn stop(&mut self) {
        self.trying = None;
        self.phase = Phase::Idle;
    }

    /// Forgets all keys.
    pub(crate) fn forget_keys(&mut self) {
        self.stop();
        self.keys = NodeKeys::default();
    }

    /// The call under way was cancelled; it is made again.
    pub(crate) fn interrupt(&mut self, now: Instant) {
        if let Phase::InFlight(call) | Phase::Due(_, call) = &self.phase {
            self.phase = Phase::Due(now, call.clone());
            self.backoff.reset();
        }
    }

    pub(crate) const fn poll_timeout(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Due(at, _) => Some(*at),
            Phase::Idle | Phase::InFlight(_) | Phase::Done => None,
        }
    }

    /// The request to send now.
    pub(crate) fn poll_request(&mut self, hostinfo: &Hostinfo, now: Instant) -> Option<RegisterRequest> {
        let Phase::Due(at, call) = &self.phase else { return None };
        if *at > now {
            return None;
        }
        let call = call.clone();
        let followup = match &call {
            Call::Register => String::new(),
            Call::Followup(url) => url.clone(),
        };
        self.phase = Phase::InFlight(call);
        let keys = self.trying.as_ref().map_or(&self.keys, |trying| &trying.keys);
        Some(RegisterRequest { followup, ..self.request(keys, hostinfo) })
    }

    /// A request that changes the expiry of the key in use; `None` if there is no key.
    pub(crate) fn expiry_request(&self, expiry: Expiry, hostinfo: &Hostinfo) -> Option<RegisterRequest> {
        self.keys.current.as_ref()?;
        let expiry = match expiry {
            Expiry::Logout => LOGOUT_TIME,
            Expiry::At(time) => time,
        };
        let request = self.request(&self.keys, hostinfo);
        // The key in use stands for itself; an auth key is not for this.
        Some(RegisterRequest {
            expiry: WireTime::from(expiry),
            auth: None,
            node_key_signature: None,
            ..request
        })
    }

    /// Takes the answer to [`Login::poll_request`].
    pub(crate) fn handle_response(
        &mut self,
        response: RegisterResponse,
        server: &ServerUrl,
        rng: &mut impl CryptoRngCore,
        now: Instant,
    ) -> Outcome {
        let Phase::InFlight(call) = self.phase.clone() else { return Outcome::GoOn };
        if !response.error.is_empty() {
            let text = server_text(response.error.as_bytes());
            let with_key = self.settings.auth_key.is_some();
            let error = if with_key { Error::RefusedWithKey(text) } else { Error::Refused(text) };
            return self.wait(error, REFUSED_RETRY, call, now);
        }
        if let Some(old) = response.node_key_signature.as_ref().filter(|signature| !signature.is_empty()) {
            return self.resign(&old.0, call, rng, now);
        }
        if response.node_key_expired {
            if self.trying.as_ref().is_some_and(|trying| trying.is_fresh) {
                return self.fail(Error::FreshKeyExpired, Call::Register, rng, now);
            }
            self.trying = Some(self.next_keys(true, rng));
            self.phase = Phase::Due(now, Call::Register);
            return Outcome::GoOn;
        }
        if !response.auth_url.is_empty() {
            return self.handle_auth_url(response.auth_url, &call, server, rng, now);
        }
        if let Some(trying) = self.trying.take() {
            self.keys = trying.keys;
        }
        self.phase = Phase::Done;
        self.backoff.reset();
        Outcome::LoggedIn(Box::new(response))
    }

    /// Takes the failure of the call under way.
    pub(crate) fn handle_failure(
        &mut self,
        error: Error,
        rng: &mut impl CryptoRngCore,
        now: Instant,
    ) -> Outcome {
        let Phase::InFlight(call) = self.phase.clone() else { return Outcome::GoOn };
        match error.retry_after() {
            Some(after) => self.wait(error, after, call, now),
            None => self.fail(error, call, rng, now),
        }
    }

    /// The node is known and signed: a new key is signed by the key that the old signature lets sign, once.
    fn resign(&mut self, old: &[u8], call: Call, rng: &mut impl CryptoRngCore, now: Instant) -> Outcome {
        if self.trying.as_ref().is_some_and(|trying| trying.resigned.is_some()) {
            return self.wait(Error::TailnetLock, REFUSED_RETRY, call, now);
        }
        let mut trying = match (&call, self.trying.take()) {
            // The page that was visited belongs to this key.
            (Call::Followup(_), Some(trying)) => trying,
            (Call::Followup(_), None) | (Call::Register, _) => self.next_keys(true, rng),
        };
        let node = trying.keys.current.as_ref().map(NodePrivate::public).unwrap_or_default();
        let signed = self.settings.lock_key.as_ref().map(|key| NodeKeySignature::resign(old, node, key));
        if let Some(Err(error)) = &signed {
            tracing::warn!(%error, "the signature of the node key could not be renewed");
        }
        trying.resigned = Some(Resigned(signed.and_then(Result::ok)));
        self.trying = Some(trying);
        self.phase = Phase::Due(now, call);
        Outcome::GoOn
    }

    fn handle_auth_url(
        &mut self,
        url: String,
        call: &Call,
        server: &ServerUrl,
        rng: &mut impl CryptoRngCore,
        now: Instant,
    ) -> Outcome {
        if let Err(reason) = server.check_page(&url) {
            return self.fail(Error::AuthUrl(reason), Call::Register, rng, now);
        }
        let same_again = *call == Call::Followup(url.clone());
        let at = if same_again { now + self.backoff.fail(rng) } else { now };
        self.phase = Phase::Due(at, Call::Followup(url.clone()));
        if same_again { Outcome::GoOn } else { Outcome::Visit(url) }
    }

    fn fail(&mut self, error: Error, call: Call, rng: &mut impl CryptoRngCore, now: Instant) -> Outcome {
        let after = self.backoff.fail(rng);
        self.wait(error, after, call, now)
    }

    fn wait(&mut self, error: Error, after: Duration, call: Call, now: Instant) -> Outcome {
        self.phase = Phase::Due(now + after, call);
        Outcome::Failed(error, after)
    }

    /// The keys to try: a fresh one, with the key in use as the old one; or those in use.
    fn next_keys(&self, renew: bool, rng: &mut impl CryptoRngCore) -> Trying {
        match (&self.keys.current, renew) {
            (Some(_), false) => Trying { keys: self.keys.clone(), is_fresh: false, resigned: None },
            (current, _) => {
                let keys = NodeKeys { current: Some(NodePrivate::generate(rng)), old: current.clone() };
                Trying { keys, is_fresh: true, resigned: None }
            }
        }
    }

    fn request(&self, keys: &NodeKeys, hostinfo: &Hostinfo) -> RegisterRequest {
        let public = |key: &Option<NodePrivate>| key.as_ref().map(NodePrivate::public).unwrap_or_default();
        let node_key = public(&keys.current);
        // Exposed to be sent to the server, and to sign with what it carries.
        let auth_key = self.settings.auth_key.as_ref().map(Redacted::expose);
        let auth =
            auth_key.map(|key| RegisterResponseAuth { auth_key: AuthKey::new(for_server(key).to_owned()) });
        let wrapped = auth_key.and_then(|key| WrappedAuthKey::parse(key));
        let by_auth_key = wrapped.and_then(|wrapped| Some(wrapped.sign(node_key).ok()?.encode()));
        let resigned = self.trying.as_ref().and_then(|trying| trying.resigned.as_ref());
        let resigned = resigned.and_then(|resigned| resigned.0.clone());
        RegisterRequest {
            version: CapabilityVersion::CURRENT,
            node_key,
            old_node_key: public(&keys.old),
            nl_key: self.settings.lock_key.as_ref().map(LockPrivate::public).unwrap_or_default(),
            auth,
            hostinfo: Some(Box::new(hostinfo.clone())),
            ephemeral: self.settings.ephemeral,
            node_key_signature: by_auth_key.or(resigned).map(Base64),
            tailnet: self.settings.tailnet.clone(),
            ..RegisterRequest::default()
        }
    }
}

/// A change of the expiry of the node key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// At once, and for good.
    Logout,
    /// At this time, earlier than planned.
    At(Timestamp),
}

/// The part of an auth key that the server is told: what stands behind the mark is a private key, also where it cannot be read.
fn for_server(key: &str) -> &str {
    key.split(LOCK_SUFFIX).next().unwrap_or(key)
}

/// Whether a text can be sent as an auth key.
pub(crate) fn check_auth_key(key: &str) -> Result<(), Error> {
    if key.starts_with(OAUTH_PREFIX) {
        return Err(Error::OauthSecret);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
