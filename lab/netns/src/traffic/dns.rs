//! DNS (RFC 1035): questions for addresses, and a small server with a table, over UDP and TCP.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::IDLE;
use crate::space::Space;

const HEADER_LEN: usize = 12;
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const CLASS_IN: u16 = 1;
const NO_ERROR: u8 = 0;
const NAME_ERROR: u8 = 3;
/// Longest message over UDP that is read.
const MAX_MESSAGE_LEN: usize = 4096;
/// Time after which a question is asked again.
const RETRY: Duration = Duration::from_secs(1);
/// Seconds that an answer of the server is good for.
const TTL_SECS: u32 = 5;

/// An answer to a question for IPv4 addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsAnswer {
    /// 0 is no error, 3 is "no such name".
    pub code: u8,
    /// The addresses.
    pub addresses: Vec<Ipv4Addr>,
}

/// Asks a server for the IPv4 addresses of a name, again and again until it answers or `limit` has passed.
pub fn dns_query(server: SocketAddr, name: &str, limit: Duration) -> Result<DnsAnswer> {
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(server)?;
    let end = Instant::now() + limit;
    let question = question(name)?;
    let mut message = [0; MAX_MESSAGE_LEN];
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        socket.set_read_timeout(Some(left.min(RETRY)))?;
        // Refused: the server is not up yet.
        if socket.send(&question).is_err() {
            std::thread::sleep(IDLE);
            continue;
        }
        match socket.recv(&mut message) {
            Ok(len) => return parse_answer(&message[..len]).with_context(|| format!("answer for {name}")),
            Err(_) => std::thread::sleep(IDLE),
        }
    }
    bail!("{server} did not answer for {name} in {limit:?}")
}

/// Asks a server over TCP (RFC 7766), once.
pub fn dns_query_tcp(server: SocketAddr, name: &str, limit: Duration) -> Result<DnsAnswer> {
    let mut stream =
        TcpStream::connect_timeout(&server, limit).with_context(|| format!("DNS to {server}"))?;
    stream.set_read_timeout(Some(limit))?;
    let question = question(name)?;
    let mut message = u16::try_from(question.len())?.to_be_bytes().to_vec();
    message.extend_from_slice(&question);
    stream.write_all(&message)?;
    let mut len = [0; 2];
    stream.read_exact(&mut len)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut answer)?;
    parse_answer(&answer).with_context(|| format!("answer for {name}"))
}

/// A message that asks for the IPv4 addresses of `name`.
fn question(name: &str) -> Result<Vec<u8>> {
    let id = 0x4c61u16;
    let mut message = id.to_be_bytes().to_vec();
    // Recursion desired; one question.
    message.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.trim_end_matches('.').split('.') {
        message.push(
            u8::try_from(label.len()).ok().filter(|len| (1..=63).contains(len)).context("label length")?,
        );
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
    message.extend_from_slice(&TYPE_A.to_be_bytes());
    message.extend_from_slice(&CLASS_IN.to_be_bytes());
    Ok(message)
}

fn parse_answer(message: &[u8]) -> Option<DnsAnswer> {
    let code = message.get(3)? & 15;
    let count = u16_at(message, 6)?;
    let mut at = skip_name(message, HEADER_LEN)? + 4;
    let mut addresses = Vec::new();
    for _ in 0..count {
        at = skip_name(message, at)?;
        let (kind, len) = (u16_at(message, at)?, usize::from(u16_at(message, at + 8)?));
        let data = message.get(at + 10..at + 10 + len)?;
        if kind == TYPE_A {
            let raw: [u8; 4] = data.try_into().ok()?;
            addresses.push(Ipv4Addr::from(raw));
        }
        at += 10 + len;
    }
    Some(DnsAnswer { code, addresses })
}

fn u16_at(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*message.get(at..)?.first_chunk()?))
}

/// Where a name that begins at `at` ends; a pointer ends it.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let len = *message.get(at)?;
        at += 1;
        match len {
            0 => return Some(at),
            192.. => return Some(at + 1),
            _ => at += usize::from(len),
        }
    }
}

/// The name of a question, in lower case without the last dot, and where it ends.
fn question_name(message: &[u8]) -> Option<(String, usize)> {
    let mut at = HEADER_LEN;
    let mut labels = Vec::new();
    loop {
        let len = usize::from(*message.get(at)?);
        at += 1;
        if len == 0 {
            return Some((labels.join("."), at));
        }
        if len > 63 {
            return None;
        }
        labels.push(String::from_utf8_lossy(message.get(at..at + len)?).to_ascii_lowercase());
        at += len;
    }
}

type Table = Arc<Mutex<BTreeMap<String, IpAddr>>>;

