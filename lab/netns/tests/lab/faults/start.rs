//! Starts on a host where something is missing or taken.

use std::net::UdpSocket;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::sys::signal::Signal;
use tsrs_lab_control::{KeySpec, LabConfig, LabControl};
use tsrs_lab_netns::{Host, Nat, Net, Topology};

use super::{
    GATE, STATE_DIR, STATE_FILE, agent_command, assert_names, at_once, daemon, daemon_arguments,
    daemon_refusal, ended, failure, health, joined, refused, wait_health, wait_state,
};
use crate::turn_with_agent;

/// A user without rights.
const NOBODY: u32 = 65534;

#[test]
fn a_daemon_that_cannot_start_says_what_to_do_and_a_damaged_state_is_kept() {
    let Some(_turn) = turn_with_agent("a_daemon_that_cannot_start") else { return };
    let net = Topology::empty("start").behind("ra", Nat::Easy, &["a", "b", "c", "d"]).build().unwrap();
    let control = net.lab_control(LabConfig::default()).unwrap();
    at_once(&[
        &|| {
            gate(net.host("a"));
            no_tun_device(net.host("a"));
            a_second_daemon(&net);
        },
        &|| no_privilege(&net),
        &|| {
            damaged_state(&net, &control);
            taken_port(&net);
        },
        &|| {
            unwritable_state(net.host("d"));
            full_disk(&net, &control);
        },
    ]);
}

/// Without the gate nothing starts, and nothing is made.
fn gate(host: &Host) {
    for arguments in [&["daemon"][..], &["up"], &["status"], &["down"]] {
        for value in [None, Some("1")] {
            let mut command = agent_command(host, arguments);
            command.env_remove(GATE.0);
            if let Some(value) = value {
                command.env(GATE.0, value);
            }
            let (code, said) = failure(&host.output(command).unwrap());
            assert_eq!(code, 1, "{said}");
            assert_names(&said, &["unstable", "TS_RS_EXPERIMENT=this_is_unstable_software"]);
        }
    }
    assert!(!host.outside(STATE_DIR).exists() && !host.outside("/run/tsrs-agent").exists());
    for free in ["--version", "--help", "cleanup"] {
        let mut command = agent_command(host, &[free]);
        command.env_remove(GATE.0);
        let output = host.output(command).unwrap();
        // There is nothing to clean up, which has its own text.
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() || said.contains("--statedir"), "{free}: {said}");
    }
}

fn no_tun_device(host: &Host) {
    host.run("mount", &["-t", "tmpfs", "none", "/dev/net"]).unwrap();
    assert_names(&daemon_refusal(host, "no-tun", &[]), &["/dev/net/tun", "modprobe tun"]);
    host.run("umount", &["/dev/net"]).unwrap();
    // An interface of that name belongs to somebody else.
    host.run("ip", &["link", "add", "tailscale0", "type", "veth", "peer", "name", "other0"]).unwrap();
    assert_names(&daemon_refusal(host, "tun-taken", &[]), &["tailscale0", "--tun"]);
    host.run("ip", &["link", "del", "tailscale0"]).unwrap();
}

fn a_second_daemon(net: &Net) {
    let first = daemon(net, "a", &[]);
    let a = net.host("a");
    assert_names(
        &daemon_refusal(a, "second", &[]),
        &["another daemon", STATE_DIR, "--statedir", "--instance"],
    );
    let other_state = "--statedir=/var/lib/other";
    assert_names(
        &daemon_refusal(a, "second-instance", &[other_state]),
        &["another daemon of instance 0", "--instance"],
    );
    let same_socket = "--socket=/run/tsrs-agent/tailscaled.sock";
    assert_names(
        &daemon_refusal(a, "second-socket", &["--instance=1", other_state, same_socket]),
        &["/run/tsrs-agent/tailscaled.sock", "already in use", "--socket"],
    );
    // The first one has noticed nothing, and an instance of its own runs beside it.
    wait_state(&first, "NeedsLogin");
    let socket = a.outside("/run/tsrs-agent-1/tailscaled.sock");
    let second = a.spawn("instance-1", agent_command(a, &["daemon", "--instance=1"])).unwrap();
    tsrs_lab_netns::wait::until("the second instance", crate::SOON, || {
        std::os::unix::net::UnixStream::connect(&socket).is_ok().then_some(())
    })
    .unwrap();
    assert!(second.stop().unwrap().success(), "{}", second.log());
    // Cleaning up under a running daemon would take its routes away.
    let (code, said) = failure(&a.output(agent_command(a, &["cleanup"])).unwrap());
    assert_eq!(code, 1);
    assert_names(&said, &["another daemon", "stop it"]);
    wait_state(&first, "NeedsLogin");
}

