fn f() { let _ = std::net::UdpSocket::bind("127.0.0.1:0"); }
