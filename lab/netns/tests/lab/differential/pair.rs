//! The same command at both daemons, and the comparison.

use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tsrs_lab_netns::{Agent, Host, Process, Tailscaled, agent_binary, tools, wait};

use super::accepted::Part;
use super::report::Report;
use super::shape::{differences, shape};
use crate::SOON;

/// Hosts of the two daemons. The names have one length, so that columns line up, and no other word holds them.
pub(super) const OURS: &str = "luna";
pub(super) const THEIRS: &str = "mars";

const OUR_SOCKET: &str = "/run/tsrs-agent/tailscaled.sock";
const THEIR_SOCKET: &str = "/run/tailscale/tailscaled.sock";

/// Seconds that a command gets, many times what any needs: `timeout` ends one that hangs with code 124.
const LIMIT_SECS: &str = "30";
/// The exit code of a command that did not end in that time.
const HUNG: i32 = 124;

/// How the outputs of the two sides are compared, beside the exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// As text, but for names, addresses and durations.
    Text,
    /// As text, but for names, addresses and all numbers: counters, ports, times.
    Numbers,
    /// Standard output by its shape.
    Shape,
    /// The exit codes alone.
    Code,
}

/// What a command gave.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) code: Option<i32>,
    pub(super) out: String,
    pub(super) err: String,
}

impl Said {
    fn of(mut command: Command, host: &Host) -> Self {
        command.env("TS_RS_EXPERIMENT", "this_is_unstable_software");
        let output = host.output(command).unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// Who runs a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum User {
    Root,
    /// One without rights.
    Nobody,
}

/// One daemon, and how the official client reaches it.
#[derive(Clone, Copy)]
struct Side<'a> {
    host: &'a Host,
    socket: &'static str,
    official: &'a Path,
}

impl Side<'_> {
    fn command(&self, user: User, arguments: &[&str]) -> Command {
        let mut command = self.host.command("timeout");
        command.arg(LIMIT_SECS);
        if user == User::Nobody {
            command.args(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
        }
        command.arg(self.official).arg(format!("--socket={}", self.socket)).args(arguments);
        command
    }

    fn run(&self, user: User, arguments: &[&str]) -> Said {
        Said::of(self.command(user, arguments), self.host)
    }
}

/// Both daemons.
pub(super) struct Pair<'a> {
    pub(super) ours: Agent<'a>,
    pub(super) theirs: Tailscaled<'a>,
    pub(super) report: Report,
    official: PathBuf,
    own: PathBuf,
}

impl<'a> Pair<'a> {
    pub(super) fn new(ours: Agent<'a>, theirs: Tailscaled<'a>) -> Self {
        let (official, own) = (tools::find("tailscale").unwrap(), agent_binary().unwrap());
        Self { ours, theirs, report: Report::new(), official, own }
    }

    fn sides(&self) -> [Side<'_>; 2] {
        let official = &self.official;
        [
            Side { host: self.ours.host(), socket: OUR_SOCKET, official },
            Side { host: self.theirs.host(), socket: THEIR_SOCKET, official },
        ]
    }

    /// The official client on our socket.
    pub(super) fn at_ours(&self, arguments: &[&str]) -> Said {
        self.sides()[0].run(User::Root, arguments)
    }

    /// The official client on tailscaled's socket.
    pub(super) fn at_theirs(&self, arguments: &[&str]) -> Said {
        self.sides()[1].run(User::Root, arguments)
    }

    /// The official client at both, at the same time.
    pub(super) fn both(&self, arguments: &[&str]) -> [Said; 2] {
        self.both_as(User::Root, arguments)
    }

    fn both_as(&self, user: User, arguments: &[&str]) -> [Said; 2] {
        let [ours, theirs] = self.sides();
        std::thread::scope(|scope| {
            let theirs = scope.spawn(move || theirs.run(user, arguments));
            let ours = ours.run(user, arguments);
            [ours, theirs.join().unwrap()]
        })
    }

    /// Runs a command at both with an input that stays open, to the end of its output; what came out, by host.
    pub(super) fn pipe_both(&self, arguments: &[&str], input: &[u8]) -> [(&str, Vec<u8>); 2] {
        self.sides().map(|side| {
            let host = side.host;
            let mut command = side.command(User::Root, arguments);
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            let input = input.to_vec();
            let output = host.space().run(move || -> std::io::Result<Vec<u8>> {
                let mut child = command.spawn()?;
                child.stdin.as_mut().map(|stdin| stdin.write_all(&input)).transpose()?;
                let mut output = Vec::new();
                child.stdout.as_mut().map(|stdout| stdout.read_to_end(&mut output)).transpose()?;
                child.wait()?;
                Ok(output)
            });
            (host.name(), output.unwrap())
        })
    }

