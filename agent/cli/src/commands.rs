//! The commands, one file each.

use std::process::ExitCode;

use clap::Subcommand;

use crate::client::Client;
use crate::error::Result;

mod bugreport;
mod completion;
mod debug;
pub(crate) mod dns;
mod down;
mod get;
mod ip;
mod lock;
mod login;
mod logout;
mod metrics;
mod nc;
mod netcheck;
mod ping;
mod set;
mod ssh_risk;
mod status;
mod switch;
mod up;
mod version;
mod wait;
mod whois;

/// What the program can be asked to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Connect to the tailnet, logging in if needed.
    Up(up::Args),
    /// Disconnect from the tailnet.
    Down(down::Args),
    /// Change settings.
    Set(set::Args),
    /// Show settings.
    Get(get::Args),
    /// Log in to another account.
    Login(login::Args),
    /// Disconnect and expire this node's key.
    Logout(logout::Args),
    /// Switch to another account.
    Switch(switch::Args),
    /// Show this node and its peers.
    Status(status::Args),
    /// Show tailnet addresses.
    Ip(ip::Args),
    /// Probe the path to a peer.
    Ping(ping::Args),
    /// Show who is behind an address.
    Whois(whois::Args),
    /// Show how this host reaches the network.
    Netcheck(netcheck::Args),
    /// DNS settings and queries.
    Dns(dns::Args),
    /// Show metrics.
    Metrics(metrics::Args),
    /// Wait until the tailnet can be used.
    Wait(wait::Args),
    /// Connect standard input and output to a port of a peer.
    Nc(nc::Args),
    /// Tailnet Lock.
    Lock(lock::Args),
    /// Write a report about this node into a local file.
    Bugreport(bugreport::Args),
    /// For finding out what is wrong.
    Debug(debug::Args),
    /// Print shell completions.
    Completion(completion::Args),
    /// Show versions.
    Version(version::Args),
    /// Run the agent itself; needs root. `tsrs-agent daemon --help` lists its flags.
    #[command(disable_help_flag = true)]
    Daemon(Passed),
    /// Undo what a dead daemon left behind; needs root.
    #[command(disable_help_flag = true)]
    Cleanup(Passed),
}

/// Arguments of commands that the program's entry hands to the daemon before this grammar is asked; listed here for help
/// and completions.
#[derive(clap::Args, Debug)]
pub(crate) struct Passed {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<std::ffi::OsString>,
}

impl Command {
    /// Whether the gate applies.
    pub(crate) fn talks_to_daemon(&self) -> bool {
        if let Self::Version(args) = self {
            return args.daemon;
        }
        !matches!(self, Self::Completion(_) | Self::Daemon(_) | Self::Cleanup(_))
    }

    pub(crate) async fn run(self, client: &Client) -> Result<ExitCode> {
        match self {
            Self::Up(args) => up::run(args, client).await?,
            Self::Down(args) => down::run(args, client).await?,
            Self::Set(args) => set::run(args, client).await?,
            Self::Get(args) => get::run(args, client).await?,
            Self::Login(args) => login::run(args, client).await?,
            Self::Logout(args) => logout::run(args, client).await?,
            Self::Switch(args) => switch::run(args, client).await?,
            Self::Status(args) => return status::run(args, client).await,
            Self::Ip(args) => ip::run(args, client).await?,
            Self::Ping(args) => ping::run(args, client).await?,
            Self::Whois(args) => whois::run(args, client).await?,
            Self::Netcheck(args) => netcheck::run(args, client).await?,
            Self::Dns(args) => dns::run(args, client).await?,
            Self::Metrics(args) => metrics::run(args, client).await?,
            Self::Wait(args) => wait::run(args, client).await?,
            Self::Nc(args) => nc::run(args, client).await?,
            Self::Lock(args) => lock::run(args, client).await?,
            Self::Bugreport(args) => bugreport::run(args, client).await?,
            Self::Debug(args) => debug::run(args, client).await?,
            Self::Completion(args) => completion::run(&args),
            Self::Version(args) => version::run(args, client).await?,
            Self::Daemon(_) | Self::Cleanup(_) => {
                return Err(crate::error::CliError::new(
                    "the daemon's commands are run by the program's entry",
                ));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
