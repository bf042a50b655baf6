//! `up`: log in if needed and set all settings at once (client sheet §1.1, §2.5, §2.9).

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use http::Method;
use serde_json::json;
use tsrs_agent_localapi::{BackendState, MaskedPrefs, Prefs, StartOptions, Status, WatchMask};
use tsrs_base_types::Redacted;

use crate::client::{Client, Watcher};
use crate::commands::ssh_risk;
use crate::error::{CliError, Result};
use crate::output::{self, Progress};
use crate::settings::{SETTINGS, SettingFlags, defaults};
use crate::start;

/// Flags of `up`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) login: LoginFlags,
    #[command(flatten)]
    pub(crate) settings: SettingFlags,
    /// Set what is not mentioned to its default.
    #[arg(long)]
    reset: bool,
    /// Log in again even if this node is logged in.
    #[arg(long)]
    force_reauth: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    /// Accept a risk without being asked: lose-ssh or all.
    #[arg(long, default_value = "")]
    accept_risk: String,
}

/// Flags that `up` and `login` share.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct LoginFlags {
    /// Key to log in with, or file:PATH of a file that holds it. Prefer the file: other users can see command lines.
    #[arg(long, visible_alias = "authkey", hide_env_values = true, env = "TSRS_AUTH_KEY", value_parser = secret)]
    pub(crate) auth_key: Option<Redacted<String>>,
    /// URL of the control server.
    #[arg(long)]
    pub(crate) login_server: Option<String>,
    /// Tags to ask for, separated by commas.
    #[arg(long)]
    pub(crate) advertise_tags: Option<String>,
    /// How long to wait, such as 30s or 2m; 0s waits for ever.
    #[arg(long, default_value = "0s", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
    /// Show the login URL as a QR code too; the default on a terminal.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) qr: Option<bool>,
}

/// A value that no debug output shows.
fn secret(text: &str) -> std::result::Result<Redacted<String>, std::convert::Infallible> {
    Ok(Redacted::new(text.to_owned()))
}

/// A duration as Go writes it: a number and s, m or h, also joined.
pub(crate) fn parse_duration(text: &str) -> std::result::Result<Duration, String> {
    let bad = || format!("{text:?} is no duration; write it like 30s or 2m");
    let mut total = Duration::ZERO;
    let mut rest = text;
    if text == "0" {
        return Ok(total);
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or_else(bad)?;
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let (unit_secs, unit_len) = [("ms", 0.001), ("h", 3600.0), ("m", 60.0), ("s", 1.0)]
            .iter()
            .find(|(unit, _)| rest.starts_with(unit))
            .map(|(unit, secs)| (*secs, unit.len()))
            .ok_or_else(bad)?;
        total += Duration::try_from_secs_f64(number * unit_secs).map_err(|_| bad())?;
        rest = &rest[unit_len..];
    }
    if text.is_empty() { Err(bad()) } else { Ok(total) }
}

impl LoginFlags {
    /// The key itself, read from its file where one is named.
    fn key(&self) -> Result<String> {
        // The one place where the key is needed as text: it goes into the request.
        let Some(key) = self.auth_key.as_ref().map(Redacted::expose) else { return Ok(String::new()) };
        let Some(path) = key.strip_prefix("file:") else { return Ok(key.clone()) };
        let text = std::fs::read_to_string(path)
            .map_err(|error| CliError::new(format!("reading the auth key from {path}: {error}")))?;
        Ok(text.trim().to_owned())
    }

    fn apply_to(&self, prefs: &mut Prefs) -> Result {
        if let Some(server) = &self.login_server {
            if !(server.starts_with("https://") || server.starts_with("http://")) {
                return Err(CliError::new(format!("--login-server={server:?} is no URL"))
                    .hint("It begins with https:// or http://."));
            }
            prefs.control_url.clone_from(server);
        }
        if let Some(tags) = &self.advertise_tags {
            let tags = tags.split(',').map(str::trim).filter(|tag| !tag.is_empty());
            let tags: Vec<String> = tags
                .map(|tag| if tag.starts_with("tag:") { tag.to_owned() } else { format!("tag:{tag}") })
                .collect();
            prefs.advertise_tags = (!tags.is_empty()).then_some(tags);
        }
        Ok(())
    }
}