    /// Starts a command at both that goes on while others run; it is ready once it has said `ready`.
    pub(super) fn start_both(&self, arguments: &[&str], ready: &str) -> [Process; 2] {
        self.sides().map(|side| {
            let command = side.command(User::Root, arguments);
            let process = side.host.spawn(arguments[0], command).unwrap();
            process.wait_for_log(ready, SOON).unwrap();
            process
        })
    }

    /// Waits for the end of commands that [`Self::start_both`] started, and compares all that they said.
    pub(super) fn compare_ended(&self, command: &str, look: Look, processes: &[Process; 2], prefix: &str) {
        let [ours, theirs] = processes.each_ref().map(|process| {
            let ended = wait::until(&format!("{command} ends"), SOON, || process.exit_status()).unwrap();
            let log = process.log();
            Said {
                code: ended.code(),
                out: log.strip_prefix(prefix).unwrap_or(&log).to_owned(),
                err: String::new(),
            }
        });
        self.judge(command, look, &ours, &self.neutral(&theirs));
    }

    /// Runs a command at both and compares; what it gave at ours.
    pub(super) fn compare(&self, arguments: &[&str], look: Look) -> Said {
        let [ours, theirs] = self.both(arguments);
        self.judge(&arguments.join(" "), look, &ours, &self.neutral(&theirs));
        ours
    }

    /// The same as a user without rights.
    pub(super) fn compare_as_nobody(&self, arguments: &[&str], look: Look) -> Said {
        let [ours, theirs] = self.both_as(User::Nobody, arguments);
        self.judge(&format!("nobody: {}", arguments.join(" ")), look, &ours, &self.neutral(&theirs));
        ours
    }

    /// Our own client.
    pub(super) fn own(&self, arguments: &[&str]) -> Said {
        let mut command = self.ours.host().command("timeout");
        command.arg(LIMIT_SECS).arg(&self.own).args(arguments);
        Said::of(command, self.ours.host())
    }

    /// Runs our own client and the official one, both on our socket, and compares.
    pub(super) fn compare_clients(&self, arguments: &[&str], look: Look) {
        let own = self.own(arguments);
        let official = self.at_ours(arguments);
        self.judge(&format!("tsrs-agent {}", arguments.join(" ")), look, &own, &official);
    }

    fn judge(&self, command: &str, look: Look, ours: &Said, theirs: &Said) {
        if ours.code != theirs.code || ours.code == Some(HUNG) {
            self.report.differ(command, Part::Code, || format!("ours {ours:?}, theirs {theirs:?}"));
        }
        if look == Look::Code {
            return;
        }
        let (ours, theirs) = (neutral_in(ours, look), neutral_in(theirs, look));
        if ours.err != theirs.err {
            self.report.differ(command, Part::Err, || lines_that_differ(&ours.err, &theirs.err));
        }
        match (look, shape(&ours.out), shape(&theirs.out)) {
            (Look::Shape, Ok(ours), Ok(theirs)) => {
                for (path, how) in differences(&ours, &theirs) {
                    self.report.differ(command, Part::Shape(&path), || how);
                }
            }
            _ if ours.out != theirs.out => {
                self.report.differ(command, Part::Out, || lines_that_differ(&ours.out, &theirs.out));
            }
            _ => {}
        }
    }

