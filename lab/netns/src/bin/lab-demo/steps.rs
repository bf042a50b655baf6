//! The steps, each with evidence from outside the programs that are shown.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tsrs_lab_netns::traffic::TransferReport;
use tsrs_lab_netns::{Impairment, Nat, Net, Node, Server, wait};

use crate::report::Report;

/// Time for something that takes a handful of round trips and a timer or two.
const SOON: Duration = Duration::from_secs(60);
/// Bytes each way of the transfer that shows the rate.
const TRANSFER_BYTES: u64 = 64 << 20;
/// Bytes each way of the transfer during which UDP is blocked.
const LONG_TRANSFER_BYTES: u64 = 8 << 20;
/// Rate of host a's line meanwhile, so that the transfer is under way when UDP is blocked.
const SLOW_BYTES_PER_SEC: u64 = 3 << 19;
/// When UDP is blocked after the start of that transfer.
const BLOCK_AFTER: Duration = Duration::from_secs(3);
/// The service address for DNS.
const MAGIC_DNS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(100, 100, 100, 100)), 53);
/// Port that the policy leaves open.
const OPEN_PORT: u16 = 7100;
/// Port that the policy closes.
const CLOSED_PORT: u16 = 7200;
/// Port of the transfers.
const TRANSFER_PORT: u16 = 7000;

/// Runs all steps; the first that fails ends them.
pub(crate) fn run(
    net: &Net,
    server: &Server<'_>,
    key: &str,
    nodes: &mut [Node<'_>],
    report: &mut Report,
) -> Result<()> {
    report.step("Login with an auth key", |report| login(server, key, nodes, report))?;
    let addresses = nodes.iter().map(Node::ipv4).collect::<Result<Vec<_>>>()?;
    report.step("Ping, every host to every other", |report| pings(nodes, &addresses, report))?;
    report.step("A direct path through both routers", |report| direct(nodes, &addresses, report))?;
    report.step("A TCP transfer", |report| transfers(net, nodes, &addresses, report))?;
    report.step("MagicDNS names", |report| names(nodes, &addresses, report))?;
    report.step("A port that the policy denies", |report| policy(net, server, &addresses, report))?;
    report.step("UDP blocked in the middle of a transfer", |report| relay(net, nodes, &addresses, report))?;
    report.step("A restart keeps the address", |report| restart(nodes, &addresses, report))
}

fn login(server: &Server<'_>, key: &str, nodes: &[Node<'_>], report: &mut Report) -> Result<()> {
    for node in nodes {
        let start = Instant::now();
        node.up(server, key)?;
        let (name, kind) = (node.host().name(), node.name());
        let (inner, outer) = (node.ipv4()?, node.host().address());
        report.show(&format!(
            "{name} ({kind}, {outer}) joined as {inner} in {:.1} s",
            start.elapsed().as_secs_f64()
        ));
    }
    for node in nodes {
        node.wait_peers(nodes.len() - 1, SOON)?;
    }
    report.show(&nodes.first().context("no node")?.cli(&["status"])?);
    Ok(())
}

