//! Namespaces for tests of the real thing.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::panic::resume_unwind;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::netlink::Socket;
use crate::rtnl::{self, LinkChange};

/// Runs `test` on a thread with its own network and mount namespace: only a loopback that is up, an empty `/run`.
///
/// Nothing that the test does to links, routes, firewall or mounts reaches the machine. Without root, or without the
/// programs for set-up and read-back, the test is skipped with a printed reason; on CI that is a failure.
pub(crate) fn isolated(test: impl FnOnce() + Send + 'static) {
    isolated_with(&[], test);
}

/// The same for a test that needs more programs than `ip` and `nft`.
pub(crate) fn isolated_with(programs: &[&str], test: impl FnOnce() + Send + 'static) {
    let missing = ["ip", "nft"].iter().chain(programs).find(|program| !is_installed(program));
    let lacks = match missing {
        _ if !nix::unistd::geteuid().is_root() => Some("root, for namespaces of its own".to_owned()),
        Some(program) => Some(format!("the program {program}")),
        None => None,
    };
    if let Some(lacks) = lacks {
        assert!(std::env::var_os("CI").is_none(), "this test needs {lacks}, and CI has to have it");
        skip(&format!("needs {lacks}"));
        return;
    }
    let thread = std::thread::Builder::new().name("isolated".into()).spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        private_mounts();
        let mut socket = Socket::route().unwrap();
        let up = LinkChange { up: Some(true), ..LinkChange::default() };
        rtnl::set_link(&mut socket, 1, up).unwrap();
        test();
    });
    if let Err(panic) = thread.unwrap().join() {
        resume_unwind(panic);
    }
}

/// Says that the test of this thread is skipped, and writes it to the file that counts such tests.
pub(crate) fn skip(reason: &str) {
    let thread = std::thread::current();
    let line = format!("{}: {reason}\n", thread.name().unwrap_or("a test"));
    if let Some(path) = std::env::var_os("TSRS_SKIP_LOG")
        && let Ok(mut log) = File::options().create(true).append(true).open(path)
    {
        // The line below is said in any case.
        let _ = log.write_all(line.as_bytes());
    }
    // Written to the descriptor itself: the test runner captures what goes through the print macros.
    let _ = std::io::stderr().write_all(format!("SKIPPED: {line}").as_bytes());
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).exists())
}

fn private_mounts() {
    let none = None::<&Path>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).unwrap();
}

/// Runs a program for set-up or read-back in the namespaces of this thread and gives its output.
pub(crate) fn run<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> String {
    let output =
        Command::new(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Waits for a condition that another program brings about.
pub(crate) fn wait_until(mut is_true: impl FnMut() -> bool) {
    let limit = Instant::now() + WAIT_LIMIT;
    while !is_true() {
        assert!(Instant::now() < limit, "waited too long");
        std::thread::yield_now();
    }
}

/// How long another program may take.
pub(crate) const WAIT_LIMIT: Duration = Duration::from_secs(20);

/// Runs a program with its arguments in one text.
pub(crate) fn sh(line: &str) -> String {
    let mut words = line.split_whitespace();
    let program = words.next().unwrap();
    run(program, words)
}

/// A veth pair `name`/`name`p, up, with this address on the first end and no IPv6. Both stay in this namespace.
pub(crate) fn veth(name: &str, address: &str) {
    sh(&format!("ip link add {name} type veth peer name {name}p"));
    for end in [name.to_owned(), format!("{name}p")] {
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{end}/disable_ipv6"), "1").unwrap();
    }
    sh(&format!("ip addr add {address} dev {name}"));
    sh(&format!("ip link set {name} up"));
    sh(&format!("ip link set {name}p up"));
    // The kernel tells of the carrier a little later.
    wait_until(|| sh(&format!("ip -o link show {name}")).contains("state UP"));
    wait_until(|| sh(&format!("ip -o link show {name}p")).contains("state UP"));
}