/// Turns a command into one of a user without rights.
fn as_nobody(mut command: Command) -> Command {
    command.uid(NOBODY).gid(NOBODY);
    command
}

fn no_privilege(net: &Net) {
    let b = net.host("b");
    let start = |log: &str, flags: &[&str]| {
        let mut arguments = vec!["daemon"];
        arguments.extend(flags);
        ended(&b.spawn(log, as_nobody(agent_command(b, &arguments))).unwrap())
    };
    assert_names(&start("nobody", &[]), &["CAP_NET_ADMIN", "root"]);
    b.run("sh", &["-c", "mkdir -p /var/lib/own && chown 65534 /var/lib/own"]).unwrap();
    let own = ["--statedir=/var/lib/own", "--socket=/var/lib/own/sock"];
    assert_names(&start("nobody-own", &own), &["CAP_NET_ADMIN", "root"]);
    // A client without rights: reads, but changes nothing.
    let agent = daemon(net, "b", &[]);
    let run = |arguments: &[&str]| b.output(as_nobody(agent_command(b, arguments))).unwrap();
    assert!(run(&["status", "--json"]).status.success());
    for arguments in [&["up", "--login-server=https://x.test"][..], &["set", "--hostname=x"], &["logout"]] {
        let (code, said) = failure(&run(arguments));
        assert_eq!(code, 1);
        assert_names(&said, &["denied", "sudo tsrs-agent"]);
    }
    drop(agent);
    let (_, said) = failure(&run(&["up"]));
    assert_names(&said, &["no daemon runs", "root"]);
    let (_, said) = failure(&run(&["status"]));
    assert_names(&said, &["no daemon answers", "sudo tsrs-agent up"]);
}

fn damaged_state(net: &Net, control: &LabControl) {
    let c = net.host("c");
    let key = control.create_key(KeySpec::reusable());
    let agent = joined(net, "c", &control.url(), &key);
    assert!(agent.process().stop().unwrap().success());
    let whole = c.read(STATE_FILE).unwrap();
    let cut = &whole[..whole.len() / 2];
    c.write(STATE_FILE, cut).unwrap();
    drop(agent);

    let agent = daemon(net, "c", &[]);
    let kept = format!("{STATE_FILE}.damaged-0");
    wait_state(&agent, "NeedsLogin");
    assert_names(&health(&agent), &[STATE_FILE, &kept, "login is needed"]);
    assert_eq!(c.read(&kept).unwrap(), cut);
    // The key of the machine is new, and so the node is.
    let login_server = format!("--login-server={}", control.url());
    agent.cli(&["up", "--timeout=20s", &login_server, &format!("--auth-key={key}")]).unwrap();
    wait_state(&agent, "Running");
    assert!(agent.process().stop().unwrap().success());
    drop(agent);

    // A state of a later version is nobody's to change; nor is a directory in its place.
    let later =
        whole.replacen("\"Version\":1", "\"Version\":99", 1).replacen("\"Version\": 1", "\"Version\": 99", 1);
    assert_ne!(later, whole);
    c.write(STATE_FILE, &later).unwrap();
    assert_names(&daemon_refusal(c, "later", &[]), &[STATE_FILE, "99"]);
    assert_eq!(c.read(STATE_FILE).unwrap(), later);
    c.run("sh", &["-c", &format!("rm {STATE_FILE} && mkdir {STATE_FILE}")]).unwrap();
    assert_names(&daemon_refusal(c, "directory", &[]), &[STATE_FILE, "directory"]);
    c.run("rmdir", &[STATE_FILE]).unwrap();

    // A damaged cache costs only the cache.
    c.write(STATE_FILE, &whole).unwrap();
    c.run("sh", &["-c", &format!("for file in {STATE_DIR}/netmap-*; do echo '{{' > $file; done")]).unwrap();
    let agent = daemon(net, "c", &[]);
    wait_state(&agent, "Running");
    assert_names(&agent.process().log(), &["cached netmap is not used"]);
}

