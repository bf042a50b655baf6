//! Escaped text of a request: the path and its parameters (RFC 3986 §2.1, and `+` for a blank in parameters).

/// Decodes percent-escapes; `None` if one is broken or the result is no text.
pub(super) fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let value = digit(bytes.next()?)? * 16 + digit(bytes.next()?)?;
            out.push(u8::try_from(value).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

/// The parameters behind the question mark. Broken ones are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the text behind the question mark, if there is one.
    pub(super) fn parse(text: Option<&str>) -> Self {
        let pairs = text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let read = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let plain = |text: &str| unescape(&text.replace('+', " "));
            Some((plain(name)?, plain(value)?))
        };
        Self(pairs.filter_map(read).collect())
    }

    /// The first value of a parameter; empty if it is absent.
    pub(super) fn value(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_or_refused() {
        assert_eq!(unescape("/%73tatus").as_deref(), Some("/status"));
        assert_eq!(unescape("a%2Fb%C3%A4").as_deref(), Some("a/bä"));
        for broken in ["%", "%4", "%zz", "%+1", "%ff"] {
            assert_eq!(unescape(broken), None, "{broken}");
        }
    }

    #[test]
    fn parameters_are_read_as_go_reads_them() {
        let query = Query::parse(Some("a=1&b=x+y%2B&a=2&c&%zz=1&=v"));
        assert_eq!(query.value("a"), "1");
        assert_eq!(query.value("b"), "x y+");
        assert_eq!(query.value("c"), "");
        assert_eq!(query.value("nope"), "");
        assert_eq!(Query::parse(None), Query::default());
    }
}
