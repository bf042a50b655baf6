//! `completion`: scripts for shells.

use clap_complete::Shell;

use crate::output;

/// Arguments of `completion`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The shell.
    shell: Shell,
}

pub(crate) fn run(args: &Args) {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::grammar(), "tsrs-agent", &mut script);
    output::text(String::from_utf8_lossy(&script));
}
