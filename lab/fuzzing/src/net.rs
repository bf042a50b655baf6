//! What the agent's own connections meet before they speak their protocol.

use tokio::io::AsyncReadExt;
use tsrs_platform_net::{DnsServers, Proxies, Url, connect_tunnel, fuzzing, read_response_head};

use crate::input::{Connection, Input, run};

/// The answer of a name server; it begins with the id of the question.
pub fn dns_answer(data: &[u8]) {
    let id = u16::from_be_bytes(Input::new(data).array());
    fuzzing::dns_answer(data, id, "derp.example.test");
}

/// `resolv.conf`, a hosts file, and the variables that name proxies.
pub fn files(data: &[u8]) {
    let text = Input::new(data).text();
    DnsServers::from_resolv_conf(&text);
    fuzzing::hosts_file(&text, "derp.example.test");
    Proxies::from_vars(|_| Some(text.clone()));
}

/// Answers of proxies and the head of an HTTP response.
pub fn proxy(data: &[u8]) {
    let connection = Connection::new(data);
    let mut stream = connection.clone();
    if let Ok((head, mut rest)) = run(read_response_head(&mut stream)) {
        assert!((0..1000).contains(&head.status));
        head.header("upgrade");
        rest.truncate(1);
    }
    if let Ok(mut tunnel) = run(connect_tunnel(Box::new(connection.clone()), "proxy", "control.test", 443)) {
        let mut rest = Vec::new();
        let _ = run(tunnel.read_to_end(&mut rest));
        assert!(data.ends_with(&rest), "the stream behind the proxy is not what it sent");
    }
    run(fuzzing::socks5(Box::new(connection.clone()), false));
    run(fuzzing::socks5(Box::new(connection), true));
}

/// A certificate, whose fields are shown to the user.
pub fn certificate(data: &[u8]) {
    assert!(fuzzing::certificate(data).is_none_or(|len| len <= data.len()));
}

/// A URL of a user, or of a server that sends us elsewhere.
pub fn url(data: &[u8]) {
    let text = Input::new(data).text();
    let Ok(url) = text.parse::<Url>() else { return };
    assert_eq!(url.to_string().parse::<Url>().as_ref(), Ok(&url));
    url.authority();
    url.ip();
}
