//! The one owner of preferences: defaults, edits, and what is refused with which reason.
//!
//! A preference whose effect is not built is refused, never stored as if it worked (client sheet §2.3). [`check`] is
//! the single gate: edits, `start`, configuration files and stored profiles all pass it.

mod unsupported;

use std::fmt;

use ipnet::{IpNet, Ipv4Net};
use tsrs_agent_localapi::prefs::{AutoUpdatePrefs, NetfilterMode};
use tsrs_agent_localapi::{MaskedPrefs, Prefs};
use tsrs_control_tka::ExpectedAuthority;
use tsrs_platform_api::Refusal;

pub use unsupported::{Removed, remove_unsupported};

/// What the checks need to know about the host and the other profiles.
pub struct PrefsContext<'a> {
    /// Prefixes that are on-link on the host's interfaces, the tunnel's left out.
    pub on_link: &'a [Ipv4Net],
    /// Whether the host has a user with this name.
    pub user_exists: &'a dyn Fn(&str) -> bool,
    /// Names of the other profiles.
    pub other_profile_names: &'a [String],
    /// Whether a configuration file has locked the prefs.
    pub locked: bool,
}

impl PrefsContext<'_> {
    /// A host without interfaces or users, for callers that check nothing of that kind.
    pub const BARE: PrefsContext<'static> =
        PrefsContext { on_link: &[], user_exists: &|_| false, other_profile_names: &[], locked: false };
}

impl fmt::Debug for PrefsContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrefsContext").field("on_link", &self.on_link).finish_non_exhaustive()
    }
}

/// Why prefs were refused; the text is the whole answer to the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct PrefsRefusal(pub Vec<String>);

impl PrefsRefusal {
    fn one(reason: impl Into<String>) -> Self {
        Self(vec![reason.into()])
    }
}

/// Longest host name, nickname or user name that is stored: the limit of a DNS name (RFC 1035 §2.3.4).
const MAX_NAME_LEN: usize = 253;
/// Longest control server URL that is stored.
const MAX_URL_LEN: usize = 2048;
/// Most routes, tags and the like in one list: far beyond use, and small against the 64 KiB of a request body.
const MAX_LIST_LEN: usize = 1024;

/// Prefs of a new profile (client sheet §1.5), but without looking for updates, which we do not do.
pub fn defaults() -> Prefs {
    Prefs {
        corp_dns: true,
        logged_out: true,
        no_stateful_filtering: Some(true),
        netfilter_mode: NetfilterMode::On.number(),
        ..Prefs::zero()
    }
}

/// The prefs after an edit.
///
/// # Errors
/// The edit touches what clients may not write, or the result does not pass [`check`].
pub fn edit(current: &Prefs, edit: &MaskedPrefs, context: &PrefsContext<'_>) -> Result<Prefs, PrefsRefusal> {
    if edit.mask.internal_exit_node_prior {
        return Err(PrefsRefusal::one("can't set Internal fields"));
    }
    let mut next = current.clone();
    edit.apply_to(&mut next);
    if context.locked && next != *current {
        return Err(PrefsRefusal::one(
            "can't reconfigure: the settings are locked by the configuration file",
        ));
    }
    if edit.mask.auto_update.check && edit.prefs.auto_update.check {
        return Err(PrefsRefusal::one(unsupported::UPDATE_CHECK));
    }
    if edit.mask.logged_out && edit.prefs.logged_out && !current.logged_out {
        return Err(PrefsRefusal::one("LoggedOut cannot be set: log out instead"));
    }
    // Bringing the tunnel up is the end of being logged out.
    if next.want_running && edit.mask.want_running {
        next.logged_out = false;
    }
    check(&next, context)?;
    Ok(next)
}

/// The prefs after a client gave all of them, as `start` does.
///
/// # Errors
/// They do not pass [`check`].
pub fn replace(current: &Prefs, given: &Prefs, context: &PrefsContext<'_>) -> Result<Prefs, PrefsRefusal> {
    let next = Prefs {
        config: current.config.clone(),
        internal_exit_node_prior: current.internal_exit_node_prior.clone(),
        // Every official client sends its default here, which asks for something that we do not do. It is not taken
        // over, so that nobody reads it back as if it worked.
        auto_update: AutoUpdatePrefs { check: false, ..given.auto_update },
        // Official clients do not know these and would switch them off with everything that they send.
        lock_required: current.lock_required || given.lock_required,
        lock_pin: if given.lock_pin.is_empty() { current.lock_pin.clone() } else { given.lock_pin.clone() },
        ..given.clone()
    };
    if context.locked && next != *current {
        return Err(PrefsRefusal::one(
            "can't reconfigure: the settings are locked by the configuration file",
        ));
    }
    check(&next, context)?;
    Ok(next)
}

