//! Names: the service address over UDP and TCP, split routes, search domains, and the two owners of name resolution.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use tsrs_lab_control::{DnsSettings, KeySpec, LabConfig};
use tsrs_lab_netns::traffic::DnsServer;
use tsrs_lab_netns::{Host, Nat, Net, Process, Topology, tools, wait};

use super::{MAGIC_DNS, assert_names, joined, shell, wait_shell};
use crate::{SOON, turn_with_agent};

/// What a network manager would have written.
const OWN: &str = "# made by hand\nsearch home.test\nnameserver 203.0.113.1\noptions timeout:2\n";

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The host's own server and one for a domain of the tailnet.
fn servers(net: &Net) -> (DnsServer, DnsServer) {
    let space = net.servers().space();
    let own = [("www.example.test", address("198.51.100.7")), ("nas.home.test", address("198.51.100.8"))];
    let split = [("wiki.corp.test", address("198.51.100.9"))];
    (
        DnsServer::start(space, "203.0.113.1:53".parse().unwrap(), &own).unwrap(),
        DnsServer::start(space, "203.0.113.2:53".parse().unwrap(), &split).unwrap(),
    )
}

fn settings() -> DnsSettings {
    DnsSettings {
        split: [("corp.test".to_owned(), vec!["203.0.113.2".to_owned()])].into(),
        search_domains: vec!["corp.test".to_owned()],
        ..DnsSettings::default()
    }
}

fn resolves(host: &Host, name: &str, to: IpAddr) {
    let mut last = None;
    let found = wait::until(&format!("{name} resolves"), SOON, || {
        last = Some(host.resolve(name));
        last.as_ref()?.as_ref().ok()?.contains(&to).then_some(())
    });
    assert!(found.is_ok(), "{name}: {last:?}; {}", host.resolv_conf().unwrap());
}

#[test]
fn a_plain_resolv_conf_gets_all_names_and_is_given_back() {
    let Some(_turn) = turn_with_agent("a_plain_resolv_conf_gets_all_names") else { return };
    let net = Topology::pair(Nat::Easy, Nat::Easy).build().unwrap();
    let (own, split) = servers(&net);
    let control = net.lab_control(LabConfig { dns: settings(), ..LabConfig::default() }).unwrap();
    let key = control.create_key(KeySpec::reusable());
    let host = net.host("a");
    host.write("/etc/resolv.conf", OWN).unwrap();
    shell(host, "chmod 640 /etc/resolv.conf");
    let kind = || shell(host, "stat -c '%a %u %g %F' /etc/resolv.conf");
    let before = kind();
    let a = joined(&net, "a", &control.url(), &key);
    let b = joined(&net, "b", &control.url(), &key);
    let to_b = b.ipv4().unwrap();

    // Over both transports: the tailnet's names, the split domain by its own server, the rest by the host's.
    wait_shell(host, "cat /etc/resolv.conf", |text| text.contains("100.100.100.100"));
    for (name, wanted) in [
        ("b.lab.test", to_b),
        ("wiki.corp.test", Ipv4Addr::new(198, 51, 100, 9)),
        ("www.example.test", Ipv4Addr::new(198, 51, 100, 7)),
    ] {
        assert_eq!(host.dns_query(MAGIC_DNS, name, SOON).unwrap().addresses, [wanted], "{name}");
        assert_eq!(host.dns_query_tcp(MAGIC_DNS, name, SOON).unwrap().addresses, [wanted], "{name} over TCP");
    }
    assert_eq!(split.questions(), 2, "the split domain has its own server, and nobody else is asked");
    let asked = own.questions();
    assert_eq!(host.dns_query(MAGIC_DNS, "nobody.lab.test", SOON).unwrap().code, 3);
    assert_eq!(host.dns_query_tcp(MAGIC_DNS, "nobody.lab.test", SOON).unwrap().code, 3);
    assert_eq!(own.questions(), asked, "the tailnet's names stay inside");
    // As programs ask: full names, and by each search domain, the host's own included.
    resolves(host, "b", IpAddr::V4(to_b));
    resolves(host, "wiki", address("198.51.100.9"));
    resolves(host, "nas", address("198.51.100.8"));
    resolves(host, "www.example.test", address("198.51.100.7"));

    // Control changes its mind.
    control.set_dns(DnsSettings::default());
    wait_shell(host, "cat /etc/resolv.conf", |text| !text.contains("corp.test"));
    control.set_dns(settings());
    wait_shell(host, "cat /etc/resolv.conf", |text| text.contains("corp.test"));

    // Not accepted, down, ended: each gives the file back to the letter.
    let back = |when: &str| {
        wait::until(when, SOON, || (host.resolv_conf().ok()? == OWN && kind() == before).then_some(()))
            .unwrap_or_else(|error| panic!("{error:#}: {} {}", kind(), host.resolv_conf().unwrap()));
        resolves(host, "nas", address("198.51.100.8"));
    };
    a.cli(&["set", "--accept-dns=false"]).unwrap();
    back("the file without accept-dns");
    // The names are still to be had at the service address.
    assert_eq!(host.dns_query(MAGIC_DNS, "b.lab.test", SOON).unwrap().addresses, [to_b]);
    a.cli(&["set", "--accept-dns"]).unwrap();
    resolves(host, "b", IpAddr::V4(to_b));
    a.cli(&["down"]).unwrap();
    back("the file after down");
    a.cli(&["up", &format!("--login-server={}", control.url())]).unwrap();
    resolves(host, "b", IpAddr::V4(to_b));
    assert!(a.process().stop().unwrap().success());
    back("the file after the end");
}

