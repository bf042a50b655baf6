use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::mpsc;

use nix::mount::{MsFlags, mount};
use tsrs_platform_api::dns::ForeignManager;
use tsrs_platform_api::{DnsEvent, PlatformEvent, contract};

use super::*;
use crate::testing::{WAIT_LIMIT, isolated};

const HOST: &str = "# the administrator's\nnameserver 192.0.2.53\nsearch host.test\noptions edns0\n";

/// A host's `/etc`, in a directory, without a system bus.
struct Etc {
    root: tempfile::TempDir,
    state: tempfile::TempDir,
    events: mpsc::Receiver<DnsEvent>,
    sink: EventSink,
}

impl Etc {
    fn empty() -> Self {
        let (sender, events) = mpsc::channel();
        let sink = EventSink::new(move |event| {
            if let PlatformEvent::Dns(event) = event {
                let _ = sender.send(event);
            }
        });
        Self { root: tempfile::tempdir().unwrap(), state: tempfile::tempdir().unwrap(), events, sink }
    }

    fn with(text: &str) -> Self {
        let etc = Self::empty();
        fs::write(etc.path(), text).unwrap();
        etc
    }

    fn path(&self) -> PathBuf {
        self.root.path().join("resolv.conf")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }

    fn files(&self) -> HostFiles {
        let bus = format!("unix:path={}", self.root.path().join("no-bus").display());
        HostFiles {
            resolv_conf: self.path(),
            nsswitch: self.root.path().join("nsswitch.conf"),
            bus: Some(bus),
        }
    }

    fn journal(&self) -> Journal {
        Journal::open(self.state.path()).unwrap()
    }

    fn dns(&self) -> LinuxDns {
        LinuxDns::with_files(Instance::ZERO, 1, self.journal(), self.sink.clone(), self.files()).unwrap()
    }

    fn event(&self) -> DnsEvent {
        self.events.recv_timeout(WAIT_LIMIT).unwrap()
    }

    /// Everything in the directory: names, kinds, modes, owners, times, inodes and contents.
    fn snapshot(&self) -> String {
        let mut lines: Vec<String> = fs::read_dir(self.root.path())
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let meta = entry.metadata().unwrap();
                let content = match fs::read_link(entry.path()) {
                    Ok(target) => format!("-> {}", target.display()),
                    Err(_) => fs::read_to_string(entry.path()).unwrap(),
                };
                let name = entry.file_name();
                format!(
                    "{name:?} {:o} {}:{} {}.{} {} {content:?}",
                    meta.mode(),
                    meta.uid(),
                    meta.gid(),
                    meta.mtime(),
                    meta.mtime_nsec(),
                    meta.ino()
                )
            })
            .collect();
        lines.sort();
        lines.join("\n")
    }
}

