//! systemd-resolved on a bus of the test's own: the real service where its program is found, and a stand-in that
//! remembers what it was told.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use futures_util::StreamExt;
use nix::mount::{MsFlags, mount};
use tsrs_platform_api::dns::ForeignManager;
use tsrs_platform_api::{
    DnsConfigurator, DnsEvent, DnsOwner, EventSink, Instance, PlatformEvent, TunConfig, contract,
};
use zbus::message::Type;
use zbus::{Connection, Message, MessageStream, Variant};

use super::{HostFiles, LinuxDns};
use crate::journal::Journal;
use crate::testing::{WAIT_LIMIT, isolated_with, run, skip, veth, wait_until};

/// Ends its process when it is dropped.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A system bus in this mount namespace on which everybody may do everything.
fn bus() -> Service {
    const CONFIG: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
        "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
        <busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
        <policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*" eavesdrop="true"/>
        <allow eavesdrop="true"/></policy></busconfig>"#;
    fs::create_dir_all("/run/dbus").unwrap();
    fs::create_dir_all("/run/systemd").unwrap();
    fs::write("/run/bus.conf", CONFIG).unwrap();
    let mut daemon = Command::new("dbus-daemon");
    daemon.args(["--config-file=/run/bus.conf", "--nofork", "--nopidfile"]).stderr(Stdio::null());
    let daemon = Service(daemon.spawn().unwrap());
    wait_until(|| std::os::unix::net::UnixStream::connect("/run/dbus/system_bus_socket").is_ok());
    daemon
}

/// A host whose resolv.conf points to systemd-resolved, with a TUN device and a configurator.
struct Host {
    _device: tsrs_platform_api::TunDevice,
    _files: tempfile::TempDir,
    dns: LinuxDns,
    index: u32,
    events: mpsc::Receiver<DnsEvent>,
}

fn host() -> Host {
    let config = TunConfig { address: Some([100, 64, 0, 1].into()), ..TunConfig::new("tailscale0") };
    let device = crate::tun::create(&config).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let resolv_conf = directory.path().join("resolv.conf");
    fs::write(&resolv_conf, "nameserver 127.0.0.53\n").unwrap();
    let files = HostFiles { resolv_conf, nsswitch: directory.path().join("nsswitch.conf"), bus: None };
    // Far more than one test causes.
    let (sender, events) = mpsc::sync_channel(64);
    let sink = EventSink::new(move |event| {
        if let PlatformEvent::Dns(event) = event {
            let _ = sender.send(event);
        }
    });
    let journal = Journal::open(directory.path()).unwrap();
    let dns = LinuxDns::with_files(Instance::ZERO, device.index, journal, sink, files).unwrap();
    Host { index: device.index, _device: device, _files: directory, dns, events }
}

/// What the stand-in was told, by method.
type Told = Arc<Mutex<BTreeMap<String, String>>>;

