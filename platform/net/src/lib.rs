//! How the agent's own connections leave the host: underlay resolver, bypass mark, environment proxies, TLS roots
//! and pins.
//!
//! [`Net`] is the one place where the agent opens TCP and TLS connections of its own: to the control server and to
//! DERP servers. Every socket is marked through [`tsrs_platform_api::SocketBinder`] before it connects, so that it
//! bypasses the tunnel; a refused mark fails the connection. The underlay is IPv4.
//!
//! The caller passes the name servers of the host as they were before the agent touched them ([`Net::set_dns`]), and
//! says how a TLS server is to be verified ([`Verify`]). Retries and back-off are the caller's.
#![forbid(unsafe_code)]

mod connect;
mod dns;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod http;
mod http1;
mod net;
mod proxy;
mod resolver;
mod stream;
mod tls;
mod url;

pub use dns::ResolveError;
pub use dns::resolv_conf::DnsServers;
pub use error::{ErrorKind, NetError};
pub use http::{HttpMethod, HttpRequest, HttpResponse};
pub use http1::{MAX_HEAD_LEN, ResponseHead, read_response_head};
pub use net::{Dial, Net, NetConfig};
pub use proxy::connect_tunnel;
pub use proxy::env::{Proxies, ProxyError};
pub use stream::{AsyncStream, Prefixed, Stream};
pub use tls::verify::{ParsePinError, Verify};
pub use tls::{DerpCertificate, TlsConnection, TlsError};
pub use url::{Scheme, Url, UrlError};

#[cfg(test)]
mod test_support;
