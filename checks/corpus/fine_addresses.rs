use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};
fn f(now: Instant, _: SocketAddrV4, _: Ipv4Addr) -> Instant { now + Duration::from_secs(1) }
