use std::net as n;
fn f() { let _ = n::TcpListener::bind("127.0.0.1:0"); }
