//! `tka/*`: Tailnet Lock (client sheet §1.4, Tailnet Lock sheet §17).
//!
//! Signatures and updates are made by the agent; the calls that bring them to control are made here, so that nobody waits for
//! them but the client who asked.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rand_core::OsRng;
use serde::de::DeserializeOwned;
use tsrs_agent_core::agent::{LockCommandError, Now};
use tsrs_agent_core::status::{lock_status, lock_update};
use tsrs_agent_localapi::lock::{
    Disablement, InitRequest, LinkAnswer, LinkRequest, LockUpdate, ModifyRequest, NewLockKey, RevokeRequest,
    SecretText, SignRequest, WrapRequest,
};
use tsrs_base_types::{LockPrivate, LockPublic, Redacted};
use tsrs_control_client as client;
use tsrs_control_tailcfg::{Base64, SecretBase64, TkaSignInfo};
use tsrs_control_tka::{Aum, AumHash, DeriveError, DisablementSecret, Key, argument};

use super::request::Asked;
use super::{Answer, Api};
use crate::backend::Backend;

/// Updates of a log that are shown if the client names no number.
const LOG_LEN: usize = 50;
/// Most updates of a log in one answer: more than a chain has that other nodes can follow.
const MAX_LOG_LEN: usize = 4000;

/// Why a call about the lock failed, as a text behind a prefix that clients know.
type Outcome<T> = Result<T, String>;

