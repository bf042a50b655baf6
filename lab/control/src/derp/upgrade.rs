//! The HTTP request that begins a DERP connection. Fast start sends no response, which no HTTP library can do, so the
//! head of every connection is read here first.

/// What a connection's first request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Upgrade {
    /// The client knows the server key already and wants no response.
    pub(crate) fast_start: bool,
}

/// Reads a complete head; `None` if it is no upgrade to DERP.
pub(crate) fn parse(head: &[u8]) -> Option<Upgrade> {
    let head = std::str::from_utf8(head).ok()?;
    let mut lines = head.split("\r\n");
    let mut request = lines.next()?.split(' ');
    if (request.next(), request.next()) != (Some("GET"), Some("/derp")) {
        return None;
    }
    let headers: Vec<(&str, &str)> =
        lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name, value.trim())).collect();
    let value = |wanted: &str| {
        headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| *value)
    };
    if !value("Upgrade")?.eq_ignore_ascii_case("DERP") {
        return None;
    }
    Some(Upgrade { fast_start: value("Derp-Fast-Start") == Some("1") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_upgrade_to_derp_is_one() {
        let normal = b"GET /derp HTTP/1.1\r\nHost: h\r\nupgrade: derp\r\nConnection: Upgrade\r\n\r\n";
        assert_eq!(parse(normal), Some(Upgrade { fast_start: false }));
        let fast = b"GET /derp HTTP/1.1\r\nUpgrade: DERP\r\nDerp-Fast-Start: 1\r\n\r\n";
        assert_eq!(parse(fast), Some(Upgrade { fast_start: true }));
        for other in [
            &b"GET /derp HTTP/1.1\r\n\r\n"[..],
            b"GET /derp/latency-check HTTP/1.1\r\nUpgrade: DERP\r\n\r\n",
            b"POST /derp HTTP/1.1\r\nUpgrade: DERP\r\n\r\n",
            b"GET /derp HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
            b"\xff\xff",
            b"",
        ] {
            assert_eq!(parse(other), None);
        }
    }
}
