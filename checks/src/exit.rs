//! Exit traffic leaves through a proxy or not at all: what `tunnel/exit` may name, and the states of its setting.

use crate::Violation;
use crate::paths::named;
use crate::sans_io::{breaches, hidden};
use crate::source::Source;

/// The crate that carries exit traffic.
const EXIT: &str = "tunnel/exit";
/// Its one module that makes sockets, which are marked there before they are given a peer.
const SOCKETS: &str = "tunnel/exit/src/dial/socket.rs";
/// Where the setting is.
const EGRESS: &str = "tunnel/exit/src/dial/egress.rs";
/// All states of the setting. Another one would be a way past the proxy.
const EGRESS_STATES: [&str; 2] = ["Closed", "Proxies"];

/// What makes a socket, or gives an existing one another peer.
const SOCKET_MAKERS: &[(&str, &str)] = &[
    ("std::net::TcpStream", "sockets are made in dial/socket.rs only"),
    ("std::net::TcpListener", "the exit listens nowhere"),
    ("std::net::UdpSocket", "sockets are made in dial/socket.rs only"),
    ("tokio::net::TcpSocket", "sockets are made in dial/socket.rs only"),
    ("tokio::net::TcpStream::connect", "sockets are made in dial/socket.rs only"),
    ("tokio::net::TcpStream::from_std", "sockets are made in dial/socket.rs only"),
    ("tokio::net::UdpSocket", "sockets are made in dial/socket.rs only"),
    ("socket2", "sockets are made in dial/socket.rs only"),
];

/// What the crate names nowhere.
const NEVER: &[(&str, &str)] = &[
    ("tokio::net::TcpListener", "the exit listens nowhere"),
    ("tokio::net::UnixStream", "the exit talks to proxies only"),
    ("tokio::net::UnixDatagram", "the exit talks to proxies only"),
    ("tokio::net::unix", "the exit talks to proxies only"),
    ("std::os::unix::net", "the exit talks to proxies only"),
    ("tokio::net::lookup_host", "names of proxies are resolved by platform/net, and no others at all"),
    ("std::net::ToSocketAddrs", "names of proxies are resolved by platform/net, and no others at all"),
    ("tokio::net::ToSocketAddrs", "names of proxies are resolved by platform/net, and no others at all"),
    ("tsrs_platform_net::Dial", "platform/net connects from this host's own address"),
    ("tsrs_platform_net::HttpRequest", "platform/net connects from this host's own address"),
    ("tsrs_platform_net::Proxies", "proxies of the environment never carry exit traffic"),
    ("tsrs_platform_net::connect_tunnel", "a proxy is given addresses only, by the crate's own handshake"),
    ("tsrs_platform_api::SocketBinder", "exit sockets carry the exit mark"),
    ("std::net::Ipv6Addr", "exit traffic is IPv4"),
    ("std::net::SocketAddrV6", "exit traffic is IPv4"),
    ("std::net::IpAddr", "exit traffic is IPv4: use Ipv4Addr"),
    ("std::net::SocketAddr", "exit traffic is IPv4: use SocketAddrV4"),
    ("socket2::Domain::IPV6", "exit traffic is IPv4"),
    ("tokio::net::TcpSocket::new_v6", "exit traffic is IPv4"),
    ("std::process", "the exit starts no programs"),
    ("tokio::process", "the exit starts no programs"),
    ("std::os::fd::FromRawFd", "borrow a descriptor or own it"),
    ("std::os::fd::RawFd", "borrow a descriptor or own it"),
    ("nix", "sockets are made with socket2 and tokio, in dial/socket.rs"),
    ("libc", "sockets are made with socket2 and tokio, in dial/socket.rs"),
    ("rustix", "sockets are made with socket2 and tokio, in dial/socket.rs"),
];

pub(crate) fn check(sources: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for source in sources.iter().filter(|source| source.krate == EXIT && !source.test_only) {
        let named = named(&source.tree);
        violations.extend(breaches(&source.path, &named, NEVER));
        violations.extend(hidden(&source.path, &named));
        if source.path != SOCKETS {
            violations.extend(breaches(&source.path, &named, SOCKET_MAKERS));
        }
    }
    violations.extend(egress(sources));
    violations
}

