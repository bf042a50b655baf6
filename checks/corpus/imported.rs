use std::net::TcpStream;
fn f(_: TcpStream) {}
