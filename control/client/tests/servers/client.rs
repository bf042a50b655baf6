//! A client and what its owner does with its events.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rand_core::OsRng;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;
use tsrs_base_types::{DiscoPrivate, MachinePrivate};
use tsrs_control_client::{Config, ControlClient, Event, Handle, LocalState, NodeKeys, StandardC2n, Trouble};
use tsrs_control_netmap::{Change, Netmap};
use tsrs_control_tailcfg::Hostinfo;
use tsrs_platform_api::fake::FakeBinder;
use tsrs_platform_net::{DnsServers, Net, NetConfig, Proxies};

/// How long the server may take for anything.
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Client {
    pub(crate) handle: Handle,
    pub(crate) keys: NodeKeys,
    events: Receiver<Event>,
    latest: Option<Arc<Netmap>>,
}

/// Where a control server is.
pub(crate) struct Place {
    pub(crate) url: String,
    /// The certificate to trust.
    pub(crate) ca_file: Option<PathBuf>,
}

impl Client {
    pub(crate) fn start(place: Place, hostname: &str) -> Self {
        Self::start_with(place, hostname, NodeKeys::default())
    }

    /// A client that was logged in before with these keys.
    pub(crate) fn start_with(place: Place, hostname: &str, keys: NodeKeys) -> Self {
        let net = Net::new(NetConfig {
            binder: Arc::new(FakeBinder::default()),
            proxies: Proxies::default(),
            ca_files: place.ca_file.into_iter().collect(),
            dns: DnsServers::default(),
            hosts_file: PathBuf::from("/dev/null"),
        })
        .unwrap();
        let hostinfo = Hostinfo {
            hostname: hostname.to_owned(),
            os: "linux".to_owned(),
            ipn_version: "0.1.0-test".to_owned(),
            ..Hostinfo::default()
        };
        // The machine key stands for the host, which is the same after a restart.
        let mut machine_key = [0; 32];
        machine_key[..hostname.len()].copy_from_slice(hostname.as_bytes());
        let disco_key = DiscoPrivate::generate(&mut OsRng).public();
        let config = Config {
            server: place.url.parse().unwrap(),
            machine_key: MachinePrivate::from_bytes(machine_key),
            node_keys: keys.clone(),
            lock_key: None,
            auth_key: None,
            ephemeral: false,
            tailnet: String::new(),
            local: LocalState { hostinfo, disco_key, ..LocalState::default() },
            cached_netmap: None,
            c2n: Arc::new(StandardC2n),
        };
        let (handle, events) = ControlClient::start(config, net).unwrap();
        Self { handle, keys, events, latest: None }
    }

    /// Takes events until one is what is waited for.
    pub(crate) async fn event<T>(&mut self, what: &str, mut wanted: impl FnMut(&Event) -> Option<T>) -> T {
        let wait = async {
            loop {
                let event = self.events.recv().await.expect("the client runs");
                match &event {
                    Event::LoggedIn { keys, .. } => self.keys = keys.clone(),
                    Event::Netmap { netmap, .. } => self.latest = Some(Arc::clone(netmap)),
                    _ => {}
                }
                if let Some(found) = wanted(&event) {
                    return found;
                }
            }
        };
        timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("no {what} within {LIMIT:?}"))
    }

    pub(crate) async fn logged_in(&mut self) -> NodeKeys {
        self.event("login", |event| match event {
            Event::LoggedIn { keys, .. } => Some(keys.clone()),
            _ => None,
        })
        .await
    }

    pub(crate) async fn auth_url(&mut self) -> String {
        self.event("login page", |event| match event {
            Event::AuthUrl(url) => Some(url.clone()),
            _ => None,
        })
        .await
    }

    pub(crate) async fn trouble(&mut self) -> Trouble {
        self.event("trouble", |event| match event {
            Event::Trouble(trouble) => Some(trouble.clone()),
            _ => None,
        })
        .await
    }

    /// The next netmap that fits.
    pub(crate) async fn netmap(&mut self, fits: impl Fn(&Netmap, &[Change]) -> bool) -> Arc<Netmap> {
        self.event("netmap", |event| match event {
            Event::Netmap { netmap, changes } if fits(netmap, changes) => Some(Arc::clone(netmap)),
            _ => None,
        })
        .await
    }

    /// The client is connected again.
    pub(crate) async fn online(&mut self) {
        self.event("connection", |event| matches!(event, Event::Online).then_some(())).await;
    }

    /// The netmap that came last.
    pub(crate) fn latest(&self) -> Arc<Netmap> {
        Arc::clone(self.latest.as_ref().expect("a netmap came"))
    }
}