/// systemd-resolved: where it is installed, or where the environment says it was unpacked.
fn resolved_program() -> Option<PathBuf> {
    let unpacked = std::env::var_os("TSRS_TEST_RESOLVED").map(PathBuf::from);
    let usual = ["/usr/lib/systemd/systemd-resolved", "/lib/systemd/systemd-resolved"].map(PathBuf::from);
    unpacked.into_iter().chain(usual).find(|path| path.exists())
}

/// A system bus on which everybody may do everything, and systemd-resolved on it with the host's own server.
fn resolved(host: &Host, program: &std::path::Path) -> [Process; 2] {
    const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
        "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
        <busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
        <policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*" eavesdrop="true"/>
        <allow eavesdrop="true"/></policy></busconfig>"#;
    shell(host, "mkdir -p /run/dbus /run/systemd /etc/systemd");
    host.write("/run/bus.conf", BUS).unwrap();
    host.write(
        "/etc/systemd/resolved.conf",
        "[Resolve]\nDNS=203.0.113.1\nDNSSEC=no\nLLMNR=no\nMulticastDNS=no\n",
    )
    .unwrap();
    for (file, line) in [
        ("/etc/passwd", "systemd-resolve:x:65000:65000::/:/usr/sbin/nologin\n"),
        ("/etc/group", "systemd-resolve:x:65000:\n"),
    ] {
        let text = host.read(file).unwrap();
        if !text.contains("systemd-resolve:") {
            host.write(file, &(text + line)).unwrap();
        }
    }
    let mut command = host.command("dbus-daemon");
    command.args(["--config-file=/run/bus.conf", "--nofork", "--nopidfile"]);
    let bus = host.spawn("dbus", command).unwrap();
    wait_shell(host, "test -S /run/dbus/system_bus_socket && echo up", |said| said.contains("up"));
    let service = host.spawn("resolved", host.command(program)).unwrap();
    wait_shell(
        host,
        "busctl call org.freedesktop.resolve1 /org/freedesktop/resolve1 org.freedesktop.DBus.Peer Ping 2>&1 && echo up",
        |said| said.contains("up"),
    );
    [bus, service]
}

#[test]
fn systemd_resolved_gets_the_tailnets_names_and_keeps_the_rest() {
    let name = "systemd_resolved_gets_the_tailnets_names";
    let Some(program) = resolved_program() else {
        return tools::skip(
            name,
            "systemd-resolved is not installed, and TSRS_TEST_RESOLVED does not name it",
        );
    };
    if tools::find_all(name, &["dbus-daemon", "busctl"]).is_none() {
        return;
    }
    let Some(_turn) = turn_with_agent(name) else { return };
    let net = Topology::pair(Nat::Easy, Nat::Easy).build().unwrap();
    let (own, split) = servers(&net);
    let control = net.lab_control(LabConfig { dns: settings(), ..LabConfig::default() }).unwrap();
    let key = control.create_key(KeySpec::reusable());
    let host = net.host("a");
    let _running = resolved(host, &program);
    host.write("/etc/resolv.conf", "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n").unwrap();
    let stub = "127.0.0.53:53".parse().unwrap();
    let asks = |name: &str| host.dns_query(stub, name, SOON).unwrap();
    assert_eq!(asks("www.example.test").addresses, [Ipv4Addr::new(198, 51, 100, 7)]);
    let a = joined(&net, "a", &control.url(), &key);
    let b = joined(&net, "b", &control.url(), &key);
    let to_b = b.ipv4().unwrap();

    // The file belongs to another manager and stays as it is; the link has the tailnet's server and domains.
    let wanted = |name: &str, to: Ipv4Addr| {
        let what = format!("{name} by systemd-resolved");
        wait::until(&what, SOON, || (asks(name).addresses == [to]).then_some(())).unwrap();
    };
    wanted("b.lab.test", to_b);
    wanted("wiki.corp.test", Ipv4Addr::new(198, 51, 100, 9));
    assert!(host.resolv_conf().unwrap().starts_with("nameserver 127.0.0.53\n"));
    assert!(split.questions() >= 1);
    let asked = own.questions();
    wanted("www.example.test", Ipv4Addr::new(198, 51, 100, 7));
    assert_names(&a.cli(&["dns", "status"]).unwrap(), &["corp.test", "203.0.113.2"]);
    assert_eq!(asks("nobody.lab.test").code, 3);
    assert!(own.questions() <= asked + 2, "names of the tailnet go to nobody else");

    // Down takes the link's settings away, up brings them back, the end takes them away.
    let before = asks("www.example.test");
    a.cli(&["down"]).unwrap();
    let gone = || (asks("b.lab.test").addresses.is_empty()).then_some(());
    wait::until("no name of the tailnet", SOON, gone).unwrap();
    a.cli(&["up", &format!("--login-server={}", control.url())]).unwrap();
    wanted("b.lab.test", to_b);
    assert!(a.process().stop().unwrap().success());
    wait::until("no name of the tailnet", SOON, gone).unwrap();
    assert_eq!(asks("www.example.test"), before);
}