/// The setting has its two states, and there is only one such setting.
fn egress(sources: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut seen = false;
    for source in sources.iter().filter(|source| !source.test_only) {
        for item in &source.tree.items {
            let syn::Item::Enum(item) = item else { continue };
            if item.ident != "Egress" {
                continue;
            }
            let states: Vec<String> = item.variants.iter().map(|state| state.ident.to_string()).collect();
            if source.path != EGRESS {
                violations.push(format!("{}: a second enum Egress; use the one of {EGRESS}", source.path));
            } else if states != EGRESS_STATES {
                violations.push(format!(
                    "{EGRESS}: Egress has the states {states:?}; traffic goes to proxies or nowhere: {EGRESS_STATES:?}"
                ));
            }
            seen |= source.path == EGRESS;
        }
    }
    if !seen && sources.iter().any(|source| source.krate == EXIT) {
        violations.push(format!("{EGRESS}: the enum Egress is not there"));
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        let krate = path.split("/src/").next().unwrap().to_owned();
        Source { krate, path: path.into(), tree: syn::parse_file(text).unwrap(), test_only: false }
    }

    fn violations(path: &str, text: &str) -> Vec<Violation> {
        check(&[source(path, text), source(EGRESS, "pub enum Egress { Closed, Proxies(ProxyList) }")])
    }

    #[test]
    fn ways_to_a_socket_are_found_however_they_are_written() {
        for text in [
            "fn f() { tokio::net::TcpStream::connect(a); }",
            "use tokio::net::TcpStream; fn f() { TcpStream::connect(a); }",
            "use tokio::net::TcpStream as Quiet; fn f() { Quiet::connect(a); }",
            "use tokio::net as quiet; fn f() { quiet::TcpStream::connect(a); }",
            "use tokio::{self as quiet}; fn f() { quiet::net::TcpStream::connect(a); }",
            "type Quiet = tokio::net::TcpStream; fn f() { Quiet::connect(a); }",
            "fn f() { <tokio::net::TcpStream>::connect(a); }",
            "use tokio::net::*;",
            "pub use tokio::net::TcpSocket;",
            "mod inner { use std::net::TcpStream; }",
            "fn f() { use std::net::UdpSocket; }",
            "fn f() { inner! { std::net::TcpStream::connect(a) } }",
            "fn f() { ::std::net::TcpStream::connect(a); }",
            "include!(\"hidden.rs\");",
            "#[path = \"hidden.rs\"] mod hidden;",
            "extern crate socket2 as quiet;",
            "extern \"C\" { fn connect(); }",
            "use socket2::{Domain, Socket, Type};",
            "use nix::sys::socket::connect;",
            "use libc::connect;",
            "use tsrs_platform_net::{Dial, Net};",
            "use tsrs_platform_net::Proxies;",
            "use std::net::SocketAddr;",
            "use std::net::{Ipv4Addr, Ipv6Addr};",
            "use std::process::Command;",
            "async fn f() { tokio::net::lookup_host(a).await; }",
        ] {
            assert!(!violations("tunnel/exit/src/relay.rs", text).is_empty(), "{text}");
        }
        for text in [
            "use tokio::net::TcpStream; struct A(TcpStream);",
            "use std::net::{Ipv4Addr, SocketAddrV4};",
            "use tsrs_platform_net::{Net, Prefixed, TlsConnection, Verify};",
            "#[cfg(test)] mod tests { use tokio::net::UdpSocket; }",
        ] {
            assert_eq!(violations("tunnel/exit/src/relay.rs", text), Vec::<Violation>::new(), "{text}");
        }
    }

    #[test]
    fn the_module_that_makes_sockets_makes_no_ipv6_ones() {
        let text =
            "fn f() { tokio::net::TcpSocket::new_v4(); socket2::Socket::new(socket2::Domain::IPV4, t, n); }";
        assert!(violations(SOCKETS, text).is_empty());
        for text in [
            "fn f() { tokio::net::TcpSocket::new_v6(); }",
            "use socket2::Domain; const A: Domain = Domain::IPV6;",
        ] {
            assert_eq!(violations(SOCKETS, text).len(), 1, "{text}");
        }
    }

    #[test]
    fn the_setting_has_no_other_state() {
        for text in [
            "pub enum Egress { Closed, Proxies(ProxyList), Direct }",
            "pub enum Egress { Direct, Proxies(ProxyList) }",
            "pub enum Egress { Proxies(ProxyList) }",
            "pub struct Egress;",
        ] {
            assert_eq!(check(&[source(EGRESS, text)]).len(), 1, "{text}");
        }
        assert_eq!(violations("agent/core/src/exit.rs", "enum Egress { Direct }").len(), 1);
    }
}