#[test]
fn a_plain_file_keeps_the_contract() {
    let etc = Etc::with(HOST);
    let mut dns = etc.dns();
    assert_eq!(dns.status().owner, DnsOwner::ResolvConf);
    // What is written differs in times and inodes each time; the text is the state.
    let listing = || {
        let mut names: Vec<_> =
            fs::read_dir(etc.root.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        format!("{names:?} {}", etc.text())
    };
    contract::dns(&mut dns, &listing, true);
}

#[test]
fn the_former_file_comes_back_with_inode_mode_owner_and_times() {
    let etc = Etc::with(HOST);
    fs::set_permissions(etc.path(), fs::Permissions::from_mode(0o640)).unwrap();
    let before = etc.snapshot();
    let mut dns = etc.dns();
    dns.apply(&contract::full_dns_config(true)).unwrap();
    assert_eq!(fs::metadata(etc.path()).unwrap().mode() & 0o777, 0o644);
    assert!(
        etc.text().contains("nameserver 100.100.100.100\nsearch example.ts.net host.test\noptions edns0\n")
    );
    dns.close().unwrap();
    assert_eq!(before, etc.snapshot());
}

#[test]
fn a_link_comes_back_as_the_link_it_was_and_its_target_is_never_written() {
    let etc = Etc::empty();
    fs::write(etc.root.path().join("static"), HOST).unwrap();
    symlink("static", etc.path()).unwrap();
    let before = etc.snapshot();
    let mut dns = etc.dns();
    dns.apply(&contract::full_dns_config(true)).unwrap();
    assert!(fs::symlink_metadata(etc.path()).unwrap().is_file());
    assert_eq!(fs::read_to_string(etc.root.path().join("static")).unwrap(), HOST);
    drop(dns);
    assert_eq!(before, etc.snapshot());
}

#[test]
fn where_there_was_no_file_there_is_none_again() {
    let etc = Etc::empty();
    let mut dns = etc.dns();
    dns.apply(&contract::full_dns_config(true)).unwrap();
    assert!(etc.path().exists());
    dns.close().unwrap();
    assert_eq!(etc.snapshot(), "");
}

#[test]
fn the_hosts_servers_are_known_before_and_while_the_file_is_ours() {
    let etc = Etc::with(HOST);
    let mut dns = etc.dns();
    let servers = vec!["192.0.2.53:53".parse().unwrap()];
    assert_eq!(dns.status().base_nameservers, servers);
    dns.apply(&contract::full_dns_config(true)).unwrap();
    let status = dns.status();
    assert_eq!((status.base_nameservers, status.base_search), (servers, vec!["host.test".to_owned()]));
    assert!(!status.can_split && status.explanation.contains("plain file"));
}

#[test]
fn a_plain_file_refuses_to_pretend_that_it_can_split() {
    let etc = Etc::with(HOST);
    let before = etc.snapshot();
    assert!(etc.dns().apply(&contract::full_dns_config(false)).is_err());
    assert_eq!(before, etc.snapshot());
}

#[test]
fn a_file_of_another_manager_is_never_touched() {
    for (text, manager) in [
        ("# Generated by NetworkManager\nnameserver 192.0.2.53\n", ForeignManager::NetworkManager),
        ("# generated by resolvconf(8)\nnameserver 192.0.2.53\n", ForeignManager::Resolvconf),
        ("# managed by man:systemd-resolved(8)\nnameserver 127.0.0.53\n", ForeignManager::ResolvedNotRunning),
        ("# Written by tsrs-agent, instance 3.\nnameserver 100.100.100.100\n", ForeignManager::OtherInstance),
    ] {
        let etc = Etc::with(text);
        let before = etc.snapshot();
        let mut dns = etc.dns();
        assert_eq!(dns.status().owner, DnsOwner::Other(manager));
        let error = dns.apply(&contract::full_dns_config(true)).unwrap_err().to_string();
        assert!(error.contains(&dns.status().explanation), "{error}");
        dns.apply(&DnsConfig::default()).unwrap();
        drop(dns);
        assert_eq!(before, etc.snapshot());
    }
}

#[test]
fn an_overwritten_file_is_put_back_and_its_servers_are_used_and_restored() {
    let etc = Etc::with(HOST);
    let mut dns = etc.dns();
    dns.apply(&contract::full_dns_config(true)).unwrap();
    let ours = etc.text();
    let lease = "# from a new lease\nnameserver 198.51.100.53\nsearch host.test\noptions edns0\n";
    for (first, overwrite) in [(true, write_in_place as fn(&Etc, &str)), (false, write_and_rename)] {
        overwrite(&etc, lease);
        assert_eq!(etc.event(), DnsEvent::Repaired);
        assert_eq!(etc.text(), ours);
        let servers = vec!["198.51.100.53:53".parse().unwrap()];
        assert_eq!(dns.status().base_nameservers, servers);
        if first {
            assert_eq!(etc.event(), DnsEvent::BaseChanged { nameservers: servers });
        }
    }
    fs::remove_file(etc.path()).unwrap();
    assert_eq!(etc.event(), DnsEvent::Repaired);
    assert_eq!(etc.text(), ours);
    dns.close().unwrap();
    assert_eq!(etc.text(), lease);
}

fn write_in_place(etc: &Etc, text: &str) {
    fs::write(etc.path(), text).unwrap();
}

fn write_and_rename(etc: &Etc, text: &str) {
    let new = etc.root.path().join("resolv.conf.dhclient-new");
    fs::write(&new, text).unwrap();
    fs::rename(new, etc.path()).unwrap();
}

#[test]
fn a_writer_who_insists_wins_and_keeps_his_file() {
    let etc = Etc::with(HOST);
    let mut dns = etc.dns();
    dns.apply(&contract::full_dns_config(true)).unwrap();
    let mut repaired = 0;
    loop {
        write_in_place(&etc, HOST);
        match etc.event() {
            DnsEvent::Repaired => repaired += 1,
            DnsEvent::Contested => break,
            other @ (DnsEvent::BaseChanged { .. } | DnsEvent::RepairFailed { .. }) => panic!("{other:?}"),
        }
    }
    assert!((10..=12).contains(&repaired), "{repaired}");
    dns.close().unwrap();
    assert_eq!(etc.text(), HOST);
    assert_eq!(fs::read_dir(etc.root.path()).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn a_manager_that_takes_the_file_over_keeps_it() {
    let etc = Etc::with(HOST);
    let mut dns = etc.dns();
    dns.apply(&contract::full_dns_config(true)).unwrap();
    let theirs = "# Generated by NetworkManager\nnameserver 192.0.2.99\n";
    write_and_rename(&etc, theirs);
    assert_eq!(etc.event(), DnsEvent::Contested);
    dns.close().unwrap();
    assert_eq!(etc.text(), theirs);
}

#[test]
fn changed_servers_of_the_host_are_told_while_nothing_is_applied() {
    let etc = Etc::with(HOST);
    let _dns = etc.dns();
    write_and_rename(&etc, "nameserver 198.51.100.1\n");
    assert_eq!(etc.event(), DnsEvent::BaseChanged { nameservers: vec!["198.51.100.1:53".parse().unwrap()] });
}

#[test]
fn a_predecessor_that_was_killed_is_undone_by_its_successor() {
    let etc = Etc::with(HOST);
    let before = etc.snapshot();
    let mut dns = etc.dns();
    dns.apply(&contract::full_dns_config(true)).unwrap();
    // What a kill leaves: the file is ours, the journal says so, nobody runs its destructor.
    std::mem::forget(dns);
    let change = etc.journal().entries().resolv_conf.unwrap();
    restore_resolv_conf(&change).unwrap();
    assert_eq!(before, etc.snapshot());
}

#[test]
fn a_journal_that_cannot_be_written_changes_nothing() {
    let etc = Etc::with(HOST);
    let before = etc.snapshot();
    let mut dns = etc.dns();
    fs::remove_dir_all(etc.state.path()).unwrap();
    assert!(dns.apply(&contract::full_dns_config(true)).is_err());
    assert_eq!(before, etc.snapshot());
}

#[test]
fn a_mounted_file_is_overwritten_in_place_and_restored() {
    isolated(|| {
        let etc = Etc::with("");
        let outside = tempfile::tempdir().unwrap();
        let mounted = outside.path().join("resolv.conf");
        fs::write(&mounted, HOST).unwrap();
        let none = None::<&Path>;
        mount(Some(&mounted), &etc.path(), none, MsFlags::MS_BIND, none).unwrap();
        let before = fs::metadata(&mounted).unwrap();
        let mut dns = etc.dns();
        dns.apply(&contract::full_dns_config(true)).unwrap();
        let ours = etc.text();
        assert!(ours.contains("100.100.100.100"));
        fs::write(&mounted, "nameserver 198.51.100.53\noptions edns0\nsearch host.test\n").unwrap();
        assert_eq!(etc.event(), DnsEvent::Repaired, "writes behind the mount are seen");
        assert_eq!(etc.text(), ours);
        dns.close().unwrap();
        assert_eq!(etc.text(), "nameserver 198.51.100.53\noptions edns0\nsearch host.test\n");
        let after = fs::metadata(&mounted).unwrap();
        assert_eq!((before.ino(), before.mode()), (after.ino(), after.mode()));
        assert_eq!(fs::read_dir(etc.state.path()).unwrap().count(), 0, "neither copy nor journal is left");
        nix::mount::umount(&etc.path()).unwrap();
    });
}
