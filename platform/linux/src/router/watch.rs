//! Notices what others take away, and has it put back.
//!
//! The thread sleeps in `poll` until the kernel tells of a change that we did not cause. It then waits a moment for
//! the rest of the burst (a firewall reload is hundreds of messages), compares kernel and wanted state, and repairs
//! what is missing, at a bounded pace ([`Budget`]).

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tsrs_platform_api::{EventSink, PlatformEvent, RouterEvent};

use crate::budget::Budget;
use crate::netlink::{Event, Subscription};
use crate::nft;
use crate::router::apply::Applier;
use crate::rtnl::{Address, Link, Route, Rule, group, kind};
use crate::stop::{Stop, StopHandle};

/// Events of one cause are waited for together.
const SETTLE: Duration = Duration::from_millis(250);

/// Ends the thread when it is dropped.
#[derive(Debug)]
pub(super) struct Watcher {
    _stop: StopHandle,
}

impl Watcher {
    pub(super) fn start(applier: Arc<Mutex<Applier>>, sink: EventSink) -> io::Result<Self> {
        let groups = group::LINK | group::IPV4_ADDRESS | group::IPV4_ROUTE | group::IPV4_RULE;
        let (stop, handle) = Stop::new()?;
        let watch = Watch {
            applier,
            sink,
            routes: Subscription::route(groups)?,
            firewall: Subscription::netfilter()
                .inspect_err(
                    |error| tracing::warn!(%error, "foreign changes of the firewall are not noticed"),
                )
                .ok(),
            budget: Budget::new(Instant::now()),
            pending: Pending::default(),
            contested: false,
        };
        let thread = std::thread::Builder::new().name("router-watch".into());
        Ok(Self { _stop: handle.joining(thread.spawn(move || watch.run(&stop))?) })
    }
}

#[derive(Debug)]
struct Watch {
    applier: Arc<Mutex<Applier>>,
    sink: EventSink,
    routes: Subscription,
    /// `None` on a kernel without nf_tables.
    firewall: Option<Subscription>,
    budget: Budget,
    pending: Pending,
    /// Whether the caller was told that another program keeps interfering.
    contested: bool,
}

/// What has to be looked at, and when.
#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    due: Option<Instant>,
    firewall_touched: bool,
}

impl Watch {
    fn run(mut self, stop: &Stop) {
        loop {
            match self.wait(stop) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    self.tell(RouterEvent::RepairFailed { error: format!("watch for changes: {error}") });
                    return;
                }
            }
            if self.pending.due.is_some_and(|due| due <= Instant::now()) {
                self.look();
            }
        }
    }

    /// Waits for events or the time to look; false when the watch ends.
    fn wait(&mut self, stop: &Stop) -> io::Result<bool> {
        let timeout = self.pending.due.map_or(PollTimeout::NONE, |due| {
            let left = due.saturating_duration_since(Instant::now());
            // One millisecond more, so that rounding down does not make this spin.
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        let firewall_fd = self.firewall.as_ref().map_or(stop.as_fd(), AsFd::as_fd);
        let mut fds =
            [self.routes.as_fd(), firewall_fd, stop.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let [routes, firewall, stopped] = fds.map(|fd| fd.any().unwrap_or(false));
        if stopped {
            return Ok(false);
        }
        // The lock is held while a change is made and its cause compared, so that our own changes are known as such.
        let applier = lock(&self.applier);
        if routes {
            let mut damaged = false;
            self.routes.drain(|event| damaged |= may_damage_routes(&applier, event))?;
            if damaged {
                self.pending.due.get_or_insert_with(|| Instant::now() + SETTLE);
            }
        }
        if let Some(subscription) = self.firewall.as_mut().filter(|_| firewall) {
            let mut damaged = false;
            subscription.drain(|event| damaged |= may_damage_firewall(&applier, event))?;
            if damaged {
                self.pending.firewall_touched = true;
                self.pending.due.get_or_insert_with(|| Instant::now() + SETTLE);
            }
        }
        Ok(true)
    }

    /// Compares and repairs.
    fn look(&mut self) {
        let mut applier = lock(&self.applier);
        let damage = match applier.inspect(self.pending.firewall_touched) {
            Ok(Some(damage)) => damage,
            Ok(None) => {
                self.pending = Pending::default();
                return;
            }
            Err(error) => {
                drop(applier);
                self.pending = Pending::default();
                self.tell(RouterEvent::RepairFailed { error: error.to_string() });
                return;
            }
        };
        let what = damage.what;
        let event = match self.budget.take(Instant::now()) {
            Err(later) => {
                self.pending.due = Some(later);
                let told = std::mem::replace(&mut self.contested, true);
                (!told).then_some(RouterEvent::Contested { what })
            }
            Ok(()) => {
                self.pending = Pending::default();
                self.contested = false;
                Some(match applier.repair(damage) {
                    Ok(()) => RouterEvent::Repaired { what },
                    Err(error) => RouterEvent::RepairFailed { error: error.to_string() },
                })
            }
        };
        drop(applier);
        event.into_iter().for_each(|event| self.tell(event));
    }

    fn tell(&self, event: RouterEvent) {
        tracing::info!(?event, "routes or firewall were changed by another program");
        self.sink.tell(PlatformEvent::Router(event));
    }
}

/// Whether an event can mean that something of ours is gone from links, addresses, routes or rules.
fn may_damage_routes(applier: &Applier, event: Event<'_>) -> bool {
    let Event::Message { kind, port, payload } = event else { return true };
    if applier.caused(port) {
        return false;
    }
    let tun = applier.tun_index();
    match kind {
        kind::DEL_RULE => Rule::parse(payload).is_some_and(|gone| {
            Rule::of_instance(applier.instance()).iter().any(|own| own.same_effect(&gone))
        }),
        kind::DEL_ROUTE => Route::parse(payload).is_some_and(|gone| gone.table == applier.instance().table()),
        kind::DEL_ADDRESS => Address::parse(payload).is_some_and(|gone| gone.index == tun),
        // Routes that go with an interface go without a word of their own.
        kind::NEW_LINK | kind::DEL_LINK => Link::parse(payload).is_some_and(|link| link.index == tun),
        _ => false,
    }
}

fn may_damage_firewall(applier: &Applier, event: Event<'_>) -> bool {
    match event {
        Event::Lost => true,
        Event::Message { kind, port, payload } => {
            !applier.caused(port) && nft::is_relevant(kind, payload, applier.instance())
        }
    }
}

fn lock(applier: &Mutex<Applier>) -> MutexGuard<'_, Applier> {
    applier.lock().unwrap_or_else(PoisonError::into_inner)
}
