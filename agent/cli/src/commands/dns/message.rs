//! Reading DNS answers for display (RFC 1035 §4).

use std::net::{Ipv4Addr, Ipv6Addr};

/// A name may hold this many compression pointers; more is a loop.
const MAX_POINTERS: usize = 32;

/// The shown parts of an answer.
#[derive(Debug)]
pub(crate) struct Answer {
    code: u8,
    pub(crate) answers: Vec<Record>,
}

/// One record.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) ttl_secs: u32,
    pub(crate) body: String,
    class: u16,
    kind: u16,
}

impl Answer {
    /// The response code in the words of the official client.
    pub(crate) fn code_text(&self) -> String {
        let word = match self.code {
            0 => "RCodeSuccess",
            1 => "RCodeFormatError",
            2 => "RCodeServerFailure",
            3 => "RCodeNameError",
            4 => "RCodeNotImplemented",
            5 => "RCodeRefused",
            other => return other.to_string(),
        };
        word.to_owned()
    }
}

impl Record {
    pub(crate) fn class_text(&self) -> &'static str {
        if self.class == 1 { "ClassINET" } else { "ClassOther" }
    }

    pub(crate) fn type_text(&self) -> String {
        let word = match self.kind {
            1 => "TypeA",
            2 => "TypeNS",
            5 => "TypeCNAME",
            6 => "TypeSOA",
            12 => "TypePTR",
            15 => "TypeMX",
            16 => "TypeTXT",
            28 => "TypeAAAA",
            33 => "TypeSRV",
            other => return other.to_string(),
        };
        word.to_owned()
    }
}

/// Reads a message; `None` if it is damaged.
pub(crate) fn parse(message: &[u8]) -> Option<Answer> {
    let code = message.get(3)? & 0x0f;
    let questions = word(message, 4)?;
    let count = word(message, 6)?;
    let mut at = 12;
    for _ in 0..questions {
        at = name(message, at)?.1 + 4;
    }
    let mut answers = Vec::new();
    for _ in 0..count {
        let (owner, end) = name(message, at)?;
        let ttl_secs = u32::from_be_bytes(message.get(end + 4..end + 8)?.try_into().ok()?);
        let len = usize::from(word(message, end + 8)?);
        let start = end + 10;
        message.get(start..start + len)?;
        let kind = word(message, end)?;
        answers.push(Record {
            name: owner,
            ttl_secs,
            body: body(message, kind, start, len)?,
            class: word(message, end + 2)?,
            kind,
        });
        at = start + len;
    }
    Some(Answer { code, answers })
}

fn word(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?))
}

fn body(message: &[u8], kind: u16, start: usize, len: usize) -> Option<String> {
    let data = message.get(start..start + len)?;
    match kind {
        1 => <[u8; 4]>::try_from(data).ok().map(|octets| Ipv4Addr::from(octets).to_string()),
        28 => <[u8; 16]>::try_from(data).ok().map(|octets| Ipv6Addr::from(octets).to_string()),
        2 | 5 | 12 => name(message, start).map(|(name, _)| name),
        15 => Some(format!("{} {}", word(message, start)?, name(message, start + 2)?.0)),
        16 => {
            let mut texts = Vec::new();
            let mut rest = data;
            while let Some((&len, tail)) = rest.split_first() {
                let text = tail.get(..usize::from(len))?;
                texts.push(format!("{:?}", String::from_utf8_lossy(text)));
                rest = &tail[usize::from(len)..];
            }
            Some(texts.join(" "))
        }
        _ => Some(data_encoding::HEXLOWER.encode(data)),
    }
}

/// A name and where the text behind it begins.
fn name(message: &[u8], start: usize) -> Option<(String, usize)> {
    let mut out = String::new();
    let mut at = start;
    let mut end = None;
    let mut pointers = 0;
    loop {
        let len = usize::from(*message.get(at)?);
        if len == 0 {
            break;
        }
        if len & 0xc0 == 0xc0 {
            end.get_or_insert(at + 2);
            pointers += 1;
            if pointers > MAX_POINTERS {
                return None;
            }
            at = usize::from(word(message, at)? & 0x3fff);
            continue;
        }
        if len > 63 {
            return None;
        }
        out.push_str(&String::from_utf8_lossy(message.get(at + 1..at + 1 + len)?));
        out.push('.');
        at += 1 + len;
    }
    if out.is_empty() {
        out.push('.');
    }
    Some((out, end.unwrap_or(at + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut message = vec![0, 1, 0x81, 0x80, 0, 1, 0, 2, 0, 0, 0, 0];
        message.extend_from_slice(b"\x01a\x04test\x00\x00\x01\x00\x01");
        message.extend_from_slice(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04\x64\x40\x00\x01");
        message.extend_from_slice(b"\xc0\x0c\x00\x10\x00\x01\x00\x00\x00\x05\x00\x03\x02hi");
        message
    }

    #[test]
    fn records_are_shown_with_compressed_names() {
        let answer = parse(&sample()).unwrap();
        assert_eq!(answer.code_text(), "RCodeSuccess");
        assert_eq!(answer.answers[0].name, "a.test.");
        assert_eq!(answer.answers[0].body, "100.64.0.1");
        assert_eq!(answer.answers[1].body, "\"hi\"");
        assert_eq!(answer.answers[1].type_text(), "TypeTXT");
    }

    #[test]
    fn damaged_messages_and_loops_are_refused() {
        let message = sample();
        for len in 0..message.len() {
            assert!(parse(&message[..len]).is_none(), "{len}");
        }
        let mut looping = message;
        looping[12..14].copy_from_slice(&[0xc0, 12]);
        assert!(parse(&looping).is_none());
    }
}
