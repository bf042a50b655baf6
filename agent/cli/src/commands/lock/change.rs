//! What changes the lock.

use std::io::Read;

use http::Method;
use tsrs_agent_localapi::lock::{
    GoBytes, LockStatus, ModifyRequest, NewLockKey, SecretText, SignRequest, WrapRequest,
};
use tsrs_base_types::{LockPublic, NodePublic, Redacted};

use super::{enabled, key, secret};
use crate::client::Client;
use crate::error::{CliError, Result};
use crate::output;

/// What an auth key begins with; `lock sign` takes one in place of a node key.
const AUTH_KEY_PREFIX: &str = "tskey-";
/// An argument that names a file to read in its place.
const FILE_PREFIX: &str = "file:";
/// Longest file that an argument names.
const MAX_FILE_LEN: u64 = 64 << 10;

/// Arguments of `lock sign`.
#[derive(clap::Args, Debug)]
pub(super) struct SignArgs {
    /// A node key (nodekey:…), or an auth key (tskey-auth-…); or file:<path> with one of them inside.
    what: String,
    /// The tailnet-lock key of that node (tlpub:…), which may then sign its next node keys.
    rotation: Option<String>,
}

/// Arguments of `lock add`.
#[derive(clap::Args, Debug)]
pub(super) struct KeyArgs {
    /// Keys (tlpub:…), each perhaps with ?<votes>.
    #[arg(required = true)]
    keys: Vec<String>,
}

/// Arguments of `lock remove`.
#[derive(clap::Args, Debug)]
pub(super) struct RemoveArgs {
    /// Sign the nodes anew that stand on the keys, so that they are not locked out.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", value_parser = clap::builder::BoolishValueParser::new())]
    re_sign: bool,
    /// Keys (tlpub:…).
    #[arg(required = true)]
    keys: Vec<String>,
}

/// Arguments of `lock disable`.
#[derive(clap::Args, Debug)]
pub(super) struct SecretArgs {
    /// One of the secrets that the lock was made with (disablement-secret:…), or file:<path> with it inside.
    secret: String,
}

/// Arguments of `lock local-disable`.
#[derive(clap::Args, Debug)]
pub(super) struct LocalDisableArgs {}

pub(super) async fn sign(args: SignArgs, client: &Client) -> Result {
    let what = argument(&args.what)?;
    // Exposed to be looked at; an auth key is never shown.
    if what.expose().starts_with(AUTH_KEY_PREFIX) {
        return wrap(what, client).await;
    }
    let node_key: NodePublic =
        what.expose().parse().map_err(|error| CliError::new(format!("not a node key: {error}")))?;
    let rotation = args.rotation.as_deref().map(key).transpose()?;
    let rotation_public = rotation.map(|(key, _)| key.as_bytes().to_vec()).unwrap_or_default();
    let request = SignRequest { node_key, rotation_public: GoBytes(rotation_public) };
    client.post("tka/sign", &request).await.map(drop)
}

async fn wrap(auth_key: Redacted<String>, client: &Client) -> Result {
    enabled(client).await?;
    let request = WrapRequest { auth_key: SecretText(auth_key), lock_key: SecretText::default() };
    let wrapped = client.post("tka/wrap-preauth-key", &request).await?;
    output::line(String::from_utf8_lossy(&wrapped));
    Ok(())
}

pub(super) async fn add(args: KeyArgs, client: &Client) -> Result {
    enabled(client).await?;
    let keys = args.keys.iter().map(|text| Ok(new_key(key(text)?))).collect::<Result<Vec<_>>>()?;
    modify(&ModifyRequest { add_keys: Some(keys), ..ModifyRequest::default() }, client).await
}

pub(super) async fn remove(args: RemoveArgs, client: &Client) -> Result {
    let status = enabled(client).await?;
    let keys = args.keys.iter().map(|text| Ok(key(text)?.0)).collect::<Result<Vec<_>>>()?;
    check_removal(&status, &keys, args.re_sign)?;
    let remove_keys = keys.into_iter().map(|key| new_key((key, 1))).collect();
    let request =
        ModifyRequest { remove_keys: Some(remove_keys), re_sign: args.re_sign, ..ModifyRequest::default() };
    modify(&request, client).await
}

