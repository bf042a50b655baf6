//! Watches interfaces, addresses, the default route, and sleep.
//!
//! The thread sleeps in `poll`, without any timer of its own, until the kernel tells of a change; it then waits a
//! moment for the rest of the burst and reads the state anew. Waking up from sleep is told by a timer that is never due but is
//! cancelled when the wall clock jumps, as it does on resume; how long the host slept is the growth of the distance
//! between the clock that counts sleep (`CLOCK_BOOTTIME`) and the one that does not (`CLOCK_MONOTONIC`).

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::time::{TimeSpec, TimeValLike};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tsrs_platform_api::{
    Change, DefaultRoute, EventSink, Instance, Interface, LinkEvent, LinkMonitor, LinkState, PlatformError,
    PlatformEvent, Result,
};

use crate::netlink::{Event, NetlinkError, Socket, Subscription};
use crate::rtnl::{self, Address, Link, Route, RouteKind, group, kind};
use crate::stop::{Stop, StopHandle};

/// Events of one cause (a cable, a lease, a bridge with its ports) are reported together.
const SETTLE: Duration = Duration::from_millis(250);
/// Growth of the distance between the clocks that counts as sleep. Reading them one after the other differs by
/// microseconds.
const SLEEP_MIN: Duration = Duration::from_secs(1);

/// Tables of the host in which the way to the internet is looked for.
const HOST_TABLES: [u32; 2] = [254, 253];

/// Watches the host's links.
#[derive(Debug)]
pub struct LinuxLinkMonitor {
    state: Arc<Mutex<Arc<LinkState>>>,
    _stop: StopHandle,
}

impl LinuxLinkMonitor {
    /// Starts watching. Interfaces of agents (this one's TUN and the usual names of the other instances) are left out.
    pub fn start(tun: &str, sink: EventSink) -> Result<Self> {
        Self::try_start(tun, sink).map_err(|cause| PlatformError::new("watch the network interfaces", cause))
    }

    fn try_start(tun: &str, sink: EventSink) -> io::Result<Self> {
        let groups = group::LINK | group::IPV4_ADDRESS | group::IPV6_ADDRESS | group::IPV4_ROUTE;
        let events = Subscription::route(groups)?;
        let mut reader = Reader {
            socket: Socket::route()?,
            own: Instance::all().map(Instance::tun_name).chain([tun.to_owned()]).collect(),
            own_indexes: Vec::new(),
        };
        let state = Arc::new(Mutex::new(Arc::new(reader.read()?)));
        let (stop, handle) = Stop::new()?;
        let watch = Watch {
            reader,
            events,
            state: Arc::clone(&state),
            sink,
            clock_jump: clock_jump_timer()?,
            slept_before: time_asleep()?,
            due: None,
        };
        let thread = std::thread::Builder::new().name("link-monitor".into());
        Ok(Self { state, _stop: handle.joining(thread.spawn(move || watch.run(&stop))?) })
    }
}

