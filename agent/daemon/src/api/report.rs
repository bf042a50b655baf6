//! `bugreport`: a bundle on this host. Nothing is ever sent anywhere.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use http::StatusCode;
use http::header::HeaderValue;
use jiff::Timestamp;
use tsrs_agent_core::status;

use super::request::Asked;
use super::{Answer, Api};
use crate::store;

/// Bundles that are kept; the oldest make room.
const MAX_BUNDLES: usize = 5;
/// Longest note of the user.
const MAX_NOTE_LEN: usize = 4096;
const PREFIX: &str = "bugreport-";

impl Api {
    /// Who may change settings gets a bundle in the state directory; others get the line alone.
    pub(super) async fn bug_report(&self, asked: &Asked) -> Answer {
        let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let mut line = format!("BUG-NOTHING-UPLOADED-{stamp}");
        if asked.access.write {
            let text = self.bundle(asked).await;
            let path = self.state_dir.join(format!("{PREFIX}{stamp}.txt"));
            let written = tokio::task::spawn_blocking(move || {
                make_room(path.parent().unwrap_or(Path::new(".")));
                store::write_atomically(&path, text.as_bytes()).map(|()| path)
            });
            match written.await {
                Ok(Ok(path)) => line = format!("{line}-see-{}", path.display()),
                Ok(Err(error)) => return not_written(&self.state_dir, &error),
                Err(error) => return not_written(&self.state_dir, &error),
            }
        }
        let content_type = HeaderValue::from_static("text/plain");
        Answer::with_body(StatusCode::OK, content_type, format!("{line}\n").into_bytes())
    }

    async fn bundle(&self, asked: &Asked) -> String {
        let snapshot = self.backend.snapshot();
        let live = self.tunnel.live().await;
        let mut text = String::new();
        let note: String = asked.param("note").chars().take(MAX_NOTE_LEN).collect();
        // Writing to a text does not fail.
        let _ = writeln!(text, "tsrs-agent {}\nnote: {note}\n", snapshot.version);
        let section = |text: &mut String, title: &str, content: String| {
            let _ = writeln!(text, "== {title}\n{content}\n");
        };
        let json = |value: serde_json::Result<String>| value.unwrap_or_else(|error| error.to_string());
        let status = status::status(&snapshot, &live, true);
        section(&mut text, "status", json(serde_json::to_string_pretty(&status)));
        section(&mut text, "prefs", json(serde_json::to_string_pretty(&snapshot.prefs)));
        section(&mut text, "health", json(serde_json::to_string_pretty(&snapshot.health)));
        section(&mut text, "netcheck", self.tunnel.netcheck().await.to_string());
        let dns = self.host.dns_status().await;
        section(&mut text, "dns", format!("{dns:#?}"));
        let home = live.home_derp.map_or(0, |region| region.0);
        section(&mut text, "metrics", super::metrics::user_metrics(&snapshot, &self.tunnel.metrics(), home));
        text
    }
}

fn not_written(dir: &Path, error: &dyn std::fmt::Display) -> Answer {
    let dir = dir.display();
    Answer::text(500, &format!("the report was not written to {dir}: {error}; make room there, then ask again"))
}

/// Removes the oldest bundles, so that no more than [`MAX_BUNDLES`] are there after the next.
fn make_room(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let mut bundles: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX))
        .map(|entry| entry.path())
        .collect();
    // Their names sort by time.
    bundles.sort_unstable();
    let surplus = (bundles.len() + 1).saturating_sub(MAX_BUNDLES);
    for path in bundles.into_iter().take(surplus) {
        if let Err(error) = fs::remove_file(&path) {
            tracing::debug!(%error, "an old report was not removed");
        }
    }
}
