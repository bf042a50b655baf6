//! The grammar, and the gate before everything that talks to a daemon.

use clap::CommandFactory;

use super::*;

fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("tsrs-agent").chain(args.iter().copied()))
}

#[test]
fn the_grammar_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn flags_of_the_official_client_are_understood() {
    for args in [
        &[
            "up",
            "--login-server=https://x",
            "--authkey=k",
            "--accept-routes",
            "--accept-dns=false",
            "--hostname",
            "h",
        ][..],
        &["up", "--auth-key", "file:/x", "--reset", "--force-reauth", "--timeout=30s", "--qr", "--json"],
        &["set", "--shields-up=false", "--advertise-routes=", "--operator=me", "--nickname=n"],
        &["status", "--json", "--peers=false", "--self=false", "--active"],
        &["ip", "-4"],
        &["ip", "-1", "peer"],
        &["ping", "--c=1", "--until-direct=false", "--tsmp", "--timeout=2s", "peer"],
        &["--socket=/x", "netcheck", "--format=json-line"],
        &["switch", "--list", "--json"],
        &["switch", "remove", "abcd"],
        &["dns", "query", "name", "AAAA"],
        &["debug", "watch-ipn", "--initial"],
        &["version", "--daemon", "--json"],
        &["down", "--accept-risk=lose-ssh", "--reason=x"],
        &["nc", "peer", "22"],
        &["daemon", "--tun", "x", "--anything"],
    ] {
        assert!(parse(args).is_ok(), "{args:?}: {}", parse(args).unwrap_err());
    }
}

#[test]
fn bad_flags_have_exit_code_two_and_bad_arguments_one() {
    for (args, code) in [
        (&["up", "--no-such-flag"][..], 2),
        (&["up", "--hostname=a", "--hostname=b"], 2),
        (&["up", "--hostname"], 2),
        (&["wait", "--timeout=x"], 2),
        (&["set", "--accept-routes=maybe"], 2),
        (&["up", "extra"], 1),
        (&["ip", "-4", "-6"], 1),
        (&["nonsense"], 1),
        (&["dns", "nonsense"], 1),
        (&["dns"], 1),
        (&["ping"], 1),
        (&["nc", "peer", "no-port"], 1),
        (&["--help"], 0),
        (&["--version"], 0),
    ] {
        assert_eq!(usage_code(&parse(args).unwrap_err()), code, "{args:?}");
    }
}

#[test]
fn the_gate_stands_before_every_command_that_talks_to_a_daemon() {
    for (args, gated) in [
        (&["up"][..], true),
        (&["status"], true),
        (&["version", "--daemon"], true),
        (&["lock"], true),
        (&["version"], false),
        (&["completion", "bash"], false),
        (&["cleanup"], false),
    ] {
        assert_eq!(parse(args).unwrap().command.talks_to_daemon(), gated, "{args:?}");
    }
}

#[test]
fn arguments_are_quoted_for_a_shell() {
    assert_eq!(quoted("--a=b"), "--a=b");
    assert_eq!(quoted("it's"), r"'it'\''s'");
    assert_eq!(quoted(""), "''");
}