/// Answers like systemd-resolved until it is dropped.
struct StandIn {
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl StandIn {
    fn start(told: &Told) -> Self {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (ready, is_ready) = mpsc::sync_channel(1);
        let told = Arc::clone(told);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let connection = Connection::system().await.unwrap();
                let mut messages = MessageStream::from(&connection);
                connection.request_name("org.freedesktop.resolve1").await.unwrap();
                ready.send(()).unwrap();
                let serve = async {
                    while let Some(Ok(message)) = messages.next().await {
                        answer(&connection, &message, &told).await;
                    }
                };
                tokio::select! { () = serve => {}, _ = stopped => {} }
            });
        });
        is_ready.recv_timeout(WAIT_LIMIT).unwrap();
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn answer(connection: &Connection, message: &Message, told: &Told) {
    if message.message_type() != Type::MethodCall {
        return;
    }
    let header = message.header();
    let method = header.member().map(ToString::to_string).unwrap_or_default();
    let body = message.body();
    let arguments = match method.as_str() {
        "SetLinkDNS" => format!("{:?}", body.deserialize::<(i32, Vec<(i32, Vec<u8>)>)>().unwrap()),
        "SetLinkDomains" => format!("{:?}", body.deserialize::<(i32, Vec<(String, bool)>)>().unwrap()),
        "SetLinkDefaultRoute" => format!("{:?}", body.deserialize::<(i32, bool)>().unwrap()),
        "SetLinkLLMNR" | "SetLinkMulticastDNS" | "SetLinkDNSSEC" => {
            format!("{:?}", body.deserialize::<(i32, String)>().unwrap())
        }
        "Get" => {
            let (_, name) = body.deserialize::<(String, String)>().unwrap();
            let servers = vec![(0_i32, 2_i32, vec![192_u8, 0, 2, 53]), (2, 2, vec![100, 100, 100, 100])];
            let domains = vec![(0_i32, "host.test".to_owned(), false), (0, "route.test".to_owned(), true)];
            let value = if name == "Domains" { Variant::from(domains) } else { Variant::from(servers) };
            return connection.reply(&header, &value).await.unwrap();
        }
        // An old version does not know this one.
        "SetLinkDNSOverTLS" => {
            let name = "org.freedesktop.DBus.Error.UnknownMethod";
            return connection.reply_error(&header, name, &"unknown").await.unwrap();
        }
        "RevertLink" => {
            told.lock().unwrap().clear();
            return connection.reply(&header, &()).await.unwrap();
        }
        _ => return connection.reply(&header, &()).await.unwrap(),
    };
    told.lock().unwrap().insert(method, arguments);
    connection.reply(&header, &()).await.unwrap();
}

#[test]
fn the_contract_is_kept_towards_a_stand_in() {
    isolated_with(&["dbus-daemon"], || {
        let _bus = bus();
        let told = Told::default();
        let stand_in = StandIn::start(&told);
        let mut host = host();
        assert_eq!(host.dns.status().owner, DnsOwner::Resolved);
        let seen = Arc::clone(&told);
        contract::dns(&mut host.dns, &move || format!("{:?}", seen.lock().unwrap()), false);

        host.dns.apply(&contract::full_dns_config(false)).unwrap();
        let index = host.index;
        let expected = BTreeMap::from([
            ("SetLinkDNS".to_owned(), format!("({index}, [(2, [100, 100, 100, 100])])")),
            ("SetLinkDNSSEC".to_owned(), format!("({index}, \"no\")")),
            ("SetLinkDefaultRoute".to_owned(), format!("({index}, false)")),
            ("SetLinkDomains".to_owned(), format!("({index}, [(\"example.ts.net\", false)])")),
            ("SetLinkLLMNR".to_owned(), format!("({index}, \"no\")")),
            ("SetLinkMulticastDNS".to_owned(), format!("({index}, \"no\")")),
        ]);
        assert_eq!(*told.lock().unwrap(), expected);
        let status = host.dns.status();
        assert!(status.can_split);
        assert_eq!(status.base_search, ["host.test"]);
        assert!(status.base_nameservers.contains(&"192.0.2.53:53".parse().unwrap()));

        // A restart forgets what was set, and is told it again.
        drop(stand_in);
        told.lock().unwrap().clear();
        let _stand_in = StandIn::start(&told);
        assert_eq!(host.events.recv_timeout(WAIT_LIMIT).unwrap(), DnsEvent::Repaired);
        assert_eq!(*told.lock().unwrap(), expected);
    });
}

#[test]
fn a_service_that_went_away_is_an_error_in_time() {
    isolated_with(&["dbus-daemon"], || {
        let _bus = bus();
        let told = Told::default();
        let stand_in = StandIn::start(&told);
        let mut host = host();
        drop(stand_in);
        assert_eq!(host.dns.status().owner, DnsOwner::Resolved);
        assert!(host.dns.flush_caches().is_err());
        let error = host.dns.apply(&contract::full_dns_config(false)).unwrap_err().to_string();
        assert!(error.contains("does not answer"), "{error}");
        assert_eq!(host.dns.status().owner, DnsOwner::Other(ForeignManager::ResolvedNotRunning));
    });
}

/// The real program: where it is installed, or where the environment says it was unpacked.
fn real_program() -> Option<PathBuf> {
    let unpacked = std::env::var_os("TSRS_TEST_RESOLVED").map(PathBuf::from);
    let usual = ["/usr/lib/systemd/systemd-resolved", "/lib/systemd/systemd-resolved"].map(PathBuf::from);
    unpacked.into_iter().chain(usual).find(|path| path.exists())
}

