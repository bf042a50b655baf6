//! Framing of messages and attributes.
//!
//! ```text
//! | len u32 | type u16 | flags u16 | seq u32 | port u32 | fixed part | attributes ... |
//! attribute: | len u16 | type u16 | payload | padding to 4 |       numbers in the host's byte order
//! ```

/// Length of the message header.
const HEADER_LEN: usize = 16;
/// Length of an attribute header.
const ATTR_HEADER_LEN: usize = 4;
/// Bits of an attribute's type that are flags (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
const ATTR_FLAGS: u16 = 0xc000;
/// Marks an attribute whose payload is attributes.
const NESTED: u16 = 0x8000;

/// A request: please.
pub(crate) const REQUEST: u16 = 0x1;
/// The kernel shall confirm success too.
pub(crate) const ACK: u16 = 0x4;
/// The whole table.
pub(crate) const DUMP: u16 = 0x300;
/// Take the place of what exists.
pub(crate) const REPLACE: u16 = 0x100;
/// Fail if it exists.
pub(crate) const EXCL: u16 = 0x200;
/// Create if it does not exist.
pub(crate) const CREATE: u16 = 0x400;
/// Behind the others of its list.
pub(crate) const APPEND: u16 = 0x800;

/// A message being built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    bytes: Vec<u8>,
    /// An attribute did not fit its 16-bit length. Such a message is never sent.
    overflow: bool,
}

impl Message {
    /// A request of this type.
    pub(crate) fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        Self { bytes, overflow: false }
    }

    /// Appends bytes of the fixed part.
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    /// Appends an attribute.
    pub(crate) fn attr(&mut self, kind: u16, payload: &[u8]) {
        let start = self.begin(kind);
        self.bytes.extend_from_slice(payload);
        self.end(start);
    }

    /// Appends a number in the host's byte order.
    pub(crate) fn attr_u32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_ne_bytes());
    }

    /// Appends a number in network byte order, as netfilter wants it.
    pub(crate) fn attr_be32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_be_bytes());
    }

    /// Appends a text with its terminating zero.
    pub(crate) fn attr_str(&mut self, kind: u16, text: &str) {
        let start = self.begin(kind);
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
        self.end(start);
    }

    /// Appends an attribute whose payload is the attributes that `fill` appends.
    pub(crate) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.begin(kind | NESTED);
        fill(self);
        self.end(start);
    }

    /// Asks for a confirmation.
    pub(crate) fn request_ack(&mut self) {
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | ACK;
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    }

    /// Appends the finished message to `out`, or says that it is too long to exist.
    pub(crate) fn write(&self, sequence: u32, out: &mut Vec<u8>) -> std::io::Result<()> {
        let len = u32::try_from(self.bytes.len()).ok().filter(|_| !self.overflow);
        let Some(len) = len else {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "netlink attribute too long"));
        };
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        out[start..start + 4].copy_from_slice(&len.to_ne_bytes());
        out[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
        Ok(())
    }

    /// Number of bytes that `write` will append.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// What follows the header.
    pub(crate) fn body(&self) -> &[u8] {
        &self.bytes[HEADER_LEN..]
    }

    fn begin(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    fn end(&mut self, start: usize) {
        match u16::try_from(self.bytes.len() - start) {
            Ok(len) => self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes()),
            Err(_) => self.overflow = true,
        }
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// One attribute of a received message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attr<'a> {
    /// Type, without flags.
    pub(crate) kind: u16,
    /// Payload.
    pub(crate) payload: &'a [u8],
}

/// The attributes in `bytes`; ends at the first one that is cut off.
pub(crate) fn attrs(bytes: &[u8]) -> impl Iterator<Item = Attr<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes(*rest.first_chunk::<2>()?));
        let kind = u16::from_ne_bytes([*rest.get(2)?, *rest.get(3)?]) & !ATTR_FLAGS;
        let payload = rest.get(ATTR_HEADER_LEN..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Attr { kind, payload })
    })
}

