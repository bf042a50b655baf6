use std::net::*;
fn f(_: UdpSocket) {}
