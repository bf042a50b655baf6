//! Carries the difference between two states out.

use std::io;
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use tsrs_platform_api::{Instance, PlatformError, Result, RouterConfig};

use crate::netlink::{Failure, Message, NetlinkError, Socket};
use crate::nft::Firewall;
use crate::router::model::{Model, Steps, Way};
use crate::rtnl::{self, LinkChange, ROUTE_PROTOCOL, Route, RouteKind, Rule};

/// Knows what it has applied, and changes the kernel.
#[derive(Debug)]
pub(super) struct Applier {
    instance: Instance,
    tun: String,
    tun_index: u32,
    /// MTU to go back to.
    found_mtu: u32,
    socket: Socket,
    firewall: Firewall,
    applied: Model,
    /// What shall be; equal to `applied` unless a step failed.
    wanted: Model,
    /// Foreign chains that refused our rule.
    refused: Vec<String>,
}

/// What a repair found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Damage {
    actual: Model,
    /// What is missing, in one word.
    pub(super) what: &'static str,
}

impl Applier {
    pub(super) fn new(instance: Instance, tun: &str, tun_index: u32) -> io::Result<Self> {
        let mut socket = Socket::route()?;
        let link = rtnl::link(&mut socket, tun_index)?.ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("interface {tun} does not exist"))
        })?;
        Ok(Self {
            instance,
            tun: tun.to_owned(),
            tun_index,
            found_mtu: link.mtu,
            socket,
            firewall: Firewall::new(instance),
            applied: Model::default(),
            wanted: Model::default(),
            refused: Vec::new(),
        })
    }

    /// Whether a notification names this applier as its cause, by its port.
    pub(super) fn caused(&self, port: u32) -> bool {
        port == self.socket.port() || Some(port) == self.firewall.port()
    }

    pub(super) fn instance(&self) -> Instance {
        self.instance
    }

    pub(super) fn tun_index(&self) -> u32 {
        self.tun_index
    }

    /// Prefixes on-link on the host's own interfaces.
    pub(super) fn on_link(&mut self) -> Result<Vec<Ipv4Net>> {
        let own = self.tun_index;
        let listed = (|| {
            let links = rtnl::links(&mut self.socket)?;
            let usable = |index| {
                links.iter().any(|link| link.index == index && link.running && !link.loopback && index != own)
            };
            let addresses = rtnl::addresses(&mut self.socket)?;
            Ok(addresses.into_iter().filter(|address| usable(address.index)).collect::<Vec<_>>())
        })();
        let addresses = listed.map_err(|error: NetlinkError| failed("list interface addresses", error))?;
        Ok(addresses
            .into_iter()
            .filter_map(|address| match address.net {
                IpNet::V4(net) => Some(net.trunc()),
                IpNet::V6(_) => None,
            })
            .collect())
    }

    pub(super) fn apply(&mut self, config: &RouterConfig) -> Result<()> {
        self.wanted = Model::new(&self.tun, config);
        self.advance()
    }

    pub(super) fn close(&mut self) -> Result<()> {
        self.wanted = Model::default();
        self.advance()
    }

    /// What of the wanted state is missing in the kernel. `firewall_touched`: somebody else changed our table or a
    /// chain that our rule stands in.
    pub(super) fn inspect(&mut self, firewall_touched: bool) -> Result<Option<Damage>> {
        if self.wanted == Model::default() {
            return Ok(None);
        }
        let actual =
            self.actual(firewall_touched).map_err(|error| failed("look for what is missing", error))?;
        let firewall = (&actual.firewall, actual.divert) != (&self.wanted.firewall, self.wanted.divert);
        let what = Steps::between(&actual, &self.wanted).what().or(firewall.then_some("firewall"));
        Ok(what.map(|what| Damage { actual, what }))
    }

    /// Puts back what is missing.
    pub(super) fn repair(&mut self, damage: Damage) -> Result<()> {
        if damage.actual.firewall.is_none() {
            self.firewall.distrust();
        }
        self.applied = damage.actual;
        self.advance()
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        let refused = self.refused.iter();
        let mut warnings: Vec<String> = refused
            .map(|chain| format!("a firewall chain drops by policy and refused our accept rule: {chain}"))
            .collect();
        if self.applied.divert && legacy_filter_in_use() {
            warnings.push(
                "iptables-legacy filters this host and cannot be opened by netlink: if its INPUT or FORWARD policy is \
                 DROP, accept packets with the forward mark there, or move to iptables-nft"
                    .to_owned(),
            );
        }
        warnings
    }

    /// What the kernel holds of ours now.
    fn actual(&mut self, firewall_touched: bool) -> std::result::Result<Model, NetlinkError> {
        let Some(link) = rtnl::link(&mut self.socket, self.tun_index)? else {
            return Err(NetlinkError { errno: libc::ENODEV, text: format!("{} is gone", self.tun) });
        };
        let addresses = rtnl::addresses(&mut self.socket)?
            .into_iter()
            .filter(|address| address.index == self.tun_index)
            .filter_map(|address| match address.net {
                IpNet::V4(net) => Some(net.addr()),
                IpNet::V6(_) => None,
            });
        let addresses = addresses.collect();
        let rules = rtnl::rules(&mut self.socket)?;
        let routes = rtnl::routes(&mut self.socket, self.instance.table())?;
        Ok(Model {
            up: link.admin_up,
            mtu: Some(u16::try_from(link.mtu).unwrap_or(u16::MAX)),
            addresses,
            routes: routes.iter().filter_map(|route| self.way_of(route)).collect(),
            rules: Rule::of_instance(self.instance)
                .iter()
                .all(|own| rules.iter().any(|rule| rule.same_effect(own))),
            firewall: if firewall_touched { None } else { self.applied.firewall.clone() },
            divert: !firewall_touched && self.applied.divert,
        })
    }

    fn way_of(&self, route: &Route) -> Option<(Ipv4Net, Way)> {
        let way = match route.kind {
            RouteKind::Unicast if route.out_interface == Some(self.tun_index) => Way::Tunnel,
            RouteKind::Throw => Way::Throw,
            RouteKind::Unicast | RouteKind::Other(_) => return None,
        };
        (route.protocol == ROUTE_PROTOCOL).then_some((route.destination, way))
    }

    /// Goes from the applied to the wanted state: takes away first, then sets the firewall, gives last. What was given
    /// is only given behind a firewall that stands.
    fn advance(&mut self) -> Result<()> {
        let steps = Steps::between(&self.applied, &self.wanted);
        let mut errors = Errors::default();
        self.take(&steps, &mut errors);
        match self.set_firewall() {
            // Taking can take more than was asked for.
            Ok(()) => self.give(&Steps::between(&self.applied, &self.wanted), &mut errors),
            Err(error) => errors.note(error),
        }
        errors.outcome()
    }

    fn take(&mut self, steps: &Steps, errors: &mut Errors) {
        if steps.remove_rules {
            let rules = Rule::of_instance(self.instance);
            let messages = rules.iter().map(Rule::remove).collect();
            let failures = self.requests("remove policy rules", messages, is_gone, errors);
            self.applied.rules = failures.is_none_or(|failures| !failures.is_empty());
        }
        if steps.set_down {
            let down = LinkChange { up: Some(false), ..LinkChange::default() };
            if self.change_link("set the interface down", down, errors) {
                self.applied.up = false;
            }
        }
        let messages =
            steps.remove_routes.iter().map(|(prefix, way)| self.route(*prefix, *way).remove()).collect();
        if let Some(failures) = self.requests("remove routes", messages, is_gone, errors) {
            let removed = without(&steps.remove_routes, &failures);
            removed.for_each(|(prefix, _)| _ = self.applied.routes.remove(prefix));
        }
        let remove = |address: &Ipv4Addr| rtnl::remove_host(self.tun_index, *address);
        let messages = steps.remove_addresses.iter().map(remove).collect();
        if let Some(failures) = self.requests("remove addresses", messages, is_gone, errors) {
            without(&steps.remove_addresses, &failures)
                .for_each(|address| _ = self.applied.addresses.remove(address));
            if !steps.remove_addresses.is_empty() && self.applied.addresses.is_empty() {
                // The kernel drops the routes of an interface with its last address.
                self.applied.routes.retain(|_, way| *way != Way::Tunnel);
            }
        }
    }

    /// Sets table and foreign rule. Our table stands before the rule does, and goes after it.
    fn set_firewall(&mut self) -> Result<()> {
        let next = "use --netfilter-mode=off to do without a firewall of the agent's own";
        if self.applied.divert && !self.wanted.divert {
            self.firewall.undivert().map_err(|error| failed("remove our rule from other tables", error))?;
            self.applied.divert = false;
            self.refused.clear();
        }
        if self.applied.firewall != self.wanted.firewall {
            self.firewall
                .apply(self.wanted.firewall.as_ref())
                .map_err(|error| failed("set the nftables table", error).with_next(next))?;
            self.applied.firewall.clone_from(&self.wanted.firewall);
        }
        if self.wanted.divert && !self.applied.divert {
            self.refused = self
                .firewall
                .divert()
                .map_err(|error| failed("add our rule to other tables", error).with_next(next))?;
            self.applied.divert = true;
        }
        Ok(())
    }

    fn give(&mut self, steps: &Steps, errors: &mut Errors) {
        if let Some(mtu) = steps.set_mtu {
            let bytes = mtu.unwrap_or_else(|| u16::try_from(self.found_mtu).unwrap_or(u16::MAX));
            let change = LinkChange { mtu: Some(bytes), ..LinkChange::default() };
            if self.change_link("set the MTU", change, errors) {
                self.applied.mtu = mtu;
            }
        }
        let add = |address: &Ipv4Addr| rtnl::add_host(self.tun_index, *address);
        let messages = steps.add_addresses.iter().map(add).collect();
        if let Some(failures) = self.requests("add addresses", messages, exists, errors) {
            self.applied.addresses.extend(without(&steps.add_addresses, &failures));
        }
        if steps.set_up {
            let up = LinkChange { up: Some(true), ..LinkChange::default() };
            if self.change_link("set the interface up", up, errors) {
                self.applied.up = true;
            }
        }
        let messages = steps.add_routes.iter().map(|(prefix, way)| self.route(*prefix, *way).add()).collect();
        if let Some(failures) = self.requests("add routes", messages, never, errors) {
            self.applied.routes.extend(without(&steps.add_routes, &failures).copied());
        }
        if steps.add_rules {
            let rules = Rule::of_instance(self.instance);
            let messages = rules.iter().map(Rule::add).collect();
            let failures = self.requests("add policy rules", messages, exists, errors);
            self.applied.rules = failures.is_some_and(|failures| failures.is_empty());
        }
    }

    fn route(&self, prefix: Ipv4Net, way: Way) -> Route {
        match way {
            Way::Tunnel => Route::into_interface(self.instance.table(), prefix, self.tun_index),
            Way::Throw => Route::throw(self.instance.table(), prefix),
        }
    }

    fn change_link(&mut self, what: &str, change: LinkChange, errors: &mut Errors) -> bool {
        match rtnl::set_link(&mut self.socket, self.tun_index, change) {
            // A device that is gone has nothing left to restore.
            Err(NetlinkError { errno: libc::ENODEV, .. }) if !self.wanted.up => true,
            outcome => errors.check(what, outcome).is_some(),
        }
    }

    /// Sends requests and gives those that failed, apart from failures that mean "it is so already". `None`: nothing
    /// is known.
    fn requests(
        &mut self,
        what: &str,
        messages: Vec<Message>,
        harmless: fn(&NetlinkError) -> bool,
        errors: &mut Errors,
    ) -> Option<Vec<Failure>> {
        let mut failures = errors.check(what, self.socket.requests(messages))?;
        failures.retain(|failure| !harmless(&failure.error));
        if let Some(first) = failures.first() {
            errors.note(failed(what, first.error.clone()));
        }
        Some(failures)
    }
}