impl Args {
    /// The names of the flags that were given, without dashes.
    fn mentioned(&self) -> Vec<&'static str> {
        let settings = &self.settings;
        let given = [
            ("accept-dns", settings.accept_dns.is_some()),
            ("accept-routes", settings.accept_routes.is_some()),
            ("advertise-connector", settings.advertise_connector.is_some()),
            ("advertise-exit-node", settings.advertise_exit_node.is_some()),
            ("advertise-routes", settings.advertise_routes.is_some()),
            ("advertise-tags", self.login.advertise_tags.is_some()),
            ("exit-node", settings.exit_node.is_some()),
            ("exit-node-allow-lan-access", settings.exit_node_allow_lan_access.is_some()),
            ("hostname", settings.hostname.is_some()),
            ("lock-pin", settings.lock_pin.is_some()),
            ("lock-required", settings.lock_required.is_some()),
            ("login-server", self.login.login_server.is_some()),
            ("netfilter-mode", settings.netfilter_mode.is_some()),
            ("operator", settings.operator.is_some()),
            ("report-posture", settings.report_posture.is_some()),
            ("shields-up", settings.shields_up.is_some()),
            ("snat-subnet-routes", settings.snat_subnet_routes.is_some()),
            ("ssh", settings.ssh.is_some()),
            ("stateful-filtering", settings.stateful_filtering.is_some()),
        ];
        given.into_iter().filter(|(_, given)| *given).map(|(flag, _)| flag).collect()
    }

    fn is_bare(&self) -> bool {
        self.mentioned().is_empty() && self.login.auth_key.is_none() && !self.reset && !self.force_reauth
    }
}

/// What `up` has to do.
#[derive(Debug, PartialEq)]
enum Plan {
    /// Change prefs of a node that is logged in.
    Edit(Box<MaskedPrefs>),
    /// Start with new prefs, logging in where needed.
    Start(Box<Prefs>),
}

pub(crate) async fn run(args: Args, client: &Client) -> Result {
    start::ensure_daemon(client).await?;
    let status = client.status(true).await?;
    let current = client.prefs().await?;
    if args.force_reauth {
        ssh_risk::ask(&status, &args.accept_risk, "logging in again")?;
    }
    let plan = plan(&args, &current, &status)?;
    if let Plan::Start(_) = plan
        && let Some(offer) = takeover_offer(&status, &args.login, client.socket(), Path::new(OFFICIAL_STATE))
    {
        output::note(offer);
    }
    warn_about_forwarding(&args, client).await;
    carry_out(plan, &args.login, args.force_reauth, args.json, &status, client).await
}

/// Decides by what is set now and what is asked for.
fn plan(args: &Args, current: &Prefs, status: &Status) -> Result<Plan> {
    let logged_in = status.have_node_key && status.backend_state != BackendState::NeedsLogin;
    let known = current.config.as_ref().is_some_and(|config| !config.user_profile.login_name.is_empty());
    if args.is_bare() && logged_in && (known || status.backend_state == BackendState::Running) {
        let mut wanted = current.clone();
        wanted.want_running = true;
        return Ok(Plan::Edit(Box::new(MaskedPrefs::between(current, &wanted))));
    }
    let mut wanted = defaults();
    wanted.profile_name.clone_from(&current.profile_name);
    // What opens the node to peers that nobody signed is never a side effect.
    wanted.lock_required = current.lock_required;
    wanted.lock_pin.clone_from(&current.lock_pin);
    args.login.apply_to(&mut wanted)?;
    args.settings.apply_to(&mut wanted, status)?;
    if !args.reset && !current.control_url.is_empty() {
        refuse_forgotten(args, current, &wanted)?;
    }
    wanted.want_running = true;
    let same_server =
        wanted.control_url == current.control_url && wanted.advertise_tags == current.advertise_tags;
    let running = status.backend_state == BackendState::Running;
    if running && same_server && args.login.auth_key.is_none() && !args.force_reauth {
        return Ok(Plan::Edit(Box::new(MaskedPrefs::between(current, &wanted))));
    }
    if running && wanted.control_url != current.control_url && !args.force_reauth {
        return Err(CliError::new("can't change --login-server without --force-reauth")
            .hint("A flag that is left out stands for its default; mention the present server, or use `tsrs-agent set`."));
    }
    Ok(Plan::Start(Box::new(wanted)))
}

