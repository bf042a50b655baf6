//! WireGuard messages of anybody who can send us a datagram.

use std::time::{Duration, Instant};

use tsrs_tunnel_wireguard::wire::{Kind, data_receiver, inner_len};
use tsrs_tunnel_wireguard::{Incoming, Notice, Outcome};

use crate::input::Input;
use crate::peer::{self, Peer};

/// Handshake messages: as they are, and as changes of an initiation, a response and a cookie reply that are right.
pub fn handshake(data: &[u8]) {
    let now = Instant::now();
    let (mut ours, mut theirs) = (Peer::new(1, now), Peer::new(2, now));
    let mut input = Input::new(data);
    if input.byte() & 1 == 1 {
        ours.device.note_backlog(usize::MAX, now);
    }
    let _ = theirs.device.start_handshake(&peer::public_key(1), now);
    let mut later = now;
    for (kind, record) in input.records() {
        later += Duration::from_millis(u64::from(kind >> 4) * 100);
        let message = match kind & 3 {
            0 => record.to_vec(),
            // The next message of the other side, changed at some places: each three bytes are a place and a mask.
            1 => {
                let Some(mut message) = theirs.drain().pop() else { continue };
                for change in record.chunks_exact(3) {
                    let at = usize::from(u16::from_le_bytes([change[0], change[1]]));
                    if let Some(byte) = message.get_mut(at) {
                        *byte ^= change[2];
                    }
                }
                message
            }
            2 => {
                ours.device.handle_timeout(later);
                theirs.device.handle_timeout(later);
                for message in ours.drain() {
                    theirs.take(&message, later);
                }
                continue;
            }
            _ => {
                let _ = ours.device.send(&peer::public_key(2), record, later);
                continue;
            }
        };
        let kind = Kind::of(&message);
        let taken = ours.device.handle_handshake(&message, peer::source(), &mut |_| true, later);
        assert!(kind.is_some() || taken.is_err(), "a message of no kind was taken");
    }
    ours.device.handle_timeout(later + Duration::from_secs(600));
    ours.drain();
}

/// Data messages of a session: forged, changed, and sealed with any content.
pub fn session(data: &[u8]) {
    let now = Instant::now();
    let (mut ours, mut theirs) = peer::pair(now);
    let Some(session) = ours.received_by.last().cloned() else { panic!("no session") };
    let mut buffer = Vec::new();
    let mut messages = Vec::new();
    let mut sealed = Vec::new();
    for (kind, record) in Input::new(data).records() {
        let datagram = match kind & 3 {
            0 => record.to_vec(),
            1 => [&[4, 0, 0, 0], &session.local_index().to_le_bytes()[..], record].concat(),
            _ => {
                let Some(datagram) = theirs.seal(record, now) else { panic!("no session") };
                datagram
            }
        };
        assert_eq!(data_receiver(&datagram).is_some(), Kind::of(&datagram) == Some(Kind::Data));
        sealed.push(kind & 3 >= 2);
        // The layout, too, is the fuzzer's: messages overlap and reach beyond the buffer.
        let start = buffer.len().saturating_sub(usize::from(kind & 4));
        messages.push(Incoming::new(start, datagram.len() + usize::from(kind & 8)));
        buffer.extend_from_slice(&datagram);
    }
    if session.open(&mut buffer, &mut messages, now) == Notice::Wake {
        ours.device.handle_notice(session.local_index(), now);
    }
    for (message, sealed) in messages.iter().zip(sealed) {
        if let Some(range) = message.packet_range() {
            assert!(sealed, "a forged message was opened");
            assert_eq!(inner_len(&buffer[range.clone()]), Some(range.len()));
        }
        assert_ne!(message.outcome, Outcome::Pending);
    }
}
