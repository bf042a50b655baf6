use std::net::TcpStream as Quiet;
fn f(_: Quiet) {}