/// `up` sets everything at once: a setting that is not the default must be mentioned, so that none is lost by accident.
fn refuse_forgotten(args: &Args, current: &Prefs, wanted: &Prefs) -> Result {
    let mentioned = args.mentioned();
    let forgotten: Vec<_> = SETTINGS
        .iter()
        .filter(|setting| setting.in_up && !mentioned.contains(&setting.flag))
        .filter(|setting| (setting.show)(current) != (setting.show)(wanted))
        .collect();
    if forgotten.is_empty() {
        return Ok(());
    }
    let mut command = "tsrs-agent up".to_owned();
    for setting in SETTINGS.iter().filter(|setting| setting.in_up) {
        let prefs = if mentioned.contains(&setting.flag) { wanted } else { current };
        let value = (setting.show)(prefs);
        if mentioned.contains(&setting.flag) || value != (setting.show)(&defaults()) {
            let value = if value == "true" { String::new() } else { format!("={}", crate::quoted(&value)) };
            command.push_str(&format!(" --{}{value}", setting.flag));
        }
    }
    Err(CliError::new("changing settings via 'tsrs-agent up' requires mentioning all non-default flags").hint(format!(
        "To proceed, either add --reset, change single settings with `tsrs-agent set`, or mention all of them:\n\n\t{command}\n"
    )))
}

/// Where tailscaled keeps its login.
const OFFICIAL_STATE: &str = "/var/lib/tailscale/tailscaled.state";

/// Who moves here from tailscaled need not log in: said to those who are about to, without a key of their own. The
/// daemon takes over at its start, because then nothing of its own can be lost by it.
fn takeover_offer(status: &Status, login: &LoginFlags, socket: &Path, official: &Path) -> Option<String> {
    let applies =
        !status.have_node_key && login.auth_key.is_none() && socket == Path::new(crate::DEFAULT_SOCKET);
    (applies && official.exists()).then(|| {
        let official = official.display();
        format!(
            "tailscaled has a login on this host. To take it over instead of logging in anew, stop tailscaled and this \
             daemon,\nremove /var/lib/tsrs-agent/tsrs-agent.state, and start `tsrs-agent daemon --import {official}` once."
        )
    })
}

async fn warn_about_forwarding(args: &Args, client: &Client) {
    let advertises = args.settings.advertise_routes.as_ref().is_some_and(|routes| !routes.is_empty())
        || args.settings.advertise_exit_node == Some(true)
        || args.settings.advertise_connector == Some(true);
    if !advertises {
        return;
    }
    for check in ["check-ip-forwarding", "check-udp-gro-forwarding"] {
        // The check is a courtesy: `up` goes on without it.
        if let Ok(answer) = client.get::<tsrs_agent_localapi::requests::Warning>(check).await
            && !answer.warning.is_empty()
        {
            output::note(format_args!("Warning: {}", answer.warning));
        }
    }
}

/// Carries the plan out and waits until the node runs or has to be approved.
async fn carry_out(
    plan: Plan,
    login: &LoginFlags,
    force_reauth: bool,
    json: bool,
    status: &Status,
    client: &Client,
) -> Result {
    let watcher = client.watch(WatchMask::default()).await?;
    let server = match &plan {
        Plan::Edit(_) => None,
        Plan::Start(prefs) => Some(prefs.control_url.clone()),
    };
    let old_key = status.self_node.as_ref().map(|node| node.public_key.to_string());
    match plan {
        Plan::Edit(edit) => {
            client.edit_prefs(&edit).await?;
            if status.backend_state == BackendState::Running {
                return finish(json, client).await;
            }
        }
        Plan::Start(prefs) => {
            client.post("check-prefs", &prefs).await?;
            let options = StartOptions {
                update_prefs: Some(*prefs),
                auth_key: login.key()?,
                ..StartOptions::default()
            };
            client.post("start", &options).await?;
            if force_reauth || !status.have_node_key {
                client.send(Method::POST, "login-interactive", Vec::new()).await?;
            }
        }
    }
    let waiting = wait_until_running(watcher, login, json, force_reauth.then_some(old_key).flatten(), server);
    if login.timeout.is_zero() {
        waiting.await?;
    } else {
        tokio::time::timeout(login.timeout, waiting).await.map_err(|_| {
            CliError::new(format!("timeout: not connected after {:?}", login.timeout))
                .hint("See `tsrs-agent status` for what is missing; the daemon goes on trying.")
        })??;
    }
    finish(json, client).await
}

/// Starts a login for `prefs`, as `login` does for a new profile.
pub(crate) async fn log_in(prefs: Prefs, login: &LoginFlags, client: &Client) -> Result {
    let status = client.status(false).await?;
    carry_out(Plan::Start(Box::new(prefs)), login, true, false, &status, client).await
}

