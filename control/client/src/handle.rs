//! The owner's hand on a running control client.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, oneshot};
use tsrs_base_types::{DiscoPublic, NodeId, NodePublic, Redacted};
use tsrs_control_tailcfg::{
    AuditLogRequest, Base64, CapabilityVersion, Hostinfo, NetInfo, PingRequest, PingResponse,
    QueryFeatureRequest, QueryFeatureResponse, RawMessage, SecretBase64, SetDeviceAttributesRequest,
    SetDnsRequest, SetDnsResponse, TkaBootstrapRequest, TkaBootstrapResponse, TkaDisableRequest,
    TkaInitBeginRequest, TkaInitBeginResponse, TkaInitFinishRequest, TkaSignaturesUsingKeyRequest,
    TkaSignaturesUsingKeyResponse, TkaSubmitSignatureRequest, TkaSyncOfferRequest, TkaSyncOfferResponse,
    TkaSyncSendRequest, TkaSyncSendResponse, TokenRequest, TokenResponse,
};

use crate::calls::{
    CALL_LIMIT, Call, MAX_ANSWER_LEN, MAX_CHAIN_ANSWER_LEN, call, read_body, request, within,
};
use crate::config::{Endpoint, LocalState};
use crate::connection::Connector;
use crate::error::Error;
use crate::login::{Expiry, check_auth_key};
use crate::ping::respond;

/// Commands that an owner may have given before the driver took them. Each is small and rare.
const MAX_WAITING_EXPIRIES: usize = 8;

/// Steers a control client. Clones are the same; when the last one is gone, the client ends.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    _owner: Arc<Owner>,
}

/// Ends the client when the last handle is gone.
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.change(|inbox| inbox.closed = true);
    }
}

/// What handles and driver share.
pub(crate) struct Shared {
    pub(crate) connector: Connector,
    inbox: Mutex<Inbox>,
    changed: Notify,
}

/// What the owner wants, until the driver takes it.
#[derive(Default)]
pub(crate) struct Inbox {
    pub(crate) closed: bool,
    pub(crate) login: Option<LoginWish>,
    pub(crate) expiries: Vec<(Expiry, oneshot::Sender<Result<(), Error>>)>,
    pub(crate) local: LocalState,
    pub(crate) paused: bool,
    pub(crate) link_changed: bool,
    /// Set by the driver, for calls.
    pub(crate) node_key: NodePublic,
}

pub(crate) struct LoginWish {
    pub(crate) renew: bool,
    pub(crate) auth_key: Option<Redacted<String>>,
}

impl Shared {
    pub(crate) fn new(connector: Connector, local: LocalState, node_key: NodePublic) -> Self {
        let inbox = Inbox { local, node_key, ..Inbox::default() };
        Self { connector, inbox: Mutex::new(inbox), changed: Notify::new() }
    }

