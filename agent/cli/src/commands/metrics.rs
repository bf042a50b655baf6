//! `metrics`: counters for dashboards.

use std::path::PathBuf;

use crate::client::Client;
use crate::error::{CliError, Result};
use crate::output;

/// Arguments of `metrics`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Sub>,
}

#[derive(clap::Subcommand, Debug)]
enum Sub {
    /// Print the metrics.
    Print,
    /// Write the metrics into a file, for the textfile collector of node_exporter.
    Write {
        /// Where to.
        path: PathBuf,
    },
}

pub(crate) async fn run(args: Args, client: &Client) -> Result {
    let text = client.get_text("usermetrics").await?;
    match args.command {
        None | Some(Sub::Print) => output::text(text),
        Some(Sub::Write { path }) => {
            // Written beside and renamed, so that a collector never sees half a file.
            let beside = path.with_extension("tmp");
            let written = std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, &path));
            written.map_err(|error| CliError::new(format!("writing {}: {error}", path.display())))?;
        }
    }
    Ok(())
}
