//! `lock init` and `lock disablement-kdf`.

use data_encoding::HEXLOWER_PERMISSIVE;
use http::Method;
use tsrs_agent_localapi::lock::{Disablement, GoBytes, InitRequest};
use tsrs_agent_localapi::tailcfg::Base64;
use tsrs_base_types::LockPublic;

use super::change::new_key;
use super::{key, secret, status};
use crate::client::Client;
use crate::error::{CliError, Result};
use crate::output;

/// Secrets that may be made at once: as many as a lock stores.
const MAX_SECRETS: i64 = 32;
/// Bytes of what a lock stores of a secret.
const VALUE_LEN: usize = 32;

/// Arguments of `lock init`.
#[derive(clap::Args, Debug)]
pub(super) struct InitArgs {
    /// How many secrets that end the lock are made and shown.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i64).range(0..=MAX_SECRETS))]
    gen_disablements: i64,
    /// Make one more secret and leave it with the operator of the control server.
    #[arg(long)]
    gen_disablement_for_support: bool,
    /// Do it; without this it is only said what would be done.
    #[arg(long)]
    confirm: bool,
    /// The first trusted keys (tlpub:…), each perhaps with ?<votes>, this node's own among them; and what a lock stores of secrets that
    /// were made elsewhere (disablement:…).
    #[arg(required = true)]
    keys: Vec<String>,
}

/// Arguments of `lock disablement-kdf`.
#[derive(clap::Args, Debug)]
pub(super) struct KdfArgs {
    /// A secret in hex digits.
    secret: String,
}

pub(super) async fn init(args: InitArgs, client: &Client) -> Result {
    let status = status(client).await?;
    if status.enabled {
        return Err(CliError::new("Tailnet Lock is already enabled"));
    }
    let Parts { keys, mut values } = split(&args.keys)?;
    if !keys.iter().any(|(key, _)| *key == status.public_key) {
        return Err(CliError::new("this node's own key must be one of the trusted keys").hint(format!(
            "Add it to the list: {}. At least one other node should be trusted as well, in case this one is lost.",
            status.public_key.cli_text()
        )));
    }
    let own_secrets = args.gen_disablements + i64::from(args.gen_disablement_for_support);
    if values.is_empty() && own_secrets == 0 {
        return Err(CliError::new("a lock without a disablement secret could never be ended")
            .hint("Leave --gen-disablements at 1 or more, or give a disablement:… made elsewhere."));
    }
    let said = if args.confirm { "Tailnet Lock is made with" } else { "Tailnet Lock would be made with" };
    output::line(format_args!("{said} these trusted keys:"));
    for (key, votes) in &keys {
        output::line(format_args!("  - {} ({votes} votes)", key.cli_text()));
    }
    if !args.confirm {
        output::line(format_args!(
            "and {} secrets that end it. Nothing was done; give --confirm to do it.",
            values.len() as i64 + own_secrets
        ));
        return Ok(());
    }
    output::line("These secrets end the lock. They are shown this once; keep them in a safe place:");
    for _ in 0..args.gen_disablements {
        let made = derive(Vec::new(), client).await?;
        // Exposed to be shown to the user, once.
        output::line(made.secret.0.expose());
        values.push(value(&made.value)?);
    }
    let mut support_disablement = GoBytes::default();
    if args.gen_disablement_for_support {
        let made = derive(Vec::new(), client).await?;
        values.push(value(&made.value)?);
        // Exposed to be left with the operator of control.
        support_disablement = GoBytes(secret(made.secret.0.expose())?.expose().clone());
    }
    let request = InitRequest {
        keys: Some(keys.into_iter().map(new_key).collect()),
        disablement_values: Some(values.into_iter().map(Base64).collect()),
        support_disablement,
    };
    client.post("tka/init", &request).await?;
    output::line("Tailnet Lock is on.");
    Ok(())
}

pub(super) async fn kdf(args: KdfArgs, client: &Client) -> Result {
    let raw = HEXLOWER_PERMISSIVE.decode(args.secret.as_bytes());
    let raw = raw.map_err(|_| CliError::new("the secret is not written in hex digits"))?;
    if raw.is_empty() {
        return Err(CliError::new("the secret is empty"));
    }
    output::line(derive(raw, client).await?.value);
    Ok(())
}

/// What a lock stores of a secret, or of a fresh one if this is empty.
async fn derive(secret: Vec<u8>, client: &Client) -> Result<Disablement> {
    let answer = client.send(Method::POST, "tka/disablement-kdf", secret).await?;
    Ok(serde_json::from_slice(&answer)?)
}

/// What a lock is made of.
#[derive(Debug, Default)]
struct Parts {
    /// Keys with their votes.
    keys: Vec<(LockPublic, u64)>,
    /// Values of secrets that were made elsewhere.
    values: Vec<Vec<u8>>,
}

fn split(arguments: &[String]) -> Result<Parts> {
    let mut parts = Parts::default();
    for argument in arguments {
        if argument.starts_with("disablement-secret:") {
            return Err(CliError::new("a secret would be published if it were stored in the lock").hint(
                "Derive what is stored with: tsrs-agent lock disablement-kdf <hex digits of the secret>",
            ));
        }
        if argument.starts_with("disablement:") {
            parts.values.push(value(argument)?);
        } else {
            parts.keys.push(key(argument)?);
        }
    }
    Ok(parts)
}

fn value(text: &str) -> Result<Vec<u8>> {
    let digits = text.strip_prefix("disablement:").unwrap_or_default();
    let raw = HEXLOWER_PERMISSIVE.decode(digits.as_bytes());
    let raw = raw.ok().filter(|raw| raw.len() == VALUE_LEN);
    raw.ok_or_else(|| CliError::new(format!("{text:?} does not hold {VALUE_LEN} bytes in hex digits")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_taken_for_a_value() {
        let key = format!("tlpub:{}?2", "11".repeat(32));
        let value = format!("disablement:{}", "22".repeat(32));
        let Parts { keys, values } = split(&[key.clone(), value]).unwrap();
        assert_eq!((keys[0].1, values), (2, vec![vec![0x22; 32]]));
        let secret = format!("disablement-secret:{}", "33".repeat(32));
        let error = split(&[key.clone(), secret]).unwrap_err().to_string();
        assert!(error.contains("published") && !error.contains("33"), "{error}");
        assert!(split(&[key, "disablement:22".to_owned()]).is_err());
    }
}
