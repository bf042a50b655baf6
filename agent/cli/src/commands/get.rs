//! `get`: show settings under their flag names.

use serde_json::{Map, Value};

use crate::client::Client;
use crate::error::{CliError, Result};
use crate::output;
use crate::settings::{SETTINGS, Setting};

/// Arguments of `get`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Setting to show, or all.
    #[arg(default_value = "all")]
    name: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Print the `set` command that makes these settings.
    #[arg(long, conflicts_with = "json")]
    set_flags: bool,
}

pub(crate) async fn run(args: Args, client: &Client) -> Result {
    let prefs = client.prefs().await?;
    let wanted: Vec<&Setting> =
        SETTINGS.iter().filter(|setting| args.name == "all" || setting.flag == args.name).collect();
    if wanted.is_empty() {
        return Err(CliError::new(format!("unknown setting {:?}", args.name))
            .hint("`tsrs-agent get` lists the settings."));
    }
    let shown = wanted.iter().map(|setting| (setting.flag, (setting.show)(&prefs)));
    if args.json {
        let object: Map<String, Value> = shown.map(|(flag, value)| (flag.to_owned(), typed(value))).collect();
        return output::json(&object);
    }
    if args.set_flags {
        let in_set = shown.filter(|(flag, _)| !matches!(*flag, "login-server" | "advertise-tags"));
        let flags: Vec<String> =
            in_set.map(|(flag, value)| format!("--{flag}={}", crate::quoted(&value))).collect();
        output::line(format_args!("tsrs-agent set {}", flags.join(" ")));
        return Ok(());
    }
    if let ([_], Some((_, value))) = (&wanted[..], shown.clone().next()) {
        output::line(value);
        return Ok(());
    }
    let mut rows = vec![vec!["NAME".to_owned(), "VALUE".to_owned()]];
    rows.extend(shown.map(|(flag, value)| vec![flag.to_owned(), value]));
    output::table(&rows);
    Ok(())
}

fn typed(value: String) -> Value {
    match value.as_str() {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => Value::String(value),
    }
}