    /// The same with the names and addresses of the other host, as if it had been said on ours.
    fn neutral(&self, theirs: &Said) -> Said {
        let known = |side: Side<'_>, status: &Value, lan: u8| {
            let mut known = vec![
                side.host.name().to_owned(),
                side.socket.to_owned(),
                format!("203.0.113.1{lan}:"),
                format!("192.168.{lan}."),
            ];
            known.extend(addresses(status).iter().map(ToString::to_string));
            known
        };
        let [our_side, their_side] = self.sides();
        let ours = known(our_side, &self.ours.status().unwrap(), 1);
        let theirs_known = known(their_side, &self.theirs.status().unwrap(), 2);
        let swap = |text: &str| swapped(text, &ours, &theirs_known);
        Said { code: theirs.code, out: swap(&theirs.out), err: swap(&theirs.err) }
    }

    /// A JSON answer of the official client on our socket.
    pub(super) fn our_json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.at_ours(arguments).out).unwrap()
    }

    /// What both print, with the names and addresses of our host.
    pub(super) fn both_neutral(&self, arguments: &[&str]) -> [String; 2] {
        let [ours, theirs] = self.both(arguments);
        [ours.out, self.neutral(&theirs).out]
    }

    /// Compares the prefs of both, member by member.
    pub(super) fn compare_prefs(&self, after: &str) {
        let [ours, theirs] = self.both(&["debug", "prefs"]);
        let read = |said: &Said| serde_json::from_str::<Value>(&said.out).unwrap();
        let (ours, theirs) = (read(&ours), read(&self.neutral(&theirs)));
        for (name, our) in ours.as_object().unwrap() {
            // The login, which is each one's own; its shape is compared elsewhere.
            if name != "Config" && *our != theirs[name] {
                self.report.differ(after, Part::Pref(name), || {
                    format!("{our} where the other has {}", theirs[name])
                });
            }
        }
    }
}

fn neutral_in(said: &Said, look: Look) -> Said {
    let plain = |text: &str| without_numbers(text, look == Look::Numbers);
    match look {
        Look::Text | Look::Numbers => Said { code: said.code, out: plain(&said.out), err: plain(&said.err) },
        // What the client logs about itself has times.
        Look::Shape => Said { err: without_numbers(&said.err, true), ..said.clone() },
        Look::Code => said.clone(),
    }
}

fn lines_that_differ(ours: &str, theirs: &str) -> String {
    let only = |mark: &str, text: &str, other: &str| {
        let lines = text.lines().filter(|line| !other.lines().any(|same| same == *line));
        lines.map(|line| format!("\n    {mark} {line}")).collect::<String>()
    };
    match only("ours  ", ours, theirs) + &only("theirs", theirs, ours) {
        none if none.is_empty() => format!("the order of lines: ours {ours:?}, theirs {theirs:?}"),
        lines => lines,
    }
}

/// The addresses of a node, as its status has them.
pub(super) fn addresses(status: &Value) -> Vec<IpAddr> {
    let list = status["TailscaleIPs"].as_array().into_iter().flatten();
    list.map(|address| address.as_str().unwrap().parse().unwrap()).collect()
}

/// A text in which the words of two lists have changed places.
fn swapped(text: &str, one: &[String], other: &[String]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    'text: while let Some(first) = rest.chars().next() {
        for (from, to) in one.iter().zip(other).chain(other.iter().zip(one)) {
            if let Some(after) = rest.strip_prefix(from.as_str()) {
                out.push_str(to);
                rest = after;
                continue 'text;
            }
        }
        out.push(first);
        rest = &rest[first.len_utf8()..];
    }
    out
}

/// A text in which every duration is the same and, if wanted, every number; columns shrink to one space then.
fn without_numbers(text: &str, all: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut in_word = false;
    while let Some(first) = rest.chars().next() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let after = &rest[digits..];
        let unit = ["ms", "µs", "s"].into_iter().find(|unit| {
            let next = after.strip_prefix(unit).map(|next| next.chars().next());
            next.is_some_and(|next| !next.is_some_and(char::is_alphanumeric))
        });
        match unit {
            Some(unit) if first.is_ascii_digit() && !in_word => {
                out.push_str("TIME");
                rest = &after[unit.len()..];
                continue;
            }
            _ if first.is_ascii_digit() && all => {
                out.push('0');
                rest = &rest[rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())..];
            }
            _ => {
                if !(all && first == ' ' && out.ends_with(' ')) {
                    out.push(first);
                }
                rest = &rest[first.len_utf8()..];
            }
        }
        in_word = first.is_alphanumeric();
    }
    out
}

#[test]
fn texts_are_compared_without_what_must_differ() {
    let said = "pong from luna (100.64.0.2) via 203.0.113.11:41641 in 12ms\n  1.5µs   2s x3s";
    assert_eq!(without_numbers(said, true), "pong from luna (0.0.0.0) via 0.0.0.0:0 in TIME\n TIME TIME x0s");
    assert_eq!(without_numbers("ttl 600 in 0s", false), "ttl 600 in TIME");
    let lists = (["luna".to_owned(), "1.1".to_owned()], ["mars".to_owned(), "2.2".to_owned()]);
    assert_eq!(swapped("luna 1.1 mars 2.2", &lists.0, &lists.1), "mars 2.2 luna 1.1");
}