impl LinkMonitor for LinuxLinkMonitor {
    fn state(&self) -> Arc<LinkState> {
        Arc::clone(&self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Debug)]
struct Watch {
    reader: Reader,
    events: Subscription,
    state: Arc<Mutex<Arc<LinkState>>>,
    sink: EventSink,
    clock_jump: TimerFd,
    slept_before: Duration,
    due: Option<Instant>,
}

impl Watch {
    fn run(mut self, stop: &Stop) {
        loop {
            match self.step(stop) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::error!(%error, "network changes are no longer noticed");
                    return;
                }
            }
        }
    }

    /// Waits for something and reacts; false when the watch ends.
    fn step(&mut self, stop: &Stop) -> io::Result<bool> {
        let timeout = self.due.map_or(PollTimeout::NONE, |due| {
            let left = due.saturating_duration_since(Instant::now());
            // One millisecond more, so that rounding down does not make this spin.
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = [
            PollFd::new(self.events.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.clock_jump.as_fd(), PollFlags::POLLIN),
            PollFd::new(stop.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let [changed, jumped, stopped] = fds.map(|fd| fd.any().unwrap_or(false));
        if stopped {
            return Ok(false);
        }
        if jumped {
            // Reading takes the cancellation away; the timer stays armed for the next one.
            let _ = self.clock_jump.wait();
        }
        let mut relevant = false;
        if changed {
            let reader = &self.reader;
            self.events.drain(|event| relevant |= reader.is_relevant(event))?;
        }
        if relevant || jumped {
            self.due.get_or_insert_with(|| Instant::now() + SETTLE);
        }
        if self.due.is_some_and(|due| due <= Instant::now()) {
            self.due = None;
            self.report()?;
        }
        Ok(true)
    }

    fn report(&mut self) -> io::Result<()> {
        let asleep = time_asleep()?;
        let slept = asleep.checked_sub(self.slept_before).filter(|slept| *slept >= SLEEP_MIN);
        self.slept_before = asleep;
        let now = Arc::new(self.reader.read()?);
        let before = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *state, Arc::clone(&now))
        };
        let change = if slept.is_some() { Some(Change::Major) } else { now.change_since(&before) };
        if let Some(change) = change {
            tracing::debug!(?change, ?slept, "links changed");
            self.sink.tell(PlatformEvent::Link(LinkEvent { state: now, change, slept }));
        }
        Ok(())
    }
}

/// Reads the state of the links.
#[derive(Debug)]
struct Reader {
    socket: Socket,
    /// Names of interfaces that are left out.
    own: Vec<String>,
    /// Their numbers, as far as they exist.
    own_indexes: Vec<u32>,
}

impl Reader {
    fn read(&mut self) -> std::result::Result<LinkState, NetlinkError> {
        let links = rtnl::links(&mut self.socket)?;
        let addresses = rtnl::addresses(&mut self.socket)?;
        let mut routes = Vec::new();
        for table in HOST_TABLES {
            routes.extend(rtnl::routes(&mut self.socket, table)?.into_iter().filter(is_default));
        }
        let (own, others) = links.into_iter().partition::<Vec<_>, _>(|link| self.own.contains(&link.name));
        self.own_indexes = own.iter().map(|link| link.index).collect();
        Ok(link_state(&others, &addresses, &routes))
    }

    /// Whether an event can change the state. Our own routes come by the thousand.
    fn is_relevant(&self, event: Event<'_>) -> bool {
        let Event::Message { kind, payload, .. } = event else { return true };
        match kind {
            kind::NEW_ROUTE | kind::DEL_ROUTE => Route::parse(payload)
                .is_some_and(|route| HOST_TABLES.contains(&route.table) && is_default(&route)),
            kind::NEW_ADDRESS | kind::DEL_ADDRESS => {
                Address::parse(payload).is_some_and(|address| !self.own_indexes.contains(&address.index))
            }
            kind::NEW_LINK | kind::DEL_LINK => {
                Link::parse(payload).is_some_and(|link| !self.own.contains(&link.name))
            }
            _ => false,
        }
    }
}

fn is_default(route: &Route) -> bool {
    route.destination.prefix_len() == 0 && route.kind == RouteKind::Unicast
}

/// The state that these tables describe. Pure.
fn link_state(links: &[Link], addresses: &[Address], routes: &[Route]) -> LinkState {
    let mut interfaces: Vec<Interface> = links
        .iter()
        .map(|link| {
            let mut own: Vec<_> = addresses
                .iter()
                .filter(|address| address.index == link.index)
                .map(|address| address.net)
                .collect();
            own.sort_unstable();
            Interface {
                index: link.index,
                name: link.name.clone(),
                up: link.running,
                loopback: link.loopback,
                addresses: own,
            }
        })
        .collect();
    interfaces.sort_unstable_by_key(|interface| interface.index);
    let usable = |route: &&Route| {
        interfaces.iter().any(|interface| interface.up && Some(interface.index) == route.out_interface)
    };
    // The kernel takes the lowest priority number; of equal ones the first.
    let best = routes.iter().filter(usable).min_by_key(|route| route.priority);
    let default_route = best.and_then(|route| {
        let interface = interfaces.iter().find(|interface| Some(interface.index) == route.out_interface)?;
        Some(DefaultRoute {
            index: interface.index,
            interface: interface.name.clone(),
            gateway: route.gateway,
        })
    });
    LinkState { interfaces, default_route }
}

/// How long the host has slept since it was started.
fn time_asleep() -> io::Result<Duration> {
    use nix::time::{ClockId, clock_gettime};
    let with_sleep = clock_gettime(ClockId::CLOCK_BOOTTIME)?;
    let without = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(Duration::from(with_sleep).saturating_sub(without.into()))
}

/// Readable when the wall clock was set, as on resume.
fn clock_jump_timer() -> io::Result<TimerFd> {
    let timer = TimerFd::new(ClockId::CLOCK_REALTIME, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
    let never = TimeSpec::seconds(u32::MAX.into());
    let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
    timer.set(Expiration::OneShot(never), flags)?;
    Ok(timer)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::mpsc;

    use tsrs_platform_api::TunConfig;

    use super::*;
    use crate::testing::{WAIT_LIMIT, isolated, sh, veth};

    fn start() -> (LinuxLinkMonitor, mpsc::Receiver<LinkEvent>) {
        let (sender, events) = mpsc::channel();
        let sink = EventSink::new(move |event| {
            if let PlatformEvent::Link(event) = event {
                let _ = sender.send(event);
            }
        });
        (LinuxLinkMonitor::start("tailscale0", sink).unwrap(), events)
    }

    fn next(events: &mpsc::Receiver<LinkEvent>) -> LinkEvent {
        events.recv_timeout(WAIT_LIMIT).unwrap()
    }

    #[test]
    fn the_state_names_interfaces_addresses_and_the_default_route() {
        isolated(|| {
            veth("eth0", "192.0.2.7/24");
            veth("eth1", "10.9.0.1/16");
            sh("ip route add default via 10.9.0.254 dev eth1 metric 200");
            sh("ip route add default via 192.0.2.1 dev eth0 metric 100");
            let (monitor, _events) = start();
            let state = monitor.state();
            let default = state.default_route.clone().unwrap();
            assert_eq!(
                (default.interface.as_str(), default.gateway),
                ("eth0", Some(Ipv4Addr::new(192, 0, 2, 1)))
            );
            let mut local: Vec<String> = state.local_addresses().map(|address| address.to_string()).collect();
            local.sort();
            assert_eq!(local, ["10.9.0.1", "192.0.2.7"]);
            assert!(state.any_up());
        });
    }

    #[test]
    fn a_new_uplink_is_major_and_another_address_minor() {
        isolated(|| {
            veth("eth0", "192.0.2.7/24");
            veth("eth1", "10.9.0.1/24");
            let (_monitor, events) = start();
            sh("ip route add default via 192.0.2.1 dev eth0");
            let event = next(&events);
            assert_eq!(event.change, Change::Major);
            assert_eq!(event.state.default_route.as_ref().unwrap().interface, "eth0");
            sh("ip addr add 10.9.0.2/24 dev eth1");
            let event = next(&events);
            assert_eq!((event.change, event.slept), (Change::Minor, None));
            sh("ip link set eth0p down");
            assert_eq!(next(&events).change, Change::Major, "no carrier");
        });
    }

    #[test]
    fn our_own_device_and_table_are_not_seen() {
        isolated(|| {
            veth("eth0", "192.0.2.7/24");
            let (monitor, events) = start();
            let config =
                TunConfig { address: Some(Ipv4Addr::new(100, 64, 0, 1)), ..TunConfig::new("tailscale0") };
            let _device = crate::tun::create(&config).unwrap();
            sh("ip route add 100.64.0.2 dev tailscale0 table 52");
            sh("ip route add 203.0.113.0/24 dev eth0");
            sh("ip addr add 192.0.2.8/24 dev eth0");
            let event = next(&events);
            assert_eq!(event.state.local_addresses().count(), 2);
            assert!(event.state.interfaces.iter().all(|interface| interface.name != "tailscale0"));
            assert_eq!(*monitor.state(), *event.state);
            assert!(events.try_recv().is_err());
        });
    }

    #[test]
    fn routes_over_dead_links_do_not_count() {
        let link = |index, running| Link {
            index,
            name: format!("eth{index}"),
            mtu: 1500,
            admin_up: true,
            running,
            loopback: false,
        };
        let default = |index, priority| Route {
            priority,
            ..Route::into_interface(254, "0.0.0.0/0".parse().unwrap(), index)
        };
        let links = [link(1, false), link(2, true), link(3, true)];
        let state =
            link_state(&links, &[], &[default(1, 0), default(3, 300), default(2, 200), default(9, 0)]);
        assert_eq!(state.default_route.unwrap().interface, "eth2");
        assert_eq!(link_state(&links[..1], &[], &[default(1, 0)]).default_route, None);
    }

    #[test]
    fn the_time_asleep_does_not_shrink() {
        let before = time_asleep().unwrap();
        assert!(time_asleep().unwrap() + SLEEP_MIN > before);
        assert!(clock_jump_timer().is_ok());
    }
}
