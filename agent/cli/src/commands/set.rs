//! `set`: change the named settings and no other.

use tsrs_agent_localapi::MaskedPrefs;

use crate::client::Client;
use crate::error::Result;
use crate::output;
use crate::settings::{SetOnlyFlags, SettingFlags};

/// Flags of `set`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    settings: SettingFlags,
    #[command(flatten)]
    set_only: SetOnlyFlags,
}

pub(crate) async fn run(args: Args, client: &Client) -> Result {
    let status = client.status(true).await?;
    let current = client.prefs().await?;
    let mut wanted = current.clone();
    args.settings.apply_to(&mut wanted, &status)?;
    args.set_only.apply_to(&mut wanted)?;
    let edit = MaskedPrefs::between(&current, &wanted);
    if edit.is_empty() {
        return if args.names_nothing() {
            // Nothing was asked for, so nothing failed: what could be is shown, as the official client does.
            let mut grammar = crate::grammar();
            grammar.build();
            output::note(
                grammar.find_subcommand_mut("set").map(clap::Command::render_help).unwrap_or_default(),
            );
            Ok(())
        } else {
            Ok(())
        };
    }
    client.post("check-prefs", &wanted).await?;
    client.edit_prefs(&edit).await?;
    Ok(())
}

impl Args {
    fn names_nothing(&self) -> bool {
        let empty = Self { settings: SettingFlags::default(), set_only: SetOnlyFlags::default() };
        format!("{self:?}") == format!("{empty:?}")
    }
}