    pub(crate) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the inbox was changed since the last time.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn change(&self, change: impl FnOnce(&mut Inbox)) {
        change(&mut self.inbox());
        self.changed.notify_one();
    }
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { _owner: Arc::new(Owner(Arc::clone(&shared))), shared }
    }

    /// Logs in: with the stored key, or with a new one when there is none, it has expired, or `renew` asks for it. An
    /// auth key replaces the one configured, and `renew` without one removes it. While the client waits for the user to visit a page it says again which.
    pub fn login(&self, renew: bool, auth_key: Option<Redacted<String>>) -> Result<(), Error> {
        if let Some(key) = &auth_key {
            // Exposed to look at its kind.
            check_auth_key(key.expose())?;
        }
        self.shared.change(|inbox| inbox.login = Some(LoginWish { renew, auth_key }));
        Ok(())
    }

    /// Logs out: the key becomes worthless. After a failure the keys and the session stay as they were.
    pub async fn logout(&self) -> Result<(), Error> {
        self.expire(Expiry::Logout).await
    }

    /// Lets the key expire at a time earlier than planned. Servers refuse a later one.
    pub async fn set_expiry_sooner(&self, time: Timestamp) -> Result<(), Error> {
        self.expire(Expiry::At(time)).await
    }

    async fn expire(&self, expiry: Expiry) -> Result<(), Error> {
        let (done, outcome) = oneshot::channel();
        let mut refused = Some(done);
        self.shared.change(|inbox| {
            if inbox.expiries.len() < MAX_WAITING_EXPIRIES {
                inbox.expiries.extend(refused.take().map(|done| (expiry, done)));
            }
        });
        if refused.is_some() {
            return Err(Error::Request("too many logouts at once".to_owned()));
        }
        outcome.await.unwrap_or_else(|_| Err(Error::Request("the control client has ended".to_owned())))
    }

    /// The host is another one. The server is told if it differs.
    pub fn set_hostinfo(&self, hostinfo: Hostinfo) {
        self.shared.change(|inbox| inbox.local.hostinfo = hostinfo);
    }

    /// The network around the host is another one. A change of latencies alone is not sent.
    pub fn set_net_info(&self, net_info: NetInfo) {
        self.shared.change(|inbox| inbox.local.net_info = Some(net_info));
    }

    /// Where peers may reach us.
    pub fn set_endpoints(&self, endpoints: Vec<Endpoint>) {
        self.shared.change(|inbox| inbox.local.endpoints = endpoints);
    }

    /// A new key for path finding.
    pub fn set_disco_key(&self, disco_key: DiscoPublic) {
        self.shared.change(|inbox| inbox.local.disco_key = disco_key);
    }

    /// A new head of the local Tailnet Lock chain, base32; empty without one.
    pub fn set_tka_head(&self, tka_head: String) {
        self.shared.change(|inbox| inbox.local.tka_head = tka_head);
    }

    /// Cancels everything that is under way, and starts nothing until it is set back. State is kept.
    pub fn set_paused(&self, paused: bool) {
        self.shared.change(|inbox| inbox.paused = paused);
    }

    /// The network is another one: the connection is made anew at once.
    pub fn note_link_change(&self) {
        self.shared.change(|inbox| inbox.link_changed = true);
    }

    /// Answers an [`crate::Event::Ping`].
    pub async fn ping_response(&self, ping: &PingRequest, response: &PingResponse) -> Result<(), Error> {
        respond(&self.shared.connector, ping, response).await
    }

    /// Sets a DNS record for an ACME challenge.
    pub async fn set_dns(&self, name: String, kind: String, value: String) -> Result<(), Error> {
        let (version, node_key) = (CapabilityVersion::CURRENT, self.node_key());
        let body = SetDnsRequest { version, node_key, name, kind, value };
        self.call::<SetDnsResponse>("setting a DNS record", Method::POST, "/machine/set-dns", &body)
            .await
            .map(|_| ())
    }

    /// An OIDC token for an audience.
    pub async fn id_token(&self, audience: String) -> Result<TokenResponse, Error> {
        let body =
            TokenRequest { cap_version: CapabilityVersion::CURRENT, node_key: self.node_key(), audience };
        self.call("asking for an id token", Method::POST, "/machine/id-token", &body).await
    }

    /// How a feature is enabled in this tailnet.
    pub async fn query_feature(&self, feature: String) -> Result<QueryFeatureResponse, Error> {
        let body = QueryFeatureRequest { feature, node_key: self.node_key() };
        self.call("asking about a feature", Method::POST, "/machine/feature/query", &body).await
    }

    /// Sets posture attributes; a `null` deletes one.
    pub async fn set_device_attributes(
        &self,
        update: impl IntoIterator<Item = (String, RawMessage)>,
    ) -> Result<(), Error> {
        let (version, node_key) = (CapabilityVersion::CURRENT, self.node_key());
        let body = SetDeviceAttributesRequest { version, node_key, update: update.into_iter().collect() };
        let path = "/machine/set-device-attr";
        self.call::<Ignored>("setting device attributes", Method::PATCH, path, &body).await.map(|_| ())
    }

    /// Reports what the user did. It may be tried again after a failure of the network or of the server.
    pub async fn audit_log(&self, action: String, details: String) -> Result<(), Error> {
        let (version, node_key) = (CapabilityVersion::CURRENT, self.node_key());
        let body = AuditLogRequest { version, node_key, action, details, ..AuditLogRequest::default() };
        self.call::<Ignored>("writing to the audit log", Method::POST, "/machine/audit-log", &body)
            .await
            .map(|_| ())
    }

    /// Asks for the first update of the lock or, with our head, for the secret that ended it. Nothing in the answer is verified.
    pub async fn tka_bootstrap(&self, head: String) -> Result<TkaBootstrapResponse, Error> {
        let (version, node_key) = (CapabilityVersion::CURRENT, self.node_key());
        let body = TkaBootstrapRequest { version, node_key, head };
        self.lock_call("asking for the lock", "/machine/tka/bootstrap", MAX_ANSWER_LEN, &body).await
    }

    /// Tells what we have of the chain, and asks for what we lack.
    pub async fn tka_sync_offer(
        &self,
        head: String,
        ancestors: Vec<String>,
    ) -> Result<TkaSyncOfferResponse, Error> {
        let (version, node_key) = (CapabilityVersion::CURRENT, self.node_key());
        let body = TkaSyncOfferRequest { version, node_key, head, ancestors };
        self.lock_call("comparing the lock", "/machine/tka/sync/offer", MAX_CHAIN_ANSWER_LEN, &body).await
    }

    /// Gives the server what it lacks of the chain.
    pub async fn tka_sync_send(
        &self,
        head: String,
        missing_aums: Vec<Base64>,
        interactive: bool,
    ) -> Result<TkaSyncSendResponse, Error> {
        let (version, node_key) = (CapabilityVersion::CURRENT, self.node_key());
        let body = TkaSyncSendRequest { version, node_key, head, missing_aums, interactive };
        self.lock_call("changing the lock", "/machine/tka/sync/send", MAX_CHAIN_ANSWER_LEN, &body).await
    }

    /// Gives the server the signature of a node key.
    pub async fn tka_sign(&self, signature: Base64) -> Result<(), Error> {
        let (version, node_key) = (CapabilityVersion::CURRENT, self.node_key());
        let body = TkaSubmitSignatureRequest { version, node_key, signature };
        self.lock_call::<Ignored>("signing a node key", "/machine/tka/sign", MAX_ANSWER_LEN, &body)
            .await
            .map(|_| ())
    }

    /// Proposes a lock by its first update; the answer says which nodes have to be signed.
    pub async fn tka_init_begin(&self, genesis_aum: Base64) -> Result<TkaInitBeginResponse, Error> {
        let (version, node_key) = (CapabilityVersion::CURRENT, self.node_key());
        let body = TkaInitBeginRequest { version, node_key, genesis_aum };
        self.lock_call("proposing a lock", "/machine/tka/init/begin", MAX_CHAIN_ANSWER_LEN, &body).await
    }

    /// Gives the signatures that the proposal asked for; with them the lock is on.
    pub async fn tka_init_finish(
        &self,
        signatures: BTreeMap<NodeId, Base64>,
        support_disablement: SecretBase64,
    ) -> Result<(), Error> {
        let (version, node_key) = (CapabilityVersion::CURRENT, self.node_key());
        let body = TkaInitFinishRequest { version, node_key, signatures, support_disablement };
        self.lock_call::<Ignored>("beginning the lock", "/machine/tka/init/finish", MAX_ANSWER_LEN, &body)
            .await
            .map(|_| ())
    }

    /// Ends the lock with one of its secrets.
    pub async fn tka_disable(&self, head: String, disablement_secret: SecretBase64) -> Result<(), Error> {
        let (version, node_key) = (CapabilityVersion::CURRENT, self.node_key());
        let body = TkaDisableRequest { version, node_key, head, disablement_secret };
        self.lock_call::<Ignored>("ending the lock", "/machine/tka/disable", MAX_ANSWER_LEN, &body)
            .await
            .map(|_| ())
    }

    /// Asks which signatures stand on a trusted key, given raw.
    pub async fn tka_affected_sigs(&self, key_id: Base64) -> Result<TkaSignaturesUsingKeyResponse, Error> {
        let (version, node_key) = (CapabilityVersion::CURRENT, self.node_key());
        let body = TkaSignaturesUsingKeyRequest { version, node_key, key_id };
        self.lock_call("asking for signatures", "/machine/tka/affected-sigs", MAX_ANSWER_LEN, &body).await
    }

    /// The calls of Tailnet Lock are `GET` with a body.
    async fn lock_call<T: DeserializeOwned>(
        &self,
        what: &'static str,
        path: &str,
        max_len: usize,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        let call = Call { what, method: &Method::GET, path, max_len };
        self::call(&self.shared.connector, call, self.node_key(), body).await
    }

    /// Any other call: the path begins with a slash, the answer is given as it is.
    pub async fn raw_call(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, HeaderMap, Bytes), Error> {
        const WHAT: &str = "calling the server";
        let request = request(method, path, &[self.node_key()], body)?;
        within(WHAT, CALL_LIMIT, async {
            let (parts, body) = self.shared.connector.send(request).await?.into_parts();
            Ok((parts.status, parts.headers, read_body(WHAT, body, MAX_ANSWER_LEN).await?))
        })
        .await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        what: &'static str,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        let call = Call { what, method: &method, path, max_len: MAX_ANSWER_LEN };
        self::call(&self.shared.connector, call, self.node_key(), body).await
    }

    fn node_key(&self) -> NodePublic {
        self.shared.inbox().node_key
    }
}

/// An answer whose content means nothing.
struct Ignored;

impl<'de> serde::Deserialize<'de> for Ignored {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}