/// The prefs that `login` begins with.
pub(crate) fn login_prefs(login: &LoginFlags, settings: &SettingFlags, status: &Status) -> Result<Prefs> {
    let mut prefs = defaults();
    login.apply_to(&mut prefs)?;
    settings.apply_to(&mut prefs, status)?;
    prefs.want_running = true;
    Ok(prefs)
}

async fn wait_until_running(
    mut bus: Watcher,
    login: &LoginFlags,
    json: bool,
    old_key: Option<String>,
    server: Option<String>,
) -> Result {
    let mut progress = Progress::new();
    let mut shown_url = String::new();
    // A forced login keeps running under the old key; it is done when the node has another one.
    let mut key_changed = old_key.is_none();
    let mut running = false;
    // The daemon answers `start` with its prefs; what failed before that belongs to an earlier attempt.
    let mut started = server.is_none();
    progress.say("Connecting …");
    loop {
        let message = bus.next().await?;
        started |= message.prefs.is_some();
        if let Some(error) = message.err_message.filter(|_| started) {
            let error = CliError::new(error);
            return Err(match server {
                Some(server) if !server.is_empty() => {
                    error.hint(format!("The login server is {server} (--login-server)."))
                }
                Some(_) | None => error,
            });
        }
        if let (Some(old), Some(node)) = (&old_key, &message.self_change) {
            key_changed |= node.key.to_string() != *old;
        }
        if let Some(url) = message.browse_to_url.filter(|url| *url != shown_url) {
            drop(progress);
            show_login(&url, login, json)?;
            shown_url = url;
            progress = Progress::new();
            progress.say("Waiting for the login in the browser …");
        }
        match message.state {
            Some(BackendState::Running) => running = true,
            Some(BackendState::NeedsMachineAuth) => {
                progress.say("Logged in; waiting for an admin to approve this machine …")
            }
            Some(BackendState::Starting) => progress.say("Starting …"),
            Some(
                BackendState::NoState
                | BackendState::InUseOtherUser
                | BackendState::NeedsLogin
                | BackendState::Stopped,
            )
            | None => {}
        }
        if running && key_changed {
            return Ok(());
        }
    }
}

fn show_login(url: &str, login: &LoginFlags, json: bool) -> Result {
    if json {
        return output::json(&json!({ "AuthURL": url, "BackendState": "NeedsLogin" }));
    }
    output::note(format_args!("\nTo authenticate, visit:\n\n\t{url}\n"));
    if login.qr.unwrap_or_else(|| std::io::stderr().is_terminal())
        && let Ok(code) = qrcode::QrCode::new(url)
    {
        output::note(code.render::<qrcode::render::unicode::Dense1x2>().quiet_zone(true).build());
    }
    Ok(())
}

