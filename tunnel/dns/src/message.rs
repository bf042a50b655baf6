//! DNS messages (RFC 1035 §4.1), as much of them as a resolver without cache needs.

use std::net::IpAddr;

use crate::name::{MAX_NAME_LEN, Name};

/// Bytes of a message header.
pub(crate) const HEADER_LEN: usize = 12;

/// TTL of positive answers: addresses of a tailnet change with the netmap.
const TTL_SECS: u32 = 5;
/// TTL and all timers of negative answers.
const NEGATIVE_TTL_SECS: u32 = 10;

const CLASS_IN: u16 = 1;

/// The response codes that this resolver gives or reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ResponseCode {
    /// No error.
    NoError = 0,
    /// The query does not parse.
    FormErr = 1,
    /// No upstream could be asked or answered.
    ServFail = 2,
    /// The name does not exist.
    NxDomain = 3,
    /// This kind of query is not supported.
    NotImp = 4,
    /// Refused by policy.
    Refused = 5,
}

/// A query type (RFC 1035 §3.2.2); only the ones with a meaning here have names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QueryType(pub u16);

impl QueryType {
    /// IPv4 address.
    pub const A: Self = Self(1);
    /// Name server.
    pub const NS: Self = Self(2);
    /// Start of authority.
    pub const SOA: Self = Self(6);
    /// Pointer, for reverse lookups.
    pub const PTR: Self = Self(12);
    /// Host information.
    pub const HINFO: Self = Self(13);
    /// IPv6 address.
    pub const AAAA: Self = Self(28);
    /// Zone transfer.
    pub const AXFR: Self = Self(252);
    /// Any type.
    pub const ANY: Self = Self(255);
}

/// The part of the header that answers repeat.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Header {
    /// Transaction id.
    pub id: u16,
    /// The second 16 bits: flags, opcode and response code.
    pub flags: u16,
    questions: u16,
}

const RESPONSE: u16 = 0x8000;
const OPCODE: u16 = 0x7800;
const AUTHORITATIVE: u16 = 0x0400;
pub(crate) const TRUNCATED: u16 = 0x0200;
const RECURSION_DESIRED: u16 = 0x0100;
const RECURSION_AVAILABLE: u16 = 0x0080;
const AUTHENTIC_AND_CHECKING: u16 = 0x0030;

impl Header {
    /// Reads the header; `None` if the message is shorter.
    pub fn read(message: &[u8]) -> Option<Self> {
        let (header, _) = message.split_first_chunk::<HEADER_LEN>()?;
        let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        Some(Self { id: word(0), flags: word(2), questions: word(4) })
    }

    /// Whether the message is a response.
    pub const fn is_response(&self) -> bool {
        self.flags & RESPONSE != 0
    }

    /// Whether the truncation bit is set.
    pub const fn is_truncated(&self) -> bool {
        self.flags & TRUNCATED != 0
    }

    /// The response code, as its number.
    pub const fn code(&self) -> u16 {
        self.flags & 0x000f
    }

    /// Flags of our own, authoritative answer to this query: RA repeats RD.
    const fn answer_flags(&self, code: ResponseCode) -> u16 {
        let repeated = self.flags & (OPCODE | TRUNCATED | RECURSION_DESIRED | AUTHENTIC_AND_CHECKING);
        RESPONSE | AUTHORITATIVE | repeated | self.recursion_available() | code as u16
    }

    const fn recursion_available(&self) -> u16 {
        if self.flags & RECURSION_DESIRED != 0 { RECURSION_AVAILABLE } else { 0 }
    }
}

/// The question of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The name in lower case.
    pub name: Name,
    /// The type asked for.
    pub query_type: QueryType,
    /// The name as it was written, for the answer.
    wire_name: Vec<u8>,
    class: u16,
}

/// A parsed query. Class, opcode, further questions and trailing bytes are not looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Its header.
    pub header: Header,
    /// Its first question.
    pub question: Question,
}

impl Query {
    /// Parses a query; the error is the FORMERR answer to send back.
    pub fn parse(message: &[u8]) -> Result<Self, Vec<u8>> {
        let header = Header::read(message).unwrap_or_default();
        let formerr = |question: Option<&Question>| {
            let mut answer = Builder::new(header, ResponseCode::FormErr);
            if let Some(question) = question {
                // As the reference does it: the class is left out of a refused question.
                answer.question(&Question { class: 0, ..question.clone() });
            }
            answer.finish()
        };
        if header.questions == 0 || message.len() < HEADER_LEN {
            return Err(formerr(None));
        }
        let question = Question::parse(&message[HEADER_LEN..]).ok_or_else(|| formerr(None))?;
        if header.is_response() {
            return Err(formerr(Some(&question)));
        }
        Ok(Self { header, question })
    }

    /// A query of our own for one name.
    pub fn build(id: u16, name: &Name, query_type: QueryType) -> Vec<u8> {
        let mut message = Vec::new();
        for word in [id, RECURSION_DESIRED, 1, 0, 0, 0] {
            message.extend_from_slice(&word.to_be_bytes());
        }
        message.extend_from_slice(&name.to_wire());
        message.extend_from_slice(&query_type.0.to_be_bytes());
        message.extend_from_slice(&CLASS_IN.to_be_bytes());
        message
    }

