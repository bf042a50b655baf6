//! The configuration file: settings as a file instead of commands (client sheet §2.7, `alpha0`).
//!
//! JSON with comments and trailing commas. What the file names is set, what it leaves out stays. A member that is not
//! known is an error, because a setting that is silently not applied is worse than a daemon that says so.

use serde::{Deserialize, Deserializer};
use tsrs_agent_localapi::MaskedPrefs;
use tsrs_agent_localapi::prefs::{AutoUpdatePrefs, NetfilterMode};
use tsrs_base_types::{Redacted, StableNodeId};

/// Largest file that is read.
pub const MAX_LEN: usize = 256 << 10;

/// What a file says.
#[derive(Debug)]
pub struct ConfigFile {
    /// The settings that it names.
    pub edit: MaskedPrefs,
    /// A key for the first login.
    pub auth_key: Option<Redacted<String>>,
    /// Whether clients may change nothing meanwhile.
    pub locked: bool,
}

/// Why a file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// It is no JSON of the right shape.
    #[error("{0}")]
    Json(String),
    /// It has another version.
    #[error("the version must be \"alpha0\", not {0:?}")]
    Version(String),
    /// A value cannot be.
    #[error("{0}")]
    Value(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "Version", alias = "version")]
    version: String,
    #[serde(rename = "Locked", alias = "locked", default)]
    locked: Option<bool>,
    #[serde(rename = "ServerURL", alias = "serverURL", default)]
    server_url: Option<String>,
    #[serde(rename = "AuthKey", alias = "authKey", default, deserialize_with = "secret")]
    auth_key: Option<Redacted<String>>,
    #[serde(rename = "Enabled", alias = "enabled", default)]
    enabled: Option<bool>,
    #[serde(rename = "OperatorUser", alias = "operatorUser", default)]
    operator_user: Option<String>,
    #[serde(rename = "Hostname", alias = "hostname", default)]
    hostname: Option<String>,
    #[serde(rename = "acceptDNS", alias = "AcceptDNS", default)]
    accept_dns: Option<bool>,
    #[serde(rename = "acceptRoutes", alias = "AcceptRoutes", default)]
    accept_routes: Option<bool>,
    #[serde(rename = "exitNode", alias = "ExitNode", default)]
    exit_node: Option<String>,
    #[serde(rename = "allowLANWhileUsingExitNode", default)]
    allow_lan: Option<bool>,
    #[serde(rename = "AdvertiseRoutes", alias = "advertiseRoutes", default)]
    advertise_routes: Option<Vec<ipnet::IpNet>>,
    #[serde(rename = "DisableSNAT", alias = "disableSNAT", default)]
    disable_snat: Option<bool>,
    #[serde(rename = "AdvertiseServices", alias = "advertiseServices", default)]
    advertise_services: Option<Vec<String>>,
    #[serde(rename = "NetfilterMode", alias = "netfilterMode", default)]
    netfilter_mode: Option<String>,
    #[serde(rename = "NoStatefulFiltering", alias = "noStatefulFiltering", default)]
    no_stateful_filtering: Option<bool>,
    #[serde(rename = "PostureChecking", alias = "postureChecking", default)]
    posture_checking: Option<bool>,
    #[serde(rename = "RunSSHServer", alias = "runSSHServer", default)]
    run_ssh: Option<bool>,
    #[serde(rename = "RunWebClient", alias = "runWebClient", default)]
    run_web_client: Option<bool>,
    #[serde(rename = "ShieldsUp", alias = "shieldsUp", default)]
    shields_up: Option<bool>,
    #[serde(rename = "AutoUpdate", alias = "autoUpdate", default)]
    auto_update: Option<AutoUpdatePrefs>,
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Redacted<String>>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(Redacted::new))
}

impl ConfigFile {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be used; nothing of it is.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let json = without_comments(text);
        let file: File = serde_json::from_str(&json).map_err(|error| ConfigError::Json(error.to_string()))?;
        if file.version != "alpha0" {
            return Err(ConfigError::Version(file.version));
        }
        let mut edit = MaskedPrefs::default();
        let (prefs, mask) = (&mut edit.prefs, &mut edit.mask);
        macro_rules! take {
            ($($from:ident => $to:ident,)*) => {
                $(if let Some(value) = file.$from {
                    prefs.$to = value.into();
                    mask.$to = true;
                })*
            };
        }
        take! {
            server_url => control_url,
            operator_user => operator_user,
            hostname => hostname,
            accept_dns => corp_dns,
            accept_routes => route_all,
            allow_lan => exit_node_allow_lan_access,
            advertise_routes => advertise_routes,
            disable_snat => no_snat,
            advertise_services => advertise_services,
            no_stateful_filtering => no_stateful_filtering,
            posture_checking => posture_checking,
            run_ssh => run_ssh,
            run_web_client => run_web_client,
            shields_up => shields_up,
        }
        // A file that says nothing about it means a tunnel that is up.
        prefs.want_running = file.enabled.unwrap_or(true);
        mask.want_running = true;
        if let Some(exit_node) = file.exit_node {
            prefs.exit_node_id = StableNodeId(exit_node);
            mask.exit_node_id = true;
        }
        if let Some(word) = file.netfilter_mode {
            let mode = match word.as_str() {
                "off" => NetfilterMode::Off,
                "nodivert" => NetfilterMode::NoDivert,
                "on" => NetfilterMode::On,
                _ => {
                    return Err(ConfigError::Value(format!(
                        "NetfilterMode {word:?}: use on, nodivert or off"
                    )));
                }
            };
            prefs.netfilter_mode = mode.number();
            mask.netfilter_mode = true;
        }
        if let Some(auto_update) = file.auto_update {
            prefs.auto_update = auto_update;
            mask.auto_update.apply = true;
            mask.auto_update.check = true;
        }
        Ok(Self { edit, auth_key: file.auth_key, locked: file.locked.unwrap_or(true) })
    }
}