async fn finish(json: bool, client: &Client) -> Result {
    let status = client.status(false).await?;
    if json {
        return output::json(&json!({ "BackendState": status.backend_state.word() }));
    }
    for text in status.health.unwrap_or_default() {
        output::note(format_args!("Warning: {text}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tsrs_agent_localapi::UserProfile;
    use tsrs_agent_localapi::prefs::LoginConfig;

    use super::*;

    fn logged_in() -> (Prefs, Status) {
        let mut prefs = defaults();
        prefs.control_url = "https://control.example".into();
        prefs.config = Some(LoginConfig {
            user_profile: UserProfile { login_name: "alice".into(), ..UserProfile::default() },
            ..LoginConfig::default()
        });
        let status =
            Status { have_node_key: true, backend_state: BackendState::Stopped, ..Status::default() };
        (prefs, status)
    }

    #[test]
    fn bare_up_of_a_logged_in_node_only_switches_it_on() {
        let (prefs, status) = logged_in();
        let Plan::Edit(edit) = plan(&Args::default(), &prefs, &status).unwrap() else { panic!() };
        assert!(edit.prefs.want_running && edit.mask.want_running);
        assert!(!edit.mask.control_url);
    }

    #[test]
    fn a_setting_that_would_be_lost_is_named_with_the_whole_command() {
        let (mut prefs, status) = logged_in();
        prefs.route_all = true;
        prefs.hostname = "it's".into();
        let args = Args {
            settings: SettingFlags { shields_up: Some(true), ..Default::default() },
            ..Default::default()
        };
        let error = plan(&args, &prefs, &status).unwrap_err().to_string();
        assert!(error.contains("--accept-routes"), "{error}");
        assert!(error.contains(r"--hostname='it'\''s'"), "{error}");
        assert!(error.contains("--login-server=https://control.example --shields-up"), "{error}");
        let args = Args { reset: true, ..args };
        assert!(plan(&args, &prefs, &status).is_ok());
    }

    #[test]
    fn a_running_node_is_edited_and_a_new_one_started() {
        let (prefs, mut status) = logged_in();
        status.backend_state = BackendState::Running;
        let server =
            LoginFlags { login_server: Some("https://control.example".into()), ..Default::default() };
        let settings = SettingFlags { shields_up: Some(true), ..Default::default() };
        let args = Args { login: server, settings, ..Default::default() };
        let Plan::Edit(edit) = plan(&args, &prefs, &status).unwrap() else { panic!() };
        assert!(edit.mask.shields_up && !edit.mask.control_url);
        let Plan::Start(prefs) = plan(&args, &defaults(), &Status::default()).unwrap() else { panic!() };
        assert_eq!(prefs.control_url, "https://control.example");
        assert!(prefs.want_running);
    }

    #[test]
    fn a_reset_does_not_open_the_node_to_unsigned_peers() {
        let (prefs, mut status) = logged_in();
        status.backend_state = BackendState::Running;
        let prefs = Prefs { lock_required: true, lock_pin: "tlpub:x".into(), ..prefs };
        let server =
            LoginFlags { login_server: Some("https://control.example".into()), ..Default::default() };
        let args = Args { login: server, reset: true, ..Default::default() };
        let Plan::Edit(edit) = plan(&args, &prefs, &status).unwrap() else { panic!() };
        assert!(!edit.mask.lock_required && !edit.mask.lock_pin);
    }

    #[test]
    fn an_edit_of_a_running_node_touches_what_was_mentioned_and_nothing_else() {
        let (prefs, mut status) = logged_in();
        status.backend_state = BackendState::Running;
        let server =
            LoginFlags { login_server: Some("https://control.example".into()), ..Default::default() };
        let settings = SettingFlags { ssh: Some(true), ..Default::default() };
        let running = Prefs { want_running: true, ..prefs };
        let args = Args { login: server, settings, ..Default::default() };
        let Plan::Edit(edit) = plan(&args, &running, &status).unwrap() else { panic!() };
        let wanted = Prefs { run_ssh: true, ..running.clone() };
        assert_eq!(edit.mask, MaskedPrefs::between(&running, &wanted).mask);
    }

    #[test]
    fn a_login_of_tailscaled_is_offered_only_to_those_who_have_none() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let default = Path::new(crate::DEFAULT_SOCKET);
        let (login, keyed) = (
            LoginFlags::default(),
            LoginFlags { auth_key: Some(Redacted::new("tskey-auth-x".into())), ..LoginFlags::default() },
        );
        let (fresh, (_, known)) = (Status::default(), logged_in());
        let offer = takeover_offer(&fresh, &login, default, here).unwrap();
        assert!(offer.contains("--import"), "{offer}");
        for (status, login, socket, official) in [
            (&known, &login, default, here),
            (&fresh, &keyed, default, here),
            (&fresh, &login, Path::new("/run/tsrs-agent-1/tailscaled.sock"), here),
            (&fresh, &login, default, Path::new("/nowhere/tailscaled.state")),
        ] {
            assert_eq!(takeover_offer(status, login, socket, official), None);
        }
    }

    #[test]
    fn another_server_needs_a_forced_login() {
        let (prefs, mut status) = logged_in();
        status.backend_state = BackendState::Running;
        let login = LoginFlags { login_server: Some("https://other.example".into()), ..Default::default() };
        let args = Args { login, ..Default::default() };
        assert!(plan(&args, &prefs, &status).unwrap_err().to_string().contains("--force-reauth"));
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        assert_eq!(parse_duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        for bad in ["", "5", "s", "1x", "-1s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_auth_key_is_read_from_its_file_without_the_line_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "tskey-auth-1\n").unwrap();
        let flags = LoginFlags {
            auth_key: Some(Redacted::new(format!("file:{}", file.path().display()))),
            ..Default::default()
        };
        assert_eq!(flags.key().unwrap(), "tskey-auth-1");
        let given = LoginFlags { auth_key: Some(Redacted::new("tskey-auth-2".into())), ..Default::default() };
        assert!(!format!("{given:?}").contains("tskey"));
        let missing =
            LoginFlags { auth_key: Some(Redacted::new("file:/nonexistent".into())), ..Default::default() };
        assert!(missing.key().unwrap_err().to_string().contains("/nonexistent"));
    }
}