impl Api {
    /// Answers what is asked below `tka/`, the status left out. Boxed, because each of these waits for the agent and for control.
    pub(super) fn lock(&self, asked: Asked) -> BoxFuture<'_, Answer> {
        let path = asked.path().to_owned();
        async move {
            match path.as_str() {
                "tka/log" => self.lock_log(&asked).await,
                "tka/init" => self.lock_init(asked).await,
                "tka/sign" => self.lock_sign(asked).await,
                "tka/modify" => self.lock_modify(asked).await,
                "tka/disable" => self.lock_disable(asked).await,
                "tka/force-local-disable" => self.lock_local_disable(asked).await,
                "tka/verify-deeplink" => self.lock_link(asked).await,
                "tka/disablement-kdf" => disablement(asked).await,
                "tka/affected-sigs" => self.lock_affected_sigs(asked).await,
                "tka/wrap-preauth-key" => self.lock_wrap(asked).await,
                "tka/generate-recovery-aum" => self.lock_revoke(asked).await,
                "tka/cosign-recovery-aum" => self.lock_cosign(asked).await,
                "tka/submit-recovery-aum" => self.lock_submit(asked).await,
                _ => Answer::not_found(),
            }
        }
        .boxed()
    }

    pub(super) fn lock_status(&self) -> Answer {
        Answer::json(&lock_status(&self.backend.snapshot()))
    }

    async fn lock_log(&self, asked: &Asked) -> Answer {
        let limit = match asked.param("limit") {
            "" => LOG_LEN,
            text => match text.parse::<i64>() {
                Ok(limit) => usize::try_from(limit).unwrap_or_default().min(MAX_LOG_LEN),
                Err(error) => return Answer::text(400, &format!("parsing 'limit' parameter: {error}")),
            },
        };
        let log = self.with_agent(move |backend, _| backend.agent.lock_log(limit)).await;
        match log {
            Ok(log) => {
                Answer::json(&log.iter().map(|update| lock_update(update)).collect::<Vec<LockUpdate>>())
            }
            Err(error) => Answer::text(500, &format!("reading log failed: {error}")),
        }
    }

    async fn lock_local_disable(&self, asked: Asked) -> Answer {
        // A body that must be JSON is no form that a page could send.
        if let Err(answer) = body::<serde_json::Map<String, serde_json::Value>>(asked).await {
            return answer;
        }
        let disabled = self.with_agent(|backend, now| backend.agent.disable_lock_here(now)).await;
        done(disabled.map(drop), 400, "tailnet-lock local disable failed: ")
    }

    async fn lock_sign(&self, asked: Asked) -> Answer {
        let request: SignRequest = match body(asked).await {
            Ok(request) => request,
            Err(answer) => return answer,
        };
        done(self.sign(request).await, 500, "signing failed: ")
    }

    async fn sign(&self, request: SignRequest) -> Outcome<()> {
        let rotation = match request.rotation_public.0.as_slice() {
            [] => None,
            raw => Some(lock_public(raw)?),
        };
        let node = request.node_key;
        let signature = self.with_agent(move |backend, _| backend.agent.sign_node(node, rotation)).await?;
        self.control().await?.tka_sign(Base64(signature)).await.map_err(text)
    }

    async fn lock_modify(&self, asked: Asked) -> Answer {
        let request: ModifyRequest = match body(asked).await {
            Ok(request) => request,
            Err(answer) => return answer,
        };
        match self.modify(request).await {
            Ok(()) => Answer::empty(http::StatusCode::NO_CONTENT),
            Err(error) => Answer::text(500, &format!("tailnet-lock modify failed: {error}")),
        }
    }

    async fn modify(&self, request: ModifyRequest) -> Outcome<()> {
        let add = keys(request.add_keys)?;
        let remove = request.remove_keys.unwrap_or_default();
        let remove = remove.iter().map(|key| lock_public(&key.public.0)).collect::<Result<Vec<_>, _>>()?;
        if request.re_sign {
            for leaving in &remove {
                self.re_sign(*leaving).await?;
            }
        }
        let updates = self.with_agent(move |backend, _| backend.agent.lock_changes(add, &remove)).await?;
        if updates.is_empty() {
            return Ok(());
        }
        self.give(updates, true).await
    }

    /// Signs the nodes that stand on a key, so that they stay when it is removed.
    async fn re_sign(&self, leaving: LockPublic) -> Outcome<()> {
        let control = self.control().await?;
        let old = control.tka_affected_sigs(Base64(leaving.as_bytes().to_vec())).await.map_err(text)?;
        let old: Vec<Vec<u8>> = old.signatures.into_iter().map(|signature| signature.0).collect();
        let new = self.with_agent(move |backend, _| backend.agent.replacements(&leaving, &old)).await?;
        for signature in new {
            control.tka_sign(Base64(signature)).await.map_err(text)?;
        }
        Ok(())
    }

    /// Brings updates to control; only what control takes counts here.
    async fn give(&self, updates: Vec<Aum>, interactive: bool) -> Outcome<()> {
        let head = updates.last().map(Aum::hash).ok_or("there is nothing to send")?.to_string();
        let missing = updates.iter().map(|aum| Base64(aum.encode())).collect();
        let answer = self.control().await?.tka_sync_send(head.clone(), missing, interactive).await;
        let theirs = answer.map_err(text)?.head;
        if theirs != head {
            return Err(format!("the control server stays at {theirs} and does not take {head}"));
        }
        self.with_agent(|backend, now| backend.agent.adopt_lock_changes(updates, now)).await
    }

    async fn lock_init(&self, asked: Asked) -> Answer {
        let request: InitRequest = match body(asked).await {
            Ok(request) => request,
            Err(answer) => return answer,
        };
        match self.init(request).await {
            Ok(()) => self.lock_status(),
            Err(error) if error == LockCommandError::NotOffered.to_string() => Answer::text(403, &error),
            Err(error) => Answer::text(500, &format!("initialization failed: {error}")),
        }
    }

    async fn init(&self, request: InitRequest) -> Outcome<()> {
        let keys = keys(request.keys)?;
        let values = request.disablement_values.unwrap_or_default().into_iter();
        let values = values.map(|value| value.0.try_into()).collect::<Result<Vec<[u8; 32]>, _>>();
        let values = values.map_err(|_| "a disablement value does not have 32 bytes")?;
        let genesis = self.with_agent(move |backend, _| backend.agent.new_lock(keys, values)).await?;
        let control = self.control().await?;
        let nodes = control.tka_init_begin(Base64(genesis.encode())).await.map_err(text)?.need_signatures;
        let signatures = self.with_agent(move |backend, _| {
            let sign = |info: &TkaSignInfo| {
                let rotation = info.rotation_pubkey.as_ref().and_then(|raw| lock_public(&raw.0).ok());
                let signature = backend.agent.sign_first(info.node_public, rotation)?;
                Ok::<_, LockCommandError>((info.node_id, Base64(signature)))
            };
            nodes.iter().map(sign).collect::<Result<_, _>>()
        });
        let signatures = signatures.await?;
        let support = SecretBase64::new(request.support_disablement.0);
        control.tka_init_finish(signatures, support).await.map_err(text)
    }

    async fn lock_disable(&self, asked: Asked) -> Answer {
        match asked.body().await {
            Ok(secret) => {
                let secret = DisablementSecret::from_bytes(secret);
                done(self.disable(secret).await, 400, "tailnet-lock disable failed: ")
            }
            Err(answer) => answer,
        }
    }

    async fn disable(&self, secret: DisablementSecret) -> Outcome<()> {
        // Exposed to be sent to control, which gives it to every node.
        let sent = SecretBase64::new(secret.expose_bytes().to_vec());
        let head = self.with_agent(move |backend, _| backend.agent.check_lock_secret(&secret)).await?;
        self.control().await?.tka_disable(head.to_string(), sent).await.map_err(text)
    }

    async fn lock_affected_sigs(&self, asked: Asked) -> Answer {
        let key = match asked.body().await {
            Ok(raw) => raw,
            Err(answer) => return answer,
        };
        match self.affected_sigs(&key).await {
            Ok(signatures) => Answer::json(&signatures),
            Err(error) => Answer::text(500, &error),
        }
    }

    async fn affected_sigs(&self, key: &[u8]) -> Outcome<Vec<Base64>> {
        let key = lock_public(key)?;
        let signatures = self.control().await?.tka_affected_sigs(Base64(key.as_bytes().to_vec())).await;
        let signatures = signatures.map_err(text)?.signatures;
        let raw: Vec<Vec<u8>> = signatures.iter().map(|signature| signature.0.clone()).collect();
        self.with_agent(move |backend, _| backend.agent.check_signatures(&key, &raw)).await?;
        Ok(signatures)
    }

    async fn lock_wrap(&self, asked: Asked) -> Answer {
        let WrapRequest { auth_key, lock_key } = match body(asked).await {
            Ok(request) => request,
            Err(answer) => return answer,
        };
        match self.wrap(auth_key.0, lock_key.0).await {
            // Exposed to be given to the client who asked for it.
            Ok(wrapped) => bytes(wrapped.expose().as_bytes().to_vec()),
            Err(error) => Answer::text(500, &error),
        }
    }

    async fn wrap(
        &self,
        auth_key: Redacted<String>,
        lock_key: Redacted<String>,
    ) -> Outcome<Redacted<String>> {
        // Exposed to be read.
        let private = match lock_key.expose().as_str() {
            "" => {
                let name = auth_key.expose().clone();
                let made = self.with_agent(move |backend, now| backend.agent.wrapping_key(&name, now));
                let (private, key) = made.await?;
                let updates =
                    self.with_agent(move |backend, _| backend.agent.lock_changes(vec![key], &[])).await?;
                self.give(updates, true).await?;
                private
            }
            given => given.parse::<LockPrivate>().map_err(|error| error.to_string())?,
        };
        self.with_agent(move |backend, _| backend.agent.wrap_auth_key(auth_key.expose(), private)).await
    }

    async fn lock_link(&self, asked: Asked) -> Answer {
        let Ok(request) = body::<LinkRequest>(asked).await else {
            return Answer::text(400, "invalid JSON for verifyRequest body");
        };
        let snapshot = self.backend.snapshot();
        let not_active = || LockCommandError::NotActive.to_string();
        let state = snapshot.lock.state.as_ref().ok_or_else(not_active);
        let link = state.and_then(|state| state.check_link(&request.url).map_err(|error| error.to_string()));
        Answer::json(&match link {
            Ok(link) => LinkAnswer {
                is_valid: true,
                version: 1,
                node_key: link.node_key,
                lock_key: link.lock_key,
                device_name: link.device_name,
                os: link.os,
                login: link.login,
                error: String::new(),
            },
            Err(error) => LinkAnswer { error, ..LinkAnswer::default() },
        })
    }

    async fn lock_revoke(&self, asked: Asked) -> Answer {
        let Ok(request) = body::<RevokeRequest>(asked).await else {
            return Answer::text(400, "invalid JSON for verifyRequest body");
        };
        let fork_from = match request.fork_from.as_str() {
            "" => None,
            text => match text.parse::<AumHash>() {
                // Official clients send zeros for none.
                Ok(hash) => Some(hash).filter(|hash| *hash.as_bytes() != [0; 32]),
                Err(error) => return Answer::text(400, &format!("decoding fork-from: {error}")),
            },
        };
        let keys = request.keys.iter().map(|key| lock_public(&key.0)).collect::<Result<Vec<_>, _>>();
        let aum = match keys {
            Ok(keys) => self.with_agent(move |backend, _| backend.agent.revoke_keys(&keys, fork_from)).await,
            Err(error) => Err(error),
        };
        update(aum)
    }

    async fn lock_cosign(&self, asked: Asked) -> Answer {
        match update_of(asked).await {
            Ok(aum) => update(self.with_agent(move |backend, _| backend.agent.cosign_revocation(aum)).await),
            Err(answer) => answer,
        }
    }

    async fn lock_submit(&self, asked: Asked) -> Answer {
        let aum = match update_of(asked).await {
            Ok(aum) => aum,
            Err(answer) => return answer,
        };
        match self.with_agent(move |backend, _| backend.agent.check_revocation(aum)).await {
            Ok(aum) => done(self.give(vec![aum], false).await, 500, ""),
            Err(error) => Answer::text(500, &error),
        }
    }

    /// Runs `work` with the agent; its error, or that there is no agent any more, as text.
    async fn with_agent<T: Send + 'static, E: ToString + Send + 'static>(
        &self,
        work: impl FnOnce(&mut Backend, Now) -> Result<T, E> + Send + 'static,
    ) -> Outcome<T> {
        match self.backend.call(work).await {
            Ok((result, _)) => result.map_err(|error| error.to_string()),
            Err(ended) => Err(ended.to_string()),
        }
    }

    /// The connection to control.
    async fn control(&self) -> Outcome<client::Handle> {
        let handle = self.backend.call(|backend, _| backend.control_client()).await;
        let (handle, _) = handle.map_err(|ended| ended.to_string())?;
        handle.ok_or_else(|| "there is no connection to a control server; use up".to_owned())
    }
}

