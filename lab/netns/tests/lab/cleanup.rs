//! Nothing stays behind: not after a panic, not after Ctrl-C, and not for long after a kill.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tsrs_lab_netns::{Topology, sweep, wait};

use crate::{SOON, Turn};

/// A process of its own that builds a net, starts a process in it and waits.
struct Holder {
    child: Child,
    namespace: String,
    inner: String,
}

impl Holder {
    fn start() -> Self {
        let mut child =
            Command::new(env!("CARGO_BIN_EXE_lab-tool")).arg("hold").stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let mut words = line.split_whitespace().map(str::to_owned);
        let holder = Self { child, namespace: words.next().unwrap(), inner: words.next().unwrap() };
        assert!(namespaces().contains(&holder.namespace), "{line}");
        holder
    }

    fn signal(&mut self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
        self.child.wait().unwrap();
    }

    fn assert_gone(&self) {
        assert!(!namespaces().contains(&self.namespace));
        let process = format!("/proc/{}", self.inner);
        wait::until("the inner process ends", SOON, || {
            (!std::path::Path::new(&process).exists()).then_some(())
        })
        .unwrap();
    }
}

fn namespaces() -> String {
    String::from_utf8(Command::new("ip").args(["netns", "list"]).output().unwrap().stdout).unwrap()
}

#[test]
fn ctrl_c_removes_everything() {
    let _turn = Turn::take();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut holder = Holder::start();
        holder.signal(signal);
        holder.assert_gone();
    }
}

#[test]
fn a_killed_lab_is_swept_by_the_next() {
    let _turn = Turn::take();
    let mut holder = Holder::start();
    holder.signal(Signal::SIGKILL);
    assert!(namespaces().contains(&holder.namespace));
    sweep().unwrap();
    holder.assert_gone();
}

#[test]
fn a_panic_removes_everything() {
    let _turn = Turn::take();
    let (tell, told) = std::sync::mpsc::channel();
    let panicked = std::thread::spawn(move || {
        let net = Topology::one_lan().build().unwrap();
        tell.send((net.servers().space().namespace().to_owned(), net.folder().to_owned())).unwrap();
        panic!("on purpose");
    })
    .join();
    assert!(panicked.is_err());
    let (namespace, folder) = told.recv().unwrap();
    assert!(!namespaces().contains(&namespace));
    assert!(!folder.exists());
}
