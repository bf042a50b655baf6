use super::*;

fn proxies(vars: &[(&str, &str)]) -> Proxies {
    Proxies::from_vars(|name| vars.iter().find(|(var, _)| *var == name).map(|(_, value)| (*value).to_owned()))
}

fn chosen(proxies: &Proxies, scheme: Scheme, host: &str, port: u16) -> String {
    match proxies.choose(scheme, host, port) {
        Ok(Some(proxy)) => proxy.to_string(),
        Ok(None) => "direct".to_owned(),
        Err(error) => format!("{error:?}"),
    }
}

#[test]
fn each_scheme_has_its_variable_and_all_proxy_fills_the_gap() {
    let set = proxies(&[("HTTPS_PROXY", "http://proxy:3128"), ("all_proxy", "socks5h://socks")]);
    assert_eq!(chosen(&set, Scheme::Https, "hs.test", 443), "http://proxy:3128");
    assert_eq!(chosen(&set, Scheme::Http, "hs.test", 80), "socks5://socks:1080");
    let set = proxies(&[("https_proxy", "proxy:3128")]);
    assert_eq!(chosen(&set, Scheme::Https, "hs.test", 443), "http://proxy:3128");
    assert_eq!(chosen(&set, Scheme::Http, "hs.test", 80), "direct");
    assert_eq!(chosen(&proxies(&[("HTTPS_PROXY", " ")]), Scheme::Https, "hs.test", 443), "direct");
}

#[test]
fn an_unusable_setting_is_an_error_and_not_a_direct_connection() {
    for bad in ["ftp://proxy:21", "http://proxy:x", "http://", "http://[::1]:3128", "http://u%zz@proxy"] {
        let set = proxies(&[("HTTPS_PROXY", bad)]);
        assert_eq!(chosen(&set, Scheme::Https, "hs.test", 443), "Setting", "{bad}");
        assert_eq!(chosen(&set, Scheme::Https, "127.0.0.1", 443), "direct", "{bad}");
    }
}

#[test]
fn exceptions_are_names_networks_and_ports() {
    let list = "corp.test, .sub.test,*.star.test,10.0.0.0/8,port.test:8443,192.0.2.7";
    let set = proxies(&[("HTTPS_PROXY", "proxy:1"), ("NO_PROXY", list)]);
    for (host, port, direct) in [
        ("corp.test", 443, true),
        ("hs.corp.test", 443, true),
        ("notcorp.test", 443, false),
        ("sub.test", 443, false),
        ("a.sub.test", 443, true),
        ("a.star.test", 443, true),
        ("10.200.0.1", 443, true),
        ("11.0.0.1", 443, false),
        ("port.test", 8443, true),
        ("port.test", 443, false),
        ("192.0.2.7", 443, true),
        ("localhost", 443, true),
        ("127.3.3.40", 443, true),
    ] {
        assert_eq!(chosen(&set, Scheme::Https, host, port) == "direct", direct, "{host}:{port}");
    }
    let set = proxies(&[("HTTPS_PROXY", "proxy:1"), ("NO_PROXY", "*")]);
    assert_eq!(chosen(&set, Scheme::Https, "hs.test", 443), "direct");
    let set = proxies(&[("HTTPS_PROXY", "proxy:1"), ("NO_PROXY", "0.0.0.0/0")]);
    assert_eq!(chosen(&set, Scheme::Https, "192.0.2.1", 443), "direct");
}

#[test]
fn credentials_are_decoded_and_never_printed() {
    let set = proxies(&[("HTTPS_PROXY", "https://us%40er:p%3Ass@gate:8443")]);
    let proxy = set.choose(Scheme::Https, "hs.test", 443).unwrap().unwrap();
    assert_eq!(proxy.credentials.as_ref().unwrap().basic().expose(), "Basic dXNAZXI6cDpzcw==");
    for printed in [format!("{set:?}"), proxy.to_string()] {
        for part in ["us@er", "us%40er", "p:ss", "p%3Ass"] {
            assert!(!printed.contains(part), "{printed}");
        }
    }
}