/// Starts the real service, with the user that it changes to.
fn real_service(program: &Path) -> Service {
    for (file, line) in [
        ("/etc/passwd", "systemd-resolve:x:65000:65000::/:/usr/sbin/nologin\n"),
        ("/etc/group", "systemd-resolve:x:65000:\n"),
    ] {
        let mut text = fs::read_to_string(file).unwrap();
        if !text.contains("systemd-resolve:") {
            text.push_str(line);
        }
        let copy = Path::new("/run").join(Path::new(file).file_name().unwrap());
        fs::write(&copy, text).unwrap();
        mount(Some(&copy), file, None::<&Path>, MsFlags::MS_BIND, None::<&Path>).unwrap();
    }
    let mut command = Command::new(program);
    command.env("SYSTEMD_LOG_LEVEL", "emerg").stdout(Stdio::null()).stderr(Stdio::null());
    let service = Service(command.spawn().unwrap());
    wait_until(|| {
        let mut ping = Command::new("busctl");
        let target =
            ["org.freedesktop.resolve1", "/org/freedesktop/resolve1", "org.freedesktop.DBus.Peer", "Ping"];
        ping.arg("call").args(target).stderr(Stdio::null()).status().unwrap().success()
    });
    service
}

/// What the real service has for a link.
fn real_state(index: u32) -> String {
    // Object paths escape the leading digit.
    let digits = index.to_string();
    let path = format!("/org/freedesktop/resolve1/link/_3{digits}");
    assert_eq!(digits.len(), 1);
    let properties = ["DNS", "Domains", "DefaultRoute", "LLMNR", "MulticastDNS", "DNSSEC", "DNSOverTLS"];
    let fixed = ["get-property", "org.freedesktop.resolve1", &path, "org.freedesktop.resolve1.Link"];
    run("busctl", fixed.into_iter().chain(properties))
}

#[test]
fn the_contract_is_kept_towards_the_real_service() {
    let Some(program) = real_program() else {
        return skip("systemd-resolved is not installed, and TSRS_TEST_RESOLVED does not name it");
    };
    isolated_with(&["dbus-daemon", "busctl"], move || {
        let _bus = bus();
        let service = real_service(&program);
        let mut host = host();
        let index = host.index;
        assert_eq!(host.dns.status().owner, DnsOwner::Resolved);
        contract::dns(&mut host.dns, &move || real_state(index), false);

        host.dns.apply(&contract::full_dns_config(false)).unwrap();
        let applied = real_state(index);
        assert!(applied.contains("a(iay) 1 2 4 100 100 100 100"), "{applied}");
        assert!(applied.contains("a(sb) 1 \"example.ts.net\" false"), "{applied}");
        assert!(
            host.dns
                .status()
                .base_nameservers
                .iter()
                .all(|server| server.ip() != tsrs_platform_api::SERVICE_ADDRESS)
        );

        // Servers of another link are the host's own, and a change of them is told.
        veth("eth0", "192.0.2.7/24");
        let other = nix::net::if_::if_nametoindex("eth0").unwrap();
        let call = [
            "call",
            "org.freedesktop.resolve1",
            "/org/freedesktop/resolve1",
            "org.freedesktop.resolve1.Manager",
        ];
        let arguments = format!("SetLinkDNS ia(iay) {other} 1 2 4 192 0 2 53");
        run("busctl", call.into_iter().chain(arguments.split(' ')));
        let told = host.events.recv_timeout(WAIT_LIMIT).unwrap();
        let server = "192.0.2.53:53".parse().unwrap();
        assert!(matches!(told, DnsEvent::BaseChanged { nameservers } if nameservers.contains(&server)));

        drop(service);
        let _ = fs::remove_dir_all("/run/systemd/resolve");
        let _service = real_service(&program);
        // The other link's servers went with the restart, which may be told first.
        let mut events = std::iter::from_fn(|| host.events.recv_timeout(WAIT_LIMIT).ok());
        assert!(events.any(|event| event == DnsEvent::Repaired));
        assert_eq!(real_state(index), applied);
    });
}