/// Somebody must stay who is trusted; and what our own key signed cannot be signed anew once it is gone.
fn check_removal(status: &LockStatus, keys: &[LockPublic], re_sign: bool) -> Result {
    let trusted = status.trusted_keys.as_deref().unwrap_or_default();
    if let Some(stranger) = keys.iter().find(|key| !trusted.iter().any(|trusted| trusted.key == **key)) {
        return Err(CliError::new(format!("{} is not trusted", stranger.cli_text())));
    }
    if trusted.iter().all(|trusted| keys.contains(&trusted.key)) {
        return Err(CliError::new("the last trusted keys cannot be removed")
            .hint("To end the lock, use: tsrs-agent lock disable disablement-secret:…"));
    }
    if re_sign && keys.contains(&status.public_key) {
        return Err(CliError::new(
            "this node cannot sign anew what its own key has signed while it removes that key",
        )
        .hint("Remove it on another node, or give --re-sign=false to lock those nodes out."));
    }
    Ok(())
}

pub(super) async fn disable(args: SecretArgs, client: &Client) -> Result {
    // Exposed to be read, and to be given to the daemon.
    let secret = secret(argument(&args.secret)?.expose())?;
    client.send(Method::POST, "tka/disable", secret.expose().clone()).await.map(drop)
}

pub(super) async fn local_disable(_args: LocalDisableArgs, client: &Client) -> Result {
    client.send(Method::POST, "tka/force-local-disable", b"{}".to_vec()).await?;
    output::note("Tailnet Lock is off on this node: whoever the control server names is let in.");
    Ok(())
}

async fn modify(request: &ModifyRequest, client: &Client) -> Result {
    client.post("tka/modify", request).await.map(drop)
}

pub(super) fn new_key((key, votes): (LockPublic, u64)) -> NewLockKey {
    NewLockKey { kind: 1, votes, public: GoBytes(key.as_bytes().to_vec()), meta: None }
}

/// An argument, or the first line of the file that it names.
fn argument(text: &str) -> Result<Redacted<String>> {
    let Some(path) = text.strip_prefix(FILE_PREFIX) else { return Ok(Redacted::new(text.to_owned())) };
    let file = std::fs::File::open(path).map_err(|error| CliError::new(format!("{path}: {error}")))?;
    let mut line = String::new();
    file.take(MAX_FILE_LEN)
        .read_to_string(&mut line)
        .map_err(|error| CliError::new(format!("{path}: {error}")))?;
    let line = Redacted::new(line);
    Ok(Redacted::new(line.expose().trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use tsrs_agent_localapi::lock::LockKey;

    use super::*;

    #[test]
    fn a_removal_that_would_end_or_cripple_the_lock_is_refused() {
        let keys = [1, 2, 3].map(|n| LockPublic::from_bytes([n; 32]));
        let trusted = keys.iter().take(2).map(|key| LockKey { key: *key, ..LockKey::default() }).collect();
        let status = LockStatus { trusted_keys: Some(trusted), public_key: keys[0], ..LockStatus::default() };
        assert!(check_removal(&status, &keys[1..2], true).is_ok());
        assert!(check_removal(&status, &keys[..1], false).is_ok());
        for (remove, words) in
            [(&keys[..1], "its own key"), (&keys[..2], "last"), (&keys[2..], "not trusted")]
        {
            let error = check_removal(&status, remove, true).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn an_argument_may_be_the_name_of_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "tskey-auth-x\n").unwrap();
        // Exposed to be compared.
        assert_eq!(argument(&format!("file:{}", path.display())).unwrap().expose(), "tskey-auth-x");
        assert_eq!(argument("plain").unwrap().expose(), "plain");
        assert!(argument("file:/nowhere/at/all").is_err());
    }
}