/// The value of the secret in the body, or a fresh secret and its value for an empty body. Deriving takes memory and a moment.
async fn disablement(asked: Asked) -> Answer {
    let given = match asked.body().await {
        Ok(body) => zeroize::Zeroizing::new(body),
        Err(answer) => return answer,
    };
    let derived = tokio::task::spawn_blocking(move || {
        let fresh = given.is_empty().then(|| DisablementSecret::generate(&mut OsRng));
        let made = fresh.as_ref().map(|secret| argument::expose_secret_text(secret).as_str().to_owned());
        let secret = fresh.unwrap_or_else(|| DisablementSecret::from_bytes(given.to_vec()));
        let value = secret.value()?;
        let secret = SecretText(Redacted::new(made.unwrap_or_default()));
        Ok::<_, DeriveError>(Disablement { secret, value: argument::value_text(&value) })
    });
    match derived.await {
        Ok(Ok(disablement)) => Answer::json(&disablement),
        Ok(Err(error)) => Answer::text(400, &error.to_string()),
        Err(error) => Answer::text(500, &error.to_string()),
    }
}

fn text(error: client::Error) -> String {
    error.to_string()
}

fn lock_public(raw: &[u8]) -> Outcome<LockPublic> {
    raw.try_into().map(LockPublic::from_bytes).map_err(|_| LockCommandError::KeyLength.to_string())
}

