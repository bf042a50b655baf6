//! `bugreport`: a report in a local file. Nothing is uploaded.

use http::Method;

use crate::client::Client;
use crate::error::Result;
use crate::output;

/// Arguments of `bugreport`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// A note to put into the report.
    note: Option<String>,
    /// Look at more of the host.
    #[arg(long)]
    diagnose: bool,
}

pub(crate) async fn run(args: Args, client: &Client) -> Result {
    let mut query = Vec::new();
    if let Some(note) = args.note {
        query.push(format!("note={}", escaped(&note)));
    }
    if args.diagnose {
        query.push("diagnose=true".to_owned());
    }
    let path =
        if query.is_empty() { "bugreport".to_owned() } else { format!("bugreport?{}", query.join("&")) };
    let answer = client.send(Method::POST, &path, Vec::new()).await?;
    output::line(String::from_utf8_lossy(&answer).trim_end());
    Ok(())
}

/// Percent-escapes everything but letters and digits (RFC 3986 §2.1).
fn escaped(text: &str) -> String {
    text.bytes()
        .map(
            |byte| {
                if byte.is_ascii_alphanumeric() {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02X}")
                }
            },
        )
        .collect()
}
