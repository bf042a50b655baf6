//! `lock`: Tailnet Lock. The daemon makes and verifies everything; here are arguments, questions and what is shown.

mod change;
mod init;
mod revoke;
mod show;

use data_encoding::HEXLOWER_PERMISSIVE;
use tsrs_agent_localapi::lock::LockStatus;
use tsrs_base_types::{LockPublic, Redacted};

use crate::client::Client;
use crate::error::{CliError, Result};

/// Arguments of `lock`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Sub>,
}

#[derive(clap::Subcommand, Debug)]
enum Sub {
    /// Show whether the tailnet is locked, who is trusted, and who is kept out.
    Status(show::Json),
    /// Show the changes of the lock, the newest first.
    Log(show::LogArgs),
    /// Sign a node key, or an auth key so that nodes that use it need no other signature.
    Sign(change::SignArgs),
    /// Trust more keys.
    Add(change::KeyArgs),
    /// Trust keys no longer.
    Remove(change::RemoveArgs),
    /// End the lock for the whole tailnet, with one of its secrets.
    Disable(change::SecretArgs),
    /// Switch the lock off on this node alone.
    LocalDisable(change::LocalDisableArgs),
    /// Make a lock.
    Init(init::InitArgs),
    /// Show what a lock stores of a secret.
    DisablementKdf(init::KdfArgs),
    /// Undo what keys did that are in the wrong hands, together with others who are trusted.
    RevokeKeys(revoke::RevokeArgs),
}

pub(crate) async fn run(args: Args, client: &Client) -> Result {
    match args.command {
        None => show::status(false, client).await,
        Some(Sub::Status(args)) => show::status(args.json.is_some(), client).await,
        Some(Sub::Log(args)) => show::log(args, client).await,
        Some(Sub::Sign(args)) => change::sign(args, client).await,
        Some(Sub::Add(args)) => change::add(args, client).await,
        Some(Sub::Remove(args)) => change::remove(args, client).await,
        Some(Sub::Disable(args)) => change::disable(args, client).await,
        Some(Sub::LocalDisable(args)) => change::local_disable(args, client).await,
        Some(Sub::Init(args)) => init::init(args, client).await,
        Some(Sub::DisablementKdf(args)) => init::kdf(args, client).await,
        Some(Sub::RevokeKeys(args)) => revoke::run(args, client).await,
    }
}

async fn status(client: &Client) -> Result<LockStatus> {
    client.get("tka/status").await
}

/// The state of a lock that is on.
async fn enabled(client: &Client) -> Result<LockStatus> {
    let status = status(client).await?;
    if status.enabled { Ok(status) } else { Err(CliError::new("Tailnet Lock is not enabled")) }
}

/// A key with its votes: `tlpub:…` or `nlpub:…`, then perhaps `?` and the votes.
fn key(text: &str) -> Result<(LockPublic, u64)> {
    let (name, votes) = match text.split_once('?') {
        Some((name, votes)) => {
            let votes = votes.parse().map_err(|_| CliError::new(format!("{votes:?} is no number of votes")));
            (name, votes?)
        }
        None => (text, 1),
    };
    let public =
        name.parse().map_err(|error| CliError::new(format!("{name:?} is no tailnet lock key: {error}")));
    Ok((public?, votes))
}

/// The bytes behind `disablement-secret:`; never shown, also not in an error.
fn secret(text: &str) -> Result<Redacted<Vec<u8>>> {
    let digits = text.strip_prefix("disablement-secret:").ok_or_else(|| {
        CliError::new("a secret begins with \"disablement-secret:\"")
            .hint("A text that begins with \"disablement:\" is only the digest of a secret.")
    })?;
    let raw = HEXLOWER_PERMISSIVE.decode(digits.as_bytes());
    raw.map(Redacted::new).map_err(|_| CliError::new("the secret is not written in hex digits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_secrets_are_read_as_the_tools_write_them() {
        let text = format!("tlpub:{}", "11".repeat(32));
        let public = LockPublic::from_bytes([0x11; 32]);
        assert_eq!(key(&text).unwrap(), (public, 1));
        assert_eq!(key(&format!("nlpub:{}?3", "11".repeat(32))).unwrap(), (public, 3));
        for bad in ["tlpub:11", "nodekey:11", "", "?", &format!("{text}?x")] {
            assert!(key(bad).is_err(), "{bad}");
        }
        // Exposed to be compared.
        assert_eq!(secret("disablement-secret:AB01").unwrap().expose(), &[0xab, 1]);
        for bad in ["disablement:ab", "ab", "disablement-secret:zz"] {
            let error = secret(bad).unwrap_err().to_string();
            assert!(!error.contains("zz"), "{error}");
        }
    }
}