    /// An answer without records.
    pub(crate) fn answer_empty(&self, code: ResponseCode) -> Vec<u8> {
        let mut answer = Builder::new(self.header, code);
        answer.question(&self.question);
        answer.finish()
    }

    /// A negative answer of a zone that is ours: with its SOA, so that resolvers know how long to believe it.
    pub(crate) fn answer_negative(&self, code: ResponseCode, zone: &Name, serial: u32) -> Vec<u8> {
        let mut answer = Builder::new(self.header, code);
        answer.question(&self.question);
        let zone = zone.to_wire();
        let mut data = [zone.as_slice(), &zone].concat();
        data.extend_from_slice(&serial.to_be_bytes());
        for _ in 0..4 {
            data.extend_from_slice(&NEGATIVE_TTL_SECS.to_be_bytes());
        }
        answer.record(Section::Authority, &zone, QueryType::SOA, NEGATIVE_TTL_SECS, &data);
        answer.finish()
    }

    /// An address as the answer; its family decides the record's type.
    pub(crate) fn answer_address(&self, address: IpAddr) -> Vec<u8> {
        let mut answer = Builder::new(self.header, ResponseCode::NoError);
        answer.question(&self.question);
        match address {
            IpAddr::V4(v4) => {
                answer.record(
                    Section::Answer,
                    &self.question.wire_name,
                    QueryType::A,
                    TTL_SECS,
                    &v4.octets(),
                );
            }
            IpAddr::V6(v6) => {
                answer.record(
                    Section::Answer,
                    &self.question.wire_name,
                    QueryType::AAAA,
                    TTL_SECS,
                    &v6.octets(),
                );
            }
        }
        answer.finish()
    }

    /// A host name as the answer to a reverse lookup.
    pub(crate) fn answer_pointer(&self, host: &Name) -> Vec<u8> {
        let mut answer = Builder::new(self.header, ResponseCode::NoError);
        answer.question(&self.question);
        let host = host.to_wire();
        answer.record(Section::Answer, &self.question.wire_name, QueryType::PTR, TTL_SECS, &host);
        answer.finish()
    }

    /// SERVFAIL or REFUSED because upstreams failed or there is none: not our authority over the name.
    pub(crate) fn answer_failed(&self, code: ResponseCode) -> Vec<u8> {
        let mut answer = Builder::new(self.header, code);
        answer.flags &= !RECURSION_AVAILABLE;
        answer.question(&self.question);
        answer.finish()
    }

    /// NXDOMAIN in place of an upstream.
    pub(crate) fn answer_unforwarded(&self) -> Vec<u8> {
        let mut answer = Builder::new(self.header, ResponseCode::NxDomain);
        answer.flags &= !AUTHORITATIVE;
        answer.question(&self.question);
        answer.finish()
    }
}

impl Question {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut joined = Vec::new();
        let mut at = 0;
        loop {
            let len = usize::from(*bytes.get(at)?);
            at += 1;
            if len == 0 {
                break;
            }
            // Above 63 are compression pointers, which have no place in a question.
            if len > 63 {
                return None;
            }
            let label = bytes.get(at..at + len)?;
            if label.contains(&b'.') {
                return None;
            }
            joined.extend_from_slice(label);
            joined.push(b'.');
            at += len;
            if joined.len() > MAX_NAME_LEN {
                return None;
            }
        }
        let (fixed, _) = bytes.get(at..)?.split_first_chunk::<4>()?;
        joined.pop();
        Some(Self {
            name: Name::from_labels(&joined),
            query_type: QueryType(u16::from_be_bytes([fixed[0], fixed[1]])),
            wire_name: bytes[..at].to_vec(),
            class: u16::from_be_bytes([fixed[2], fixed[3]]),
        })
    }
}

#[derive(Clone, Copy)]
enum Section {
    Answer,
    Authority,
}

struct Builder {
    id: u16,
    flags: u16,
    /// Questions, answers, authorities, additionals.
    counts: [u16; 4],
    body: Vec<u8>,
}

impl Builder {
    fn new(query: Header, code: ResponseCode) -> Self {
        Self { id: query.id, flags: query.answer_flags(code), counts: [0; 4], body: Vec::new() }
    }

    fn question(&mut self, question: &Question) {
        self.counts[0] += 1;
        self.body.extend_from_slice(&question.wire_name);
        self.body.extend_from_slice(&question.query_type.0.to_be_bytes());
        self.body.extend_from_slice(&question.class.to_be_bytes());
    }

    fn record(&mut self, section: Section, owner: &[u8], kind: QueryType, ttl_secs: u32, data: &[u8]) {
        self.counts[match section {
            Section::Answer => 1,
            Section::Authority => 2,
        }] += 1;
        self.body.extend_from_slice(owner);
        self.body.extend_from_slice(&kind.0.to_be_bytes());
        self.body.extend_from_slice(&CLASS_IN.to_be_bytes());
        self.body.extend_from_slice(&ttl_secs.to_be_bytes());
        // Names and addresses are far below 64 KiB.
        self.body.extend_from_slice(&u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes());
        self.body.extend_from_slice(data);
    }

    fn finish(self) -> Vec<u8> {
        let mut message = Vec::with_capacity(HEADER_LEN + self.body.len());
        for word in [[self.id, self.flags].as_slice(), &self.counts].concat() {
            message.extend_from_slice(&word.to_be_bytes());
        }
        message.extend_from_slice(&self.body);
        message
    }
}