/// Whether prefs can be had: every reason against them at once, so that a user need not try one by one.
///
/// # Errors
/// Something is wrong or has no effect here.
pub fn check(prefs: &Prefs, context: &PrefsContext<'_>) -> Result<(), PrefsRefusal> {
    let uses_exit = unsupported::uses_exit_node(prefs);
    if uses_exit && unsupported::offers_exit_node(prefs) {
        return Err(PrefsRefusal::one(
            "Cannot advertise an exit node and use an exit node at the same time.",
        ));
    }
    let mut reasons = unsupported::reasons(prefs);
    reasons.extend(routes(prefs, context.on_link));
    reasons.extend(names(prefs, context));
    if reasons.is_empty() { Ok(()) } else { Err(PrefsRefusal(reasons)) }
}

fn routes(prefs: &Prefs, on_link: &[Ipv4Net]) -> Vec<String> {
    let routes = prefs.advertise_routes.as_deref().unwrap_or_default();
    if routes.len() > MAX_LIST_LEN {
        return vec![format!("more than {MAX_LIST_LEN} routes")];
    }
    let mut reasons: Vec<String> = routes
        .iter()
        // The default routes are the exit node offer, which has its own reason.
        .filter(|route| route.prefix_len() != 0)
        .filter_map(|route| tsrs_platform_api::advertisable(*route, on_link).err())
        .map(|refusal| refusal.to_string())
        .collect();
    if NetfilterMode::from_number(prefs.netfilter_mode) == Some(NetfilterMode::Off) && !routes.is_empty() {
        reasons.push(
            "routes cannot be advertised with --netfilter-mode=off: nothing would keep other packets from being \
             forwarded"
                .to_owned(),
        );
    }
    reasons
}

fn names(prefs: &Prefs, context: &PrefsContext<'_>) -> Vec<String> {
    let mut reasons = Vec::new();
    if NetfilterMode::from_number(prefs.netfilter_mode).is_none() {
        reasons.push(format!("NetfilterMode {} does not exist: use 0, 1 or 2", prefs.netfilter_mode));
    }
    if !prefs.control_url.is_empty() && !is_server_url(&prefs.control_url) {
        reasons.push("the login server must be a URL that begins with https:// or http://".to_owned());
    }
    if !is_plain_name(&prefs.hostname) {
        reasons.push("the host name is too long or holds control characters".to_owned());
    }
    if !is_plain_name(&prefs.profile_name) {
        reasons.push("the nickname is too long or holds control characters".to_owned());
    }
    if !prefs.profile_name.is_empty() && context.other_profile_names.contains(&prefs.profile_name) {
        reasons.push(format!("profile name {:?} already in use", prefs.profile_name));
    }
    if !prefs.operator_user.is_empty() && !(context.user_exists)(&prefs.operator_user) {
        reasons.push(format!("operator {:?} is no user of this host", prefs.operator_user));
    }
    if !prefs.lock_pin.is_empty() && ExpectedAuthority::parse(&prefs.lock_pin).is_none() {
        reasons.push(
            "lock-pin: neither the hash of a first update nor a key of Tailnet Lock (tlpub:…)".to_owned(),
        );
    }
    let tags = prefs.advertise_tags.as_deref().unwrap_or_default();
    if tags.len() > MAX_LIST_LEN {
        reasons.push(format!("more than {MAX_LIST_LEN} tags"));
    }
    reasons.extend(tags.iter().filter_map(|tag| check_tag(tag)));
    reasons
}

/// Why a tag cannot be one: `tag:`, a letter, then letters, digits and dashes.
fn check_tag(tag: &str) -> Option<String> {
    let Some(name) = tag.strip_prefix("tag:") else {
        return Some(format!("tag: {tag:?}: tags must start with 'tag:'"));
    };
    if !name.starts_with(|first: char| first.is_ascii_alphabetic()) {
        return Some(format!("tag: {tag:?}: tag names must start with a letter, after 'tag:'"));
    }
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (!plain || name.len() > MAX_NAME_LEN)
        .then(|| format!("tag: {tag:?}: tag names can only contain numbers, letters, or dashes"))
}

fn is_plain_name(name: &str) -> bool {
    name.len() <= MAX_NAME_LEN && !name.chars().any(char::is_control)
}

/// Whether it could be the URL of a control server: scheme, then a host, and nothing that would break a header.
pub fn is_server_url(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")) else {
        return false;
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    url.len() <= MAX_URL_LEN
        && !host.is_empty()
        && !host.contains('@')
        && url.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Routes among `AdvertiseRoutes` that are in effect now: an on-link prefix counts while it is on-link.
pub fn effective_routes(prefs: &Prefs, on_link: &[Ipv4Net]) -> Vec<Ipv4Net> {
    prefs
        .advertise_routes
        .iter()
        .flatten()
        .filter_map(|route: &IpNet| tsrs_platform_api::advertisable(*route, on_link).ok())
        .collect()
}

/// Why the rest of them is not in effect: a subnet that was on a link when it was set may have gone.
pub fn routes_without_effect(prefs: &Prefs, on_link: &[Ipv4Net]) -> Vec<Refusal> {
    let refused = |route: &IpNet| tsrs_platform_api::advertisable(*route, on_link).err();
    prefs.advertise_routes.iter().flatten().filter_map(refused).collect()
}

#[cfg(test)]
mod tests;