fn taken_port(net: &Net) {
    let c = net.host("c");
    let taken = c.space().run(|| UdpSocket::bind("0.0.0.0:41641")).unwrap();
    for flags in [&[][..], &["--port=41641"]] {
        let agent = daemon(net, "c", flags);
        wait_health(&agent, "41641", true);
        assert_names(&health(&agent), &["--port"]);
        wait_state(&agent, "Running");
    }
    drop(taken);
    let agent = daemon(net, "c", &[]);
    wait_state(&agent, "Running");
    assert!(!health(&agent).contains("41641"));
}

fn unwritable_state(host: &Host) {
    let mount = ["-t", "tmpfs", "-o", "ro", "none", STATE_DIR];
    host.run("mkdir", &[STATE_DIR]).unwrap();
    host.run("mount", &mount).unwrap();
    assert_names(&daemon_refusal(host, "read-only", &[]), &[STATE_DIR, "ead-only", "writable"]);
    host.run("umount", &[STATE_DIR]).unwrap();
    host.write("/var/lib/file", "").unwrap();
    assert_names(&daemon_refusal(host, "file", &["--statedir=/var/lib/file"]), &["/var/lib/file"]);
}

/// A disk that fills up while the agent runs, is noticed, and gets room again.
fn full_disk(net: &Net, control: &LabControl) {
    let d = net.host("d");
    d.run("mount", &["-t", "tmpfs", "-o", "size=256k", "none", STATE_DIR]).unwrap();
    let key = control.create_key(KeySpec::reusable());
    let agent = joined(net, "d", &control.url(), &key);
    let fill = format!("cat /dev/zero > {STATE_DIR}/filler 2>/dev/null; true");
    d.run("sh", &["-c", &fill]).unwrap();
    let before = d.read(STATE_FILE).unwrap();
    let said = refused(&agent, &["set", "--shields-up"]);
    assert_names(&said, &[STATE_FILE, "No space left"]);
    wait_health(&agent, "No space left", true);
    assert_eq!(d.read(STATE_FILE).unwrap(), before);
    wait_state(&agent, "Running");
    // A report cannot be written either, and says so.
    assert_names(&refused(&agent, &["bugreport"]), &["No space left"]);

    // Killed and started on the full disk: it answers, says what is wrong, and runs as soon as there is room.
    let address = agent.ipv4().unwrap();
    agent.process().signal(Signal::SIGKILL).unwrap();
    drop(agent);
    let agent = d.agent(daemon_arguments(net, &[])).unwrap();
    wait_health(&agent, "make room", true);
    d.run("rm", &[&format!("{STATE_DIR}/filler")]).unwrap();
    wait_state(&agent, "Running");
    assert_eq!(agent.ipv4().unwrap(), address);
    let on_tun = || {
        d.run("ip", &["-4", "addr", "show", "dev", "tailscale0"]).ok().filter(|said| said.contains("100.64."))
    };
    tsrs_lab_netns::wait::until("the address", crate::SOON, on_tun).unwrap();
    agent.cli(&["set", "--shields-up"]).unwrap();
    wait_health(&agent, "No space left", false);
    assert_ne!(d.read(STATE_FILE).unwrap(), before);
    assert!(agent.process().stop().unwrap().success());
    drop(agent);
    d.run("umount", &[STATE_DIR]).unwrap();
}
