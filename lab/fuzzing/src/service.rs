//! Packets of programs on this host for the service address.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tsrs_tunnel_packet::ipv4::parse;
use tsrs_tunnel_service::ServiceStack;

use crate::input::Input;

const SERVICE: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 100);

/// The stack between packets, answers and time. Its sequence numbers depend on its seed alone, so the seeds of this target hold a whole
/// TCP connection.
pub fn packets(data: &[u8]) {
    let mut now = Instant::now();
    let mut stack = ServiceStack::new(SERVICE, 1280, 1, now);
    let mut queries = Vec::new();
    for (kind, record) in Input::new(data).records() {
        match kind & 3 {
            // Others never come here: the data plane sorts by destination.
            0 | 1 if parse(record).dst == SERVICE => stack.handle_packet(record, now),
            0 | 1 => {}
            2 => {
                now += Duration::from_millis(u64::from(kind) * 40);
                stack.handle_timeout(now);
            }
            _ => {
                if let Some(id) = queries.pop() {
                    stack.handle_answer(id, record, now);
                }
            }
        }
        while let Some(packet) = stack.poll_packet() {
            assert_eq!(parse(&packet).src, SERVICE);
        }
        while let Some(query) = stack.poll_query() {
            queries.push(query.id);
        }
    }
}
