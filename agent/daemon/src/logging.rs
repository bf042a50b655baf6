//! Logs: stderr, INFO, without a time where journald adds its own.

use std::env;
use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::Subscriber;

/// Variable with a filter in the syntax of `tracing`; it beats `--verbose`.
const VARIABLE: &str = "TSRS_LOG";

/// Begins to log. Later calls change nothing, so that tests may start several daemons.
pub(crate) fn begin(verbose: u8) {
    let level = match verbose {
        0 => "info",
        1 => "debug",
        _ => "trace",
    };
    // Libraries have their say from DEBUG on; at INFO they would talk about themselves.
    let usual = format!("{level},hyper=info,h2=info,rustls=info,zbus=warn");
    let filter = EnvFilter::builder().parse_lossy(env::var(VARIABLE).unwrap_or(usual));
    let builder = Subscriber::builder().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    let under_journald = env::var_os("JOURNAL_STREAM").is_some();
    let subscriber: Box<dyn tracing::Subscriber + Send + Sync> = if under_journald {
        Box::new(builder.without_time().with_ansi(false).finish())
    } else {
        Box::new(builder.with_ansi(io::stderr().is_terminal()).finish())
    };
    if tracing::subscriber::set_global_default(subscriber).is_err() {
        tracing::debug!("logging was set up before");
    }
}