/// JSON from JSON with comments and trailing commas. Line numbers stay what they were.
fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (taken, kept): (usize, &str) = match first {
            '"' => {
                let len = string_len(rest);
                (len, &rest[..len])
            }
            '/' if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), ""),
            '/' if rest.starts_with("/*") => {
                let len = rest[2..].find("*/").map_or(rest.len(), |end| end + 4);
                out.extend(rest[..len].chars().filter(|char| *char == '\n'));
                (len, "")
            }
            ',' if closes_after(&rest[1..]) => (1, ""),
            _ => (first.len_utf8(), &rest[..first.len_utf8()]),
        };
        out.push_str(kept);
        rest = &rest[taken..];
    }
    out
}

/// Length of the string literal that `text` begins with.
fn string_len(text: &str) -> usize {
    let mut escaped = false;
    for (at, char) in text.char_indices().skip(1) {
        match char {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Whether nothing but space and comments stands before a closing bracket.
fn closes_after(mut text: &str) -> bool {
    loop {
        text = text.trim_start();
        if text.starts_with("//") {
            text = &text[text.find('\n').unwrap_or(text.len())..];
        } else if let Some(comment) = text.strip_prefix("/*") {
            text = comment.find("*/").map_or("", |end| &comment[end + 2..]);
        } else {
            return text.starts_with(['}', ']']);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_sets_what_it_names_and_nothing_else() {
        let file = ConfigFile::parse(
            r#"{
                // The whole file is one object.
                "Version": "alpha0", /* the only one */
                "ServerURL": "https://hs.example//x", // not a comment in the string
                "AuthKey": "tskey-auth-secret",
                "Enabled": true,
                "acceptRoutes": true,
                "AdvertiseRoutes": ["10.0.0.0/8",],
                "NetfilterMode": "nodivert",
            }"#,
        )
        .unwrap();
        assert!(file.locked);
        assert_eq!(file.edit.prefs.control_url, "https://hs.example//x");
        assert!(file.edit.mask.control_url && file.edit.mask.want_running && file.edit.mask.route_all);
        assert!(!file.edit.mask.hostname && !file.edit.mask.corp_dns);
        assert_eq!(file.edit.prefs.netfilter_mode, 1);
        assert_eq!(file.edit.prefs.advertise_routes.as_ref().map(Vec::len), Some(1));
        assert_eq!(file.auth_key.as_ref().map(|key| key.expose().as_str()), Some("tskey-auth-secret"));
        assert!(!format!("{file:?}").contains("secret"));
    }

    #[test]
    fn a_tunnel_is_up_unless_the_file_says_otherwise() {
        for (text, up) in [
            (r#"{"Version": "alpha0"}"#, true),
            (r#"{"Version": "alpha0", "Enabled": true}"#, true),
            (r#"{"Version": "alpha0", "Enabled": false}"#, false),
        ] {
            let edit = ConfigFile::parse(text).unwrap().edit;
            assert_eq!((edit.mask.want_running, edit.prefs.want_running), (true, up), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_applied_is_an_error() {
        for (text, word) in [
            ("", "EOF"),
            (r#"{"Version": "beta1"}"#, "alpha0"),
            (r#"{"Version": "alpha0", "Hostnme": "x"}"#, "Hostnme"),
            (r#"{"Version": "alpha0", "NetfilterMode": "maybe"}"#, "NetfilterMode"),
            (r#"{"Version": "alpha0", "Enabled": "yes"}"#, "boolean"),
            (r#"{"Version": "alpha0", "AdvertiseRoutes": ["x"]}"#, "line 1"),
        ] {
            let error = ConfigFile::parse(text).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn settings_without_effect_are_named_so_that_they_are_refused() {
        let file =
            ConfigFile::parse(r#"{"Version": "alpha0", "RunSSHServer": true, "exitNode": "n1"}"#).unwrap();
        let refusal =
            crate::prefs::edit(&crate::prefs::defaults(), &file.edit, &crate::prefs::PrefsContext::BARE);
        assert_eq!(refusal.unwrap_err().0.len(), 2);
    }

    #[test]
    fn comments_leave_strings_and_line_numbers_alone() {
        assert_eq!(without_comments("{\"a\": \"/* // \\\" */\"}"), "{\"a\": \"/* // \\\" */\"}");
        assert_eq!(without_comments("/*\n\n*/ [1, 2 , /* x */ ] // end"), "\n\n [1, 2   ] ");
        for broken in ["/*", "//", "\"", "\"\\", ",", "/"] {
            without_comments(broken);
        }
    }
}
