//! `switch`: other accounts.

use std::time::Duration;

use http::Method;
use serde_json::json;
use tsrs_agent_localapi::{BackendState, LoginProfile};

use crate::client::Client;
use crate::error::{CliError, Result};
use crate::output;

/// How often the state is asked for while the other account starts; the official client does the same.
const POLL_EVERY: Duration = Duration::from_millis(100);
/// How long the other account may take.
const START_LIMIT: Duration = Duration::from_secs(10);

/// Arguments of `switch`.
#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    /// Account: id, tailnet, name or nickname.
    account: Option<String>,
    /// List the accounts.
    #[arg(long)]
    list: bool,
    /// Print JSON; with --list.
    #[arg(long, requires = "list")]
    json: bool,
    #[command(subcommand)]
    command: Option<Sub>,
}

#[derive(clap::Subcommand, Debug)]
enum Sub {
    /// Forget an account that is not in use.
    Remove {
        /// Account: id, tailnet, name or nickname.
        account: String,
    },
}

pub(crate) async fn run(args: Args, client: &Client) -> Result {
    let current: LoginProfile = client.get("profiles/current").await?;
    let profiles: Vec<LoginProfile> = client.get("profiles/").await?;
    if let Some(Sub::Remove { account }) = &args.command {
        let profile = find(&profiles, account)?;
        if profile.id == current.id {
            output::note(format_args!("Already on account {:?}", profile.name));
            return Ok(());
        }
        client.send(Method::DELETE, &format!("profiles/{}", profile.id), Vec::new()).await?;
        return Ok(());
    }
    if args.list {
        return list(&profiles, &current, args.json);
    }
    let account = args.account.ok_or_else(|| {
        CliError::new("no account was named").hint("`tsrs-agent switch --list` shows the accounts.")
    })?;
    let profile = find(&profiles, &account)?;
    if profile.id == current.id {
        output::note(format_args!("Already on account {:?}", profile.name));
        return Ok(());
    }
    client.send(Method::POST, &format!("profiles/{}", profile.id), Vec::new()).await?;
    tokio::time::timeout(START_LIMIT, settled(client)).await.map_err(|_| {
        CliError::new(format!("switched to {:?}, but it has not started after {START_LIMIT:?}", profile.name))
            .hint("See `tsrs-agent status` for what is missing.")
    })??;
    output::line(format_args!("Switched to account {:?}", profile.name));
    Ok(())
}

/// Waits until the account runs, or is known to need something.
async fn settled(client: &Client) -> Result {
    loop {
        match client.status(false).await?.backend_state {
            BackendState::NoState | BackendState::Starting => tokio::time::sleep(POLL_EVERY).await,
            BackendState::NeedsLogin => {
                output::note("Logged out; run `tsrs-agent up` to log in.");
                return Ok(());
            }
            BackendState::InUseOtherUser
            | BackendState::NeedsMachineAuth
            | BackendState::Stopped
            | BackendState::Running => return Ok(()),
        }
    }
}

/// Finds an account by id, tailnet, name or display name, in that order.
fn find<'a>(profiles: &'a [LoginProfile], wanted: &str) -> Result<&'a LoginProfile> {
    let by: [fn(&LoginProfile) -> &str; 4] = [
        |profile| &profile.id,
        |profile| &profile.network_profile.domain_name,
        |profile| &profile.name,
        |profile| &profile.network_profile.display_name,
    ];
    by.iter().find_map(|name| profiles.iter().find(|profile| name(profile) == wanted)).ok_or_else(|| {
        CliError::new(format!("no account {wanted:?}")).hint("`tsrs-agent switch --list` shows the accounts.")
    })
}

fn list(profiles: &[LoginProfile], current: &LoginProfile, json: bool) -> Result {
    let tailnet = |profile: &LoginProfile| match profile.network_profile.display_name.as_str() {
        "" => profile.network_profile.domain_name.clone(),
        name => name.to_owned(),
    };
    if json {
        let rows = profiles.iter().map(|profile| {
            json!({
                "id": profile.id, "nickname": profile.name, "tailnet": tailnet(profile),
                "account": profile.user_profile.login_name, "selected": profile.id == current.id,
            })
        });
        return output::json(&rows.collect::<Vec<_>>());
    }
    let mut rows = vec![["ID", "Tailnet", "Account"].map(str::to_owned).to_vec()];
    for profile in profiles {
        let mark = if profile.id == current.id { "*" } else { "" };
        rows.push(vec![profile.id.clone(), tailnet(profile), format!("{}{mark}", profile.name)]);
    }
    output::table(&rows);
    Ok(())
}
