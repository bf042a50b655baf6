//! `login`: a new account beside the present one.

use http::Method;

use crate::client::Client;
use crate::commands::{ssh_risk, up};
use crate::error::Result;
use crate::settings::SettingFlags;
use crate::start;

/// Flags of `login`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    login: up::LoginFlags,
    #[command(flatten)]
    settings: SettingFlags,
    /// Name of the account in lists.
    #[arg(long, default_value = "")]
    nickname: String,
    /// Accept a risk without being asked: lose-ssh or all.
    #[arg(long, default_value = "")]
    accept_risk: String,
}

pub(crate) async fn run(args: Args, client: &Client) -> Result {
    start::ensure_daemon(client).await?;
    let status = client.status(true).await?;
    ssh_risk::ask(&status, &args.accept_risk, "changing the account")?;
    let mut prefs = up::login_prefs(&args.login, &args.settings, &status)?;
    prefs.profile_name = args.nickname;
    client.send(Method::PUT, "profiles/", Vec::new()).await?;
    up::log_in(prefs, &args.login, client).await
}