fn keys(keys: Option<Vec<NewLockKey>>) -> Outcome<Vec<Key>> {
    let key = |key: NewLockKey| {
        let key = Key { kind: key.kind, votes: key.votes, public: Some(key.public.0), meta: key.meta };
        key.validate().map(|()| key).map_err(|error| error.to_string())
    };
    keys.unwrap_or_default().into_iter().map(key).collect()
}

async fn body<T: DeserializeOwned>(asked: Asked) -> Result<T, Answer> {
    let body = zeroize::Zeroizing::new(asked.body().await?);
    serde_json::from_slice(&body).map_err(|_| Answer::text(400, "invalid JSON body"))
}

/// The update in a body.
async fn update_of(asked: Asked) -> Result<Aum, Answer> {
    let encoded = asked.body().await?;
    Aum::decode(&encoded).map_err(|_| Answer::text(400, "decoding AUM"))
}

fn done(outcome: Outcome<()>, status: u16, prefix: &str) -> Answer {
    match outcome {
        Ok(()) => Answer::empty(http::StatusCode::OK),
        Err(error) => Answer::text(status, &format!("{prefix}{error}")),
    }
}

fn update(aum: Outcome<Aum>) -> Answer {
    match aum {
        Ok(aum) => bytes(aum.encode()),
        Err(error) => Answer::text(500, &error),
    }
}

fn bytes(content: Vec<u8>) -> Answer {
    let content_type = http::HeaderValue::from_static("application/octet-stream");
    Answer::with_body(http::StatusCode::OK, content_type, content)
}