/// The items whose requests succeeded.
fn without<'a, T>(items: &'a [T], failures: &'a [Failure]) -> impl Iterator<Item = &'a T> {
    let failed = |index| failures.iter().any(|failure| failure.index == index);
    items.iter().enumerate().filter(move |(index, _)| !failed(*index)).map(|(_, item)| item)
}

fn is_gone(error: &NetlinkError) -> bool {
    matches!(error.errno, libc::ESRCH | libc::ENOENT | libc::EADDRNOTAVAIL | libc::ENODEV)
}

fn exists(error: &NetlinkError) -> bool {
    error.errno == libc::EEXIST
}

fn never(_: &NetlinkError) -> bool {
    false
}

/// Whether the kernel has a filter table of the older interface.
fn legacy_filter_in_use() -> bool {
    std::fs::read_to_string("/proc/thread-self/net/ip_tables_names")
        .is_ok_and(|names| names.lines().any(|name| name == "filter"))
}

fn failed(what: &str, error: NetlinkError) -> PlatformError {
    PlatformError::new(what, error.into())
        .with_next_if(io::ErrorKind::PermissionDenied, "run as root, or give the agent CAP_NET_ADMIN")
}

/// The first error of several steps; the others are logged.
#[derive(Debug, Default)]
struct Errors(Option<PlatformError>);

impl Errors {
    fn note(&mut self, error: PlatformError) {
        match self.0 {
            Some(_) => tracing::warn!(%error, "another step failed too"),
            None => self.0 = Some(error),
        }
    }

    fn check<T>(&mut self, what: &str, outcome: std::result::Result<T, NetlinkError>) -> Option<T> {
        outcome.map_err(|error| self.note(failed(what, error))).ok()
    }

    fn outcome(self) -> Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}