/// A number in the host's byte order.
pub(crate) fn attr_u32(payload: &[u8]) -> Option<u32> {
    payload.first_chunk::<4>().map(|bytes| u32::from_ne_bytes(*bytes))
}

/// A text, up to its terminating zero.
pub(crate) fn attr_string(payload: &[u8]) -> String {
    let end = payload.iter().position(|byte| *byte == 0).unwrap_or(payload.len());
    String::from_utf8_lossy(&payload[..end]).into_owned()
}

/// Splits a message's payload into its fixed part of `N` bytes and its attributes.
pub(crate) fn split_at_attrs<const N: usize>(payload: &[u8]) -> Option<(&[u8; N], &[u8])> {
    let (fixed, rest) = payload.split_first_chunk::<N>()?;
    Some((fixed, rest.get(N.next_multiple_of(4) - N..).unwrap_or_default()))
}

/// One received message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) port: u32,
    pub(crate) payload: &'a [u8],
}

/// The messages in a datagram from the kernel; ends at the first one that is cut off.
pub(crate) fn received_in(datagram: &[u8]) -> impl Iterator<Item = Received<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let header = rest.first_chunk::<HEADER_LEN>()?;
        let word =
            |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let len = usize::try_from(word(0)).ok()?;
        let payload = rest.get(HEADER_LEN..len)?;
        let received = Received { kind: half(4), flags: half(6), sequence: word(8), port: word(12), payload };
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(received)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut message = Message::new(24, CREATE);
        message.put(&[1, 2, 3, 4]);
        message.attr_u32(7, 99);
        message.attr_str(3, "abc");
        message.nested(5, |inner| {
            inner.attr_be32(1, 1);
            inner.attr(2, &[9]);
        });
        message.request_ack();
        let mut out = Vec::new();
        message.write(42, &mut out).unwrap();
        out
    }

    #[test]
    fn a_message_reads_back_as_it_was_built() {
        let bytes = sample();
        let received: Vec<_> = received_in(&bytes).collect();
        assert_eq!(received.len(), 1);
        let first = received[0];
        assert_eq!((first.kind, first.flags, first.sequence), (24, CREATE | REQUEST | ACK, 42));
        let (fixed, rest) = split_at_attrs::<4>(first.payload).unwrap();
        assert_eq!(fixed, &[1, 2, 3, 4]);
        let all: Vec<_> = attrs(rest).collect();
        assert_eq!(all.iter().map(|attr| attr.kind).collect::<Vec<_>>(), [7, 3, 5]);
        assert_eq!(attr_u32(all[0].payload), Some(99));
        assert_eq!(attr_string(all[1].payload), "abc");
        let inner: Vec<_> = attrs(all[2].payload).collect();
        assert_eq!(inner[0], Attr { kind: 1, payload: &[0, 0, 0, 1] });
        assert_eq!(inner[1], Attr { kind: 2, payload: &[9] });
    }

    #[test]
    fn every_truncation_is_survived_and_shows_nothing_that_was_cut() {
        let bytes = sample();
        for len in 0..bytes.len() {
            assert_eq!(received_in(&bytes[..len]).count(), 0, "a cut message of {len} bytes must not appear");
            for attr in attrs(&bytes[..len]) {
                assert!(attr.payload.len() <= len);
            }
        }
    }

    #[test]
    fn lengths_that_lie_end_the_list() {
        assert_eq!(attrs(&[3, 0, 1, 0, 8, 0, 1, 0]).count(), 0, "shorter than its own header");
        assert_eq!(attrs(&[0, 0, 0, 0, 0, 0, 0, 0]).count(), 0);
        assert_eq!(attrs(&[9, 0, 1, 0, 1, 2, 3, 4]).count(), 0, "longer than what is there");
        assert_eq!(received_in(&[0; 64]).count(), 0);
    }

    #[test]
    fn an_attribute_that_does_not_fit_is_never_sent() {
        let mut message = Message::new(1, 0);
        message.attr(1, &[0; 70_000]);
        assert!(message.write(1, &mut Vec::new()).is_err());
    }
}
