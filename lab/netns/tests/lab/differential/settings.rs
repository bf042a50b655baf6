//! `set` with every setting, and `up` with some.

use tsrs_lab_control::LabControl;

use super::accepted::REFUSED;
use super::kernel;
use super::pair::{Look, OURS, Pair, THEIRS};
use crate::SOON;

/// What both take or both refuse.
pub(super) const ALIKE: &[&[&str]] = &[
    &["--accept-routes"],
    &["--accept-routes=false"],
    &["--accept-dns=false"],
    &["--accept-dns"],
    &["--shields-up"],
    &["--shields-up=false"],
    &["--hostname=other"],
    &["--hostname="],
    &["--nickname=nick"],
    &["--nickname="],
    &["--operator=nobody"],
    &["--operator="],
    &["--netfilter-mode=off"],
    &["--netfilter-mode=nodivert"],
    &["--netfilter-mode=on"],
    &["--netfilter-mode=bad"],
    &["--advertise-routes=10.1.0.0/24"],
    &["--snat-subnet-routes=false"],
    &["--snat-subnet-routes"],
    &["--advertise-routes="],
    &["--advertise-routes=10.1.0.1/24"],
    &["--advertise-routes=bad"],
    &["--advertise-routes=0.0.0.0/0"],
    &["--advertise-tags=tag:x"],
    &["--stateful-filtering"],
    &["--stateful-filtering=false"],
    &["--ssh=false"],
    &["--exit-node=100.99.99.99"],
    &["--exit-node=nobody"],
    &["--exit-node="],
    &["--exit-node-allow-lan-access=false"],
    &["--advertise-exit-node=false"],
    &["--advertise-connector=false"],
    &["--auto-update=false"],
    &["--webclient=false"],
    &["--report-posture=false"],
    &["--relay-server-port="],
    &["--accept-routes=maybe"],
    &["--accept-routes", "--accept-routes"],
    &["--no-such-setting"],
    &[],
    &["--accept-routes", "--shields-up", "--hostname=many"],
    &["--accept-routes=false", "--shields-up=false", "--hostname="],
];

pub(super) fn set(pair: &Pair<'_>) {
    pair.compare_prefs("nothing");
    for flags in ALIKE {
        let arguments = [&["set"], *flags].concat();
        let command = arguments.join(" ");
        let said = pair.compare(&arguments, Look::Text);
        pair.compare_prefs(&command);
        if said.code == Some(0) {
            kernel::agrees(pair, &command);
        }
    }
    for (flag, reason) in REFUSED {
        let before = pair.our_json(&["debug", "prefs"]);
        let [ours, theirs] = pair.both(&["set", flag]);
        if ours.code != Some(1) || !ours.err.contains(reason) || theirs.code != Some(0) {
            pair.report.fail(format!("set {flag}: ours {ours:?}, theirs {theirs:?}"));
        }
        if pair.our_json(&["debug", "prefs"]) != before {
            pair.report.fail(format!("set {flag} was refused and changed the prefs"));
        }
        let (name, _) = flag.split_once('=').unwrap_or((flag, ""));
        let undo = if flag.contains('=') { format!("{name}=") } else { format!("{name}=false") };
        let undone = pair.at_theirs(&["set", &undo]);
        assert_eq!(undone.code, Some(0), "{undone:?}");
    }
}

/// `up` while it runs: settings by all flags at once.
pub(super) fn up(pair: &Pair<'_>, server: &str) {
    let login_server = format!("--login-server={server}");
    for (arguments, look) in [
        (&["set", "--shields-up", "--hostname=other", "--accept-dns=false"][..], Look::Text),
        // The errors name the flags that are missing.
        (&["up"], Look::Text),
        (&["up", &login_server], Look::Text),
        (&["up", &login_server, "--accept-routes"], Look::Text),
        (&["up", &login_server, "--shields-up", "--hostname=other", "--accept-dns=false"], Look::Text),
        (
            &[
                "up",
                &login_server,
                "--shields-up",
                "--hostname=other",
                "--accept-dns=false",
                "--accept-routes",
            ],
            Look::Text,
        ),
        (&["up", &login_server, "--json", "--reset"], Look::Shape),
        (&["up", "--login-server=nonsense", "--reset"], Look::Text),
        (&["up", &login_server, "--advertise-routes=10.1.0.1/24"], Look::Text),
        (&["up", &login_server, "--advertise-tags=bad"], Look::Text),
        (&["up", &login_server, "--no-such-flag"], Look::Text),
        (&["up", &login_server, "extra"], Look::Text),
        (&["up", &login_server, "--timeout=x"], Look::Text),
    ] {
        let command = arguments.join(" ");
        pair.compare(arguments, look);
        pair.compare_prefs(&command);
        kernel::agrees(pair, &command);
    }
}

/// Both go by the names of their hosts again: tailscaled tells control the last name that was set until it starts anew.
pub(super) fn take_names_back(pair: &Pair<'_>, control: &LabControl) {
    let name = |host: &str| format!("--hostname={host}");
    pair.at_ours(&["set", &name(OURS)]);
    pair.at_theirs(&["set", &name(THEIRS)]);
    for node in [OURS, THEIRS] {
        control.wait_online(node, SOON).unwrap();
    }
    pair.compare(&["set", "--hostname="], Look::Text);
}