fn pings(nodes: &[Node<'_>], addresses: &[Ipv4Addr], report: &mut Report) -> Result<()> {
    for node in nodes {
        for (other, address) in nodes.iter().zip(addresses) {
            if other.host().name() == node.host().name() {
                continue;
            }
            let answer = node.host().wait_ping(*address, SOON)?;
            let (from, to) = (node.host().name(), other.host().name());
            report.show(&format!("{from} -> {to} {address}: {:.2?}", answer.best().unwrap_or_default()));
        }
    }
    Ok(())
}

fn direct(nodes: &[Node<'_>], addresses: &[Ipv4Addr], report: &mut Report) -> Result<()> {
    let [a, ..] = nodes else { bail!("no node") };
    for (node, address) in nodes.iter().zip(addresses).skip(1) {
        let said = a.ping_direct(*address).with_context(|| format!("a to {}", node.host().name()))?;
        report.show(&format!("a: {said}"));
    }
    Ok(())
}

fn transfers(net: &Net, nodes: &[Node<'_>], addresses: &[Ipv4Addr], report: &mut Report) -> Result<()> {
    for (node, address) in nodes.iter().zip(addresses).skip(1) {
        let server = node.host().tcp_server((*address, TRANSFER_PORT).into())?;
        let result = net.host("a").tcp_transfer(server.address(), TRANSFER_BYTES, SOON)?;
        report.show(&transfer_line(&format!("a <-> {} ({})", node.host().name(), node.name()), &result));
    }
    Ok(())
}

fn transfer_line(what: &str, result: &TransferReport) -> String {
    format!(
        "{what}: {} MiB each way, {:.0} Mbit/s up, {:.0} Mbit/s down\n  SHA-256 up   {} at both ends\n  SHA-256 down {} at both ends",
        result.bytes >> 20,
        result.up_bits_per_sec() / 1e6,
        result.down_bits_per_sec() / 1e6,
        result.up_sha256,
        result.down_sha256
    )
}

fn names(nodes: &[Node<'_>], addresses: &[Ipv4Addr], report: &mut Report) -> Result<()> {
    let [a, ..] = nodes else { bail!("no node") };
    for (node, address) in nodes.iter().zip(addresses).skip(1) {
        let name = node.host().name();
        let full = format!("{name}.lab.test");
        let answer = a.host().dns_query(MAGIC_DNS, &full, SOON)?;
        if answer.addresses != [*address] {
            bail!("{full} is {answer:?}, not {address}");
        }
        let short = wait::until_ok("the short name resolves", SOON, || a.host().resolve(name))?;
        report.show(&format!(
            "{full} = {address} from {MAGIC_DNS}; programs on a resolve {name:?} to {short:?}"
        ));
    }
    Ok(())
}

fn policy(net: &Net, server: &Server<'_>, addresses: &[Ipv4Addr], report: &mut Report) -> Result<()> {
    let [_, b, ..] = addresses else { bail!("no second node") };
    let open = net.host("b").tcp_server((*b, OPEN_PORT).into())?;
    let closed = net.host("b").tcp_server((*b, CLOSED_PORT).into())?;
    let connects = |server: SocketAddr| net.host("a").tcp_connects(server, Duration::from_secs(1));
    let becomes = |what: &str, wanted: bool| {
        wait::until(what, SOON, || (connects(closed.address()) == wanted).then_some(()))
    };
    becomes("the port is open at first", true)?;
    report.show(&format!("a reaches ports {OPEN_PORT} and {CLOSED_PORT} of b"));
    server.allow_only(&[&format!("tcp:{OPEN_PORT}"), "icmp:*"])?;
    becomes("the policy closes the port", false)?;
    if !connects(open.address()) {
        bail!("the open port is closed too");
    }
    report.show(&format!("policy changed: a still reaches {OPEN_PORT}, no longer {CLOSED_PORT}"));
    server.allow_all()?;
    becomes("the policy opens the port again", true)?;
    report.show(&format!("policy back: a reaches {CLOSED_PORT} again"));
    Ok(())
}

fn relay(net: &Net, nodes: &[Node<'_>], addresses: &[Ipv4Addr], report: &mut Report) -> Result<()> {
    let ([a, ..], [_, b, ..]) = (nodes, addresses) else { bail!("no second node") };
    let server = net.host("b").tcp_server((*b, TRANSFER_PORT).into())?;
    net.impair("a", Impairment { rate: Some(SLOW_BYTES_PER_SEC), ..Impairment::default() })?;
    let address = server.address();
    let transfer = net.host("a").space().thread("demo-transfer", move || {
        tsrs_lab_netns::traffic::tcp_transfer(address, LONG_TRANSFER_BYTES, SOON)
    })?;
    std::thread::sleep(BLOCK_AFTER);
    for router in ["ra", "rb"] {
        net.router(router).set_nat(Nat::UdpBlocked)?;
    }
    report.show(&format!("{} s into a transfer, the routers of a and b drop UDP", BLOCK_AFTER.as_secs()));
    let said = wait::until_ok("pings go over the relay", SOON, || a.ping_relayed(*b))?;
    report.show(&format!("a: {said}"));
    let result = transfer.join().map_err(|_| anyhow::anyhow!("the transfer panicked"))??;
    report.show(&transfer_line("the same TCP connection went on over the relay", &result));
    net.unimpair("a");
    for router in ["ra", "rb"] {
        net.router(router).set_nat(Nat::Easy)?;
    }
    report.show(&format!("UDP is let through again; a: {}", a.ping_direct(*b)?));
    Ok(())
}

fn restart(nodes: &mut [Node<'_>], addresses: &[Ipv4Addr], report: &mut Report) -> Result<()> {
    let ([a, ..], [before, b, ..]) = (nodes, addresses) else { bail!("no second node") };
    a.restart()?;
    let after = wait::until_ok("the address is back", SOON, || a.ipv4())?;
    if after != *before {
        bail!("a had {before} and now has {after}");
    }
    let answer = a.host().wait_ping(*b, SOON)?;
    report.show(&format!(
        "a is back as {after} without a new login; ping to b {:.2?}",
        answer.best().unwrap_or_default()
    ));
    Ok(())
}
