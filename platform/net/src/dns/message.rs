//! DNS messages: one question for IPv4 addresses, and its answer (RFC 1035 §4).

use std::net::Ipv4Addr;
use std::time::Duration;

/// Bytes of the header: id, flags and four counts.
const HEADER_LEN: usize = 12;
/// RFC 1035 §2.3.4.
const MAX_LABEL_LEN: usize = 63;
const MAX_NAME_LEN: usize = 253;
/// A chain of aliases longer than this is a loop or an attack; real ones have a few links.
const MAX_ALIASES: usize = 16;
/// Pointers that one name may follow. Each goes backwards, so a message cannot make a loop; this bounds the work.
const MAX_POINTERS: usize = 32;
/// Addresses kept of one answer.
const MAX_ADDRESSES: usize = 16;

const TYPE_A: u16 = 1;
const TYPE_CNAME: u16 = 5;
const CLASS_IN: u16 = 1;

const FLAG_RESPONSE: u16 = 0x8000;
const FLAG_TRUNCATED: u16 = 0x0200;
const FLAG_RECURSION_DESIRED: u16 = 0x0100;
const RCODE_MASK: u16 = 0x000f;
const RCODE_NAME_ERROR: u16 = 3;

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Addresses, and for how long they hold.
    Addresses(Vec<Ipv4Addr>, Duration),
    /// The name does not exist, or has no IPv4 address.
    None,
    /// The answer did not fit; ask again over TCP.
    Truncated,
    /// The server cannot or will not answer; the number is its response code.
    Refused(u16),
}

/// Whether the text can be asked for: LDH labels and underscores, within the length limits.
pub(crate) fn is_host_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.len() <= MAX_NAME_LEN
        && name.split('.').all(|label| {
            (1..=MAX_LABEL_LEN).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

/// A question for the IPv4 addresses of a name; `None` for a text that is no host name.
pub(crate) fn query(id: u16, name: &str) -> Option<Vec<u8>> {
    if !is_host_name(name) {
        return None;
    }
    let mut out = Vec::with_capacity(HEADER_LEN + name.len() + 6);
    for word in [id, FLAG_RECURSION_DESIRED, 1, 0, 0, 0] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    for label in name.trim_end_matches('.').split('.') {
        out.push(u8::try_from(label.len()).ok()?);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out.extend_from_slice(&TYPE_A.to_be_bytes());
    out.extend_from_slice(&CLASS_IN.to_be_bytes());
    Some(out)
}

/// Reads the answer to [`query`]. `None`: not the answer to this question, or damaged; keep waiting.
pub(crate) fn answer(message: &[u8], id: u16, name: &str) -> Option<Answer> {
    let mut reader = Reader { message, at: 0 };
    let flags = {
        if reader.u16()? != id {
            return None;
        }
        reader.u16()?
    };
    let questions = reader.u16()?;
    let answers = reader.u16()?;
    reader.at = HEADER_LEN;
    if flags & FLAG_RESPONSE == 0 || questions != 1 {
        return None;
    }
    let asked = name.trim_end_matches('.').to_ascii_lowercase();
    if reader.name()? != asked || reader.u16()? != TYPE_A || reader.u16()? != CLASS_IN {
        return None;
    }
    match flags & RCODE_MASK {
        0 => {}
        RCODE_NAME_ERROR => return Some(Answer::None),
        code => return Some(Answer::Refused(code)),
    }
    if flags & FLAG_TRUNCATED != 0 {
        return Some(Answer::Truncated);
    }
    let records = records(&mut reader, answers)?;
    Some(follow(&records, asked))
}

enum Data {
    Address(Ipv4Addr),
    Alias(String),
}

struct Record {
    owner: String,
    ttl: u32,
    data: Data,
}

fn records(reader: &mut Reader<'_>, count: u16) -> Option<Vec<Record>> {
    let mut records = Vec::new();
    for _ in 0..count {
        let owner = reader.name()?;
        let (kind, class) = (reader.u16()?, reader.u16()?);
        let ttl = reader.u32()?;
        let len = usize::from(reader.u16()?);
        let end = reader.at.checked_add(len).filter(|end| *end <= reader.message.len())?;
        match (kind, class) {
            (TYPE_A, CLASS_IN) => {
                let octets: [u8; 4] = reader.message[reader.at..end].try_into().ok()?;
                records.push(Record { owner, ttl, data: Data::Address(octets.into()) });
            }
            (TYPE_CNAME, CLASS_IN) => records.push(Record { owner, ttl, data: Data::Alias(reader.name()?) }),
            _ => {}
        }
        reader.at = end;
    }
    Some(records)
}

/// The addresses at the end of the alias chain that begins at `name`.
fn follow(records: &[Record], mut name: String) -> Answer {
    let mut ttl = u32::MAX;
    for _ in 0..MAX_ALIASES {
        let mut addresses = Vec::new();
        let mut next = None;
        for record in records.iter().filter(|record| record.owner == name) {
            ttl = ttl.min(record.ttl);
            match &record.data {
                Data::Address(address) if addresses.len() < MAX_ADDRESSES => addresses.push(*address),
                Data::Address(_) => {}
                Data::Alias(target) => next = Some(target.clone()),
            }
        }
        if !addresses.is_empty() {
            return Answer::Addresses(addresses, Duration::from_secs(u64::from(ttl)));
        }
        match next {
            Some(target) => name = target,
            None => return Answer::None,
        }
    }
    Answer::None
}

struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn u16(&mut self) -> Option<u16> {
        let bytes = self.message.get(self.at..self.at + 2)?;
        self.at += 2;
        Some(u16::from_be_bytes(bytes.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        let bytes = self.message.get(self.at..self.at + 4)?;
        self.at += 4;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    }

    /// A name, lower case and without the final dot (RFC 1035 §4.1.4).
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let mut at = self.at;
        let mut pointers = 0;
        loop {
            let len = *self.message.get(at)?;
            match len {
                0 => {
                    if pointers == 0 {
                        self.at = at + 1;
                    }
                    return Some(name);
                }
                1..=0x3f => {
                    let label = self.message.get(at + 1..at + 1 + usize::from(len))?;
                    if !name.is_empty() {
                        name.push('.');
                    }
                    name.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
                    if name.len() > 2 * MAX_NAME_LEN {
                        return None;
                    }
                    at += 1 + usize::from(len);
                }
                0xc0.. => {
                    let target = usize::from(len & 0x3f) << 8 | usize::from(*self.message.get(at + 1)?);
                    if pointers == 0 {
                        self.at = at + 2;
                    }
                    pointers += 1;
                    if target >= at || pointers > MAX_POINTERS {
                        return None;
                    }
                    at = target;
                }
                0x40..0xc0 => return None,
            }
        }
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
