//! In-memory implementations for tests of the agent.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::Ipv4Net;

use crate::{
    DnsConfig, DnsConfigurator, DnsOwner, DnsStatus, ExitBinder, LinkMonitor, LinkState, PeerCred,
    PeerCredentials, PlatformError, Result, Router, RouterConfig, SocketBinder,
};

/// A router that remembers what it was asked for.
///
/// Clones share their state, so that a test keeps one and gives the other away.
#[derive(Clone, Debug, Default)]
pub struct FakeRouter(Arc<Mutex<RouterInner>>);

#[derive(Debug, Default)]
struct RouterInner {
    applied: Option<RouterConfig>,
    changes: usize,
    on_link: Vec<Ipv4Net>,
    fail_next: Option<String>,
}

impl FakeRouter {
    /// A router on a host with these on-link prefixes.
    pub fn on_link(prefixes: &[Ipv4Net]) -> Self {
        let fake = Self::default();
        fake.with(|inner| inner.on_link = prefixes.to_vec());
        fake
    }

    /// What is applied now.
    pub fn applied(&self) -> Option<RouterConfig> {
        self.with(|inner| inner.applied.clone())
    }

    /// How many calls changed something.
    pub fn changes(&self) -> usize {
        self.with(|inner| inner.changes)
    }

    /// Makes the next `apply` fail with this reason.
    pub fn fail_next(&self, reason: &str) {
        self.with(|inner| inner.fail_next = Some(reason.to_owned()));
    }

    fn with<T>(&self, act: impl FnOnce(&mut RouterInner) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Router for FakeRouter {
    fn apply(&mut self, config: &RouterConfig) -> Result<()> {
        self.with(|inner| {
            let (config, refused) = config.admissible(&inner.on_link);
            if let Some(reason) = inner.fail_next.take() {
                return Err(PlatformError::refused("apply routes", reason));
            }
            if inner.applied.as_ref() != Some(&config) {
                inner.applied = Some(config);
                inner.changes += 1;
            }
            refused
        })
    }

    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    fn check_forwarding(&self) -> Result<()> {
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        self.with(|inner| inner.applied = None);
        Ok(())
    }
}

/// A configurator that remembers what it was asked for. Clones share their state.
#[derive(Clone, Debug, Default)]
pub struct FakeDns(Arc<Mutex<DnsInner>>);

#[derive(Debug, Default)]
struct DnsInner {
    applied: Option<DnsConfig>,
    flushes: usize,
    fail_next: Option<String>,
}

impl FakeDns {
    /// What is applied now.
    pub fn applied(&self) -> Option<DnsConfig> {
        self.with(|inner| inner.applied.clone())
    }

    /// How often caches were flushed.
    pub fn flushes(&self) -> usize {
        self.with(|inner| inner.flushes)
    }

    /// Makes the next `apply` fail with this reason.
    pub fn fail_next(&self, reason: &str) {
        self.with(|inner| inner.fail_next = Some(reason.to_owned()));
    }

    fn with<T>(&self, act: impl FnOnce(&mut DnsInner) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl DnsConfigurator for FakeDns {
    fn apply(&mut self, config: &DnsConfig) -> Result<()> {
        self.with(|inner| {
            if let Some(reason) = inner.fail_next.take() {
                return Err(PlatformError::refused("set DNS", reason));
            }
            inner.applied = (!config.is_empty()).then(|| config.clone());
            Ok(())
        })
    }

    fn status(&self) -> DnsStatus {
        DnsStatus {
            owner: DnsOwner::Resolved,
            explanation: "a fake for tests".to_owned(),
            can_split: true,
            base_nameservers: Vec::new(),
            base_search: Vec::new(),
            applied: self.applied(),
        }
    }

    fn flush_caches(&mut self) -> Result<()> {
        self.with(|inner| inner.flushes += 1);
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        self.with(|inner| inner.applied = None);
        Ok(())
    }
}

/// Counts the sockets that it was given. Clones share their state.
#[derive(Clone, Debug, Default)]
pub struct FakeBinder(Arc<AtomicUsize>);

impl FakeBinder {
    /// How many sockets were marked.
    pub fn marked(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl SocketBinder for FakeBinder {
    fn mark_bypass(&self, _fd: BorrowedFd<'_>) -> io::Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl ExitBinder for FakeBinder {
    fn mark_exit(&self, _fd: BorrowedFd<'_>) -> io::Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// A link that stands still.
#[derive(Clone, Debug, Default)]
pub struct FakeLink(pub Arc<LinkState>);

impl LinkMonitor for FakeLink {
    fn state(&self) -> Arc<LinkState> {
        Arc::clone(&self.0)
    }
}

/// Says that every peer is this one.
#[derive(Clone, Debug)]
pub struct FakePeer(pub PeerCred);

impl PeerCredentials for FakePeer {
    fn peer(&self, _fd: BorrowedFd<'_>) -> io::Result<PeerCred> {
        Ok(self.0.clone())
    }

    fn user_id(&self, name: &str) -> io::Result<Option<u32>> {
        Ok((name == "root").then_some(0))
    }

    fn group_id(&self, name: &str) -> io::Result<Option<u32>> {
        Ok((name == "root").then_some(0))
    }
}