/// A DNS server with a table; ends with this value.
#[derive(Debug)]
pub struct DnsServer {
    table: Table,
    questions: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl DnsServer {
    /// Serves in a namespace; names not in the table do not exist.
    pub fn start(space: &Space, address: SocketAddr, names: &[(&str, IpAddr)]) -> Result<Self> {
        let (udp, tcp) = space
            .run(move || anyhow::Ok((UdpSocket::bind(address)?, TcpListener::bind(address)?)))
            .with_context(|| format!("DNS on {address}"))?;
        udp.set_read_timeout(Some(IDLE))?;
        tcp.set_nonblocking(true)?;
        let names = names.iter().map(|(name, address)| (name.to_ascii_lowercase(), *address));
        let table: Table = Arc::new(Mutex::new(names.collect()));
        let questions = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let answer = {
            let (table, questions) = (Arc::clone(&table), Arc::clone(&questions));
            move |message: &[u8]| {
                questions.fetch_add(1, Ordering::Relaxed);
                answer(message, &table.lock().unwrap_or_else(PoisonError::into_inner))
            }
        };
        let threads = vec![
            space.thread("lab-dns-udp", {
                let (stop, answer) = (Arc::clone(&stop), answer.clone());
                move || serve_udp(&udp, &stop, answer)
            })?,
            space.thread("lab-dns-tcp", {
                let stop = Arc::clone(&stop);
                move || serve_tcp(&tcp, &stop, answer)
            })?,
        ];
        Ok(Self { table, questions, stop, threads })
    }

    /// Adds or changes a name.
    pub fn set(&self, name: &str, address: IpAddr) {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_ascii_lowercase(), address);
    }

    /// Questions so far.
    pub fn questions(&self) -> u64 {
        self.questions.load(Ordering::Relaxed)
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve_udp(socket: &UdpSocket, stop: &AtomicBool, answer: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    let mut message = [0; MAX_MESSAGE_LEN];
    while !stop.load(Ordering::Relaxed) {
        let Ok((len, from)) = socket.recv_from(&mut message) else { continue };
        if let Some(answer) = answer(&message[..len]) {
            let _ = socket.send_to(&answer, from);
        }
    }
}

/// One question per connection, one connection at a time: enough for a retry after truncation.
fn serve_tcp(listener: &TcpListener, stop: &AtomicBool, answer: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => drop(serve_tcp_one(stream, &answer)),
            Err(_) => std::thread::sleep(IDLE),
        }
    }
}

fn serve_tcp_one(mut stream: TcpStream, answer: impl Fn(&[u8]) -> Option<Vec<u8>>) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(RETRY))?;
    let mut len = [0; 2];
    stream.read_exact(&mut len)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut message)?;
    let answer = answer(&message).context("question cannot be read")?;
    stream.write_all(&u16::try_from(answer.len())?.to_be_bytes())?;
    Ok(stream.write_all(&answer)?)
}

fn answer(message: &[u8], table: &BTreeMap<String, IpAddr>) -> Option<Vec<u8>> {
    let (name, name_end) = question_name(message)?;
    let kind = u16_at(message, name_end)?;
    let found = table.get(&name);
    let data = match (found, kind) {
        (Some(IpAddr::V4(address)), TYPE_A) => Some(address.octets().to_vec()),
        (Some(IpAddr::V6(address)), TYPE_AAAA) => Some(address.octets().to_vec()),
        _ => None,
    };
    let mut out = message.get(..2)?.to_vec();
    // A response, authoritative, recursion available; the question is repeated.
    out.extend_from_slice(&[0x85, 0x80 | if found.is_some() { NO_ERROR } else { NAME_ERROR }]);
    out.extend_from_slice(&[0, 1, 0, u8::from(data.is_some()), 0, 0, 0, 0]);
    out.extend_from_slice(message.get(HEADER_LEN..name_end + 4)?);
    if let Some(data) = data {
        // The name is that of the question.
        out.extend_from_slice(&[0xc0, 12]);
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&CLASS_IN.to_be_bytes());
        out.extend_from_slice(&TTL_SECS.to_be_bytes());
        out.extend_from_slice(&u16::try_from(data.len()).ok()?.to_be_bytes());
        out.extend_from_slice(&data);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_and_answer_fit_each_other() {
        let table = BTreeMap::from([("host.example".to_owned(), "192.0.2.7".parse().unwrap())]);
        let reply = answer(&question("HOST.example.").unwrap(), &table).unwrap();
        let expected = DnsAnswer { code: NO_ERROR, addresses: vec![Ipv4Addr::new(192, 0, 2, 7)] };
        assert_eq!(parse_answer(&reply), Some(expected));
        let reply = answer(&question("other.example").unwrap(), &table).unwrap();
        assert_eq!(parse_answer(&reply), Some(DnsAnswer { code: NAME_ERROR, addresses: vec![] }));
    }

    #[test]
    fn no_truncation_panics() {
        let table = BTreeMap::from([("a.b".to_owned(), "192.0.2.7".parse().unwrap())]);
        let question = question("a.b").unwrap();
        let reply = answer(&question, &table).unwrap();
        for len in 0..question.len() {
            assert_eq!(answer(&question[..len], &table), None);
        }
        for len in 0..reply.len() {
            assert_eq!(parse_answer(&reply[..len]), None);
        }
        assert!(super::question("..").is_err());
    }
}
