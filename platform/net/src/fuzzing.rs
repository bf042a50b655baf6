//! The private decoders of this crate as functions of bytes, for `lab/fuzzing`.

use tsrs_base_types::Redacted;

use crate::dns::{hosts, message};
use crate::proxy::env::Credentials;
use crate::proxy::tunnel;
use crate::stream::Stream;
use crate::tls::der;

/// The answer of a name server to a question for `name` under `id`. Tells whether it answers that question.
pub fn dns_answer(answer: &[u8], id: u16, name: &str) -> bool {
    message::answer(answer, id, name).is_some()
}

/// A hosts file. Gives how many addresses it has for `name`.
pub fn hosts_file(text: &str, name: &str) -> usize {
    hosts::hosts_addresses(text, name).len()
}

/// A certificate. Gives the length of its common name.
pub fn certificate(der: &[u8]) -> Option<usize> {
    der::Fields::parse(der)?.common_name.map(<[u8]>::len)
}

/// What a SOCKS5 proxy answers, with and without a login. Tells whether it gave a stream.
pub async fn socks5(stream: Stream, with_login: bool) -> bool {
    let credentials = with_login.then(|| Credentials {
        user: Redacted::new("user".into()),
        password: Redacted::new("secret".into()),
    });
    tunnel::socks5_connect(stream, "control.test", 443, credentials.as_ref()).await.is_ok()
}
