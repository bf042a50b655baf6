use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tsrs_platform_api::fake::FakeBinder;
use tsrs_platform_net::{DnsServers, NetConfig, Proxies};

use super::*;
use crate::proxy::{Credentials, Garbage, Reply};
use crate::test_support::admitted;

mod fakes;
mod negotiation;
mod setting;

/// Proxies of the environment would show up in a capture as a connection to somewhere else; here they would fail every test.
fn net(hosts_file: &std::path::Path) -> Net {
    Net::new(NetConfig {
        binder: Arc::new(FakeBinder::default()),
        proxies: Proxies::from_vars(|_| Some("http://192.0.2.99:9".to_owned())),
        ca_files: Vec::new(),
        dns: DnsServers::default(),
        hosts_file: hosts_file.to_owned(),
    })
    .unwrap()
}

fn dialer(binder: impl ExitBinder + 'static) -> RealDialer {
    RealDialer::new(Arc::new(binder), net(std::path::Path::new("/no/hosts/file")))
}

/// A proxy on loopback.
fn local(scheme: &str, port: u16) -> ProxyConfig {
    let url = format!("{scheme}://127.0.0.1:{port}").parse().unwrap();
    ProxyConfig { url, credentials: None, allow_local: true }
}

async fn set(dialer: &RealDialer, proxies: Vec<ProxyConfig>) {
    dialer.set_egress(Egress::Proxies(ProxyList::new(proxies).unwrap()), &HostFacts::default()).await;
}

fn destination() -> Destination {
    admitted("11.1.2.3:443")
}
