//! Control messages as bytes (`cmsg(3)`), written and read without pointers.
//!
//! ```text
//! length: usize | level: i32 | type: i32 | data | padding to a multiple of size_of::<usize>()
//! ```
//!
//! The length counts header and data, not the padding. All fields are in native byte order.

use libc::c_int;

/// Bytes of a control message header.
const HEADER_LEN: usize = size_of::<libc::cmsghdr>();
const _: () = assert!(HEADER_LEN == size_of::<usize>() + 2 * size_of::<c_int>());

const fn align(len: usize) -> usize {
    len.next_multiple_of(size_of::<usize>())
}

/// Bytes that one message with `data_len` bytes of data takes in a control buffer.
pub(crate) const fn space(data_len: usize) -> usize {
    HEADER_LEN + align(data_len)
}

/// A control buffer with the alignment that the kernel's header type has.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(crate) struct ControlBuffer<const N: usize>(pub(crate) [u8; N]);

impl<const N: usize> ControlBuffer<N> {
    pub(crate) const ZERO: Self = Self([0; N]);
}

/// Room for the one message that a send carries: the segment length.
pub(crate) const SEND_SPACE: usize = space(size_of::<u16>());

/// Room for the two messages that a receive may carry: segment length and drop counter.
pub(crate) const RECEIVE_SPACE: usize = space(size_of::<c_int>()) + space(size_of::<u32>());

/// A control buffer that asks the kernel to cut the payload into datagrams of `segment_len` bytes (`UDP_SEGMENT`).
pub(crate) fn udp_segment(segment_len: u16) -> ControlBuffer<SEND_SPACE> {
    let mut control = ControlBuffer::ZERO;
    let (length, rest) = control.0.split_at_mut(size_of::<usize>());
    length.copy_from_slice(&(HEADER_LEN + size_of::<u16>()).to_ne_bytes());
    rest[..4].copy_from_slice(&libc::SOL_UDP.to_ne_bytes());
    rest[4..8].copy_from_slice(&libc::UDP_SEGMENT.to_ne_bytes());
    rest[8..10].copy_from_slice(&segment_len.to_ne_bytes());
    control
}

/// What a received message said beside its payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReceiveInfo {
    /// Length of each datagram of a coalesced payload (`UDP_GRO`); `None` for a single datagram.
    pub(crate) segment_len: Option<usize>,
    /// Datagrams that this socket has dropped so far for want of buffer space (`SO_RXQ_OVFL`).
    pub(crate) dropped_total: Option<u32>,
}

/// Reads the control messages of one received message. Malformed rest is ignored.
pub(crate) fn parse(mut control: &[u8]) -> ReceiveInfo {
    let mut info = ReceiveInfo::default();
    while let Some((level, kind, data, rest)) = split_first(control) {
        match (level, kind) {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                info.segment_len = first_array(data)
                    .and_then(|raw| usize::try_from(c_int::from_ne_bytes(raw)).ok())
                    .filter(|&len| len > 0);
            }
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                info.dropped_total = first_array(data).map(u32::from_ne_bytes);
            }
            _ => {}
        }
        control = rest;
    }
    info
}

fn split_first(control: &[u8]) -> Option<(c_int, c_int, &[u8], &[u8])> {
    let length = usize::from_ne_bytes(first_array(control)?);
    let header = control.get(size_of::<usize>()..HEADER_LEN)?;
    let level = c_int::from_ne_bytes(first_array(header)?);
    let kind = c_int::from_ne_bytes(first_array(&header[4..])?);
    let data = control.get(HEADER_LEN..length)?;
    let rest = control.get(align(length)..).unwrap_or_default();
    Some((level, kind, data, rest))
}

fn first_array<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(level: c_int, kind: c_int, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend((HEADER_LEN + data.len()).to_ne_bytes());
        out.extend(level.to_ne_bytes());
        out.extend(kind.to_ne_bytes());
        out.extend(data);
        out.resize(space(data.len()), 0);
        out
    }

    #[test]
    #[expect(unsafe_code, reason = "the C macros are the reference")]
    fn segment_message_has_the_layout_of_the_c_macros() {
        // SAFETY: CMSG_SPACE and CMSG_LEN only compute numbers.
        let (space_by_libc, len_by_libc) = unsafe { (libc::CMSG_SPACE(2), libc::CMSG_LEN(2)) };
        assert_eq!(SEND_SPACE, usize::try_from(space_by_libc).unwrap());
        let control = udp_segment(1392);
        let (level, kind, data, rest) = split_first(&control.0).unwrap();
        assert_eq!((level, kind), (libc::SOL_UDP, libc::UDP_SEGMENT));
        assert_eq!(data, 1392_u16.to_ne_bytes());
        assert!(rest.is_empty());
        let length = usize::from_ne_bytes(first_array(&control.0).unwrap());
        assert_eq!(length, usize::try_from(len_by_libc).unwrap());
    }

    #[test]
    fn control_buffer_is_aligned_as_the_kernels_header() {
        assert!(align_of::<ControlBuffer<SEND_SPACE>>() >= align_of::<libc::cmsghdr>());
    }

    #[test]
    fn segment_length_and_drop_counter_are_read_in_any_order() {
        let gro = message(libc::SOL_UDP, libc::UDP_GRO, &1392_i32.to_ne_bytes());
        let overflow = message(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &7_u32.to_ne_bytes());
        let foreign = message(libc::SOL_SOCKET, libc::SO_TIMESTAMP, &[0; 16]);
        let wanted = ReceiveInfo { segment_len: Some(1392), dropped_total: Some(7) };
        assert_eq!(parse(&[&gro[..], &overflow, &foreign].concat()), wanted);
        assert_eq!(parse(&[&foreign[..], &overflow, &gro].concat()), wanted);
        assert_eq!(gro.len() + overflow.len(), RECEIVE_SPACE);
    }

    #[test]
    fn every_truncation_and_every_wrong_length_is_survived() {
        let whole = [
            message(libc::SOL_UDP, libc::UDP_GRO, &1392_i32.to_ne_bytes()),
            message(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &7_u32.to_ne_bytes()),
        ]
        .concat();
        let padding_len = align(4) - 4;
        for len in 0..whole.len() - padding_len {
            assert_ne!(
                parse(&whole[..len]),
                parse(&whole),
                "a cut at {len} bytes must lose the last message"
            );
        }
        for length in [0, 1, HEADER_LEN - 1, HEADER_LEN, whole.len() + 1, usize::MAX - 7, usize::MAX] {
            let mut bad = whole.clone();
            bad[..size_of::<usize>()].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(parse(&bad).segment_len, None);
        }
    }

    #[test]
    fn segment_length_of_zero_or_less_is_a_single_datagram() {
        for len in [0_i32, -1, i32::MIN] {
            let gro = message(libc::SOL_UDP, libc::UDP_GRO, &len.to_ne_bytes());
            assert_eq!(parse(&gro).segment_len, None);
        }
    }
}
