//! One HTTP request over a connection of its own: the control server's key, latency probes, ping answers.

use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, LOCATION, PROXY_AUTHORIZATION};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::error::NetError;
use crate::http1::MAX_HEAD_LEN;
use crate::net::{Dial, Net};
use crate::proxy::env::ProxyProtocol;
use crate::stream::Stream;
use crate::tls::verify::Verify;
use crate::url::{Scheme, Url};

/// Method of a request. Neither has a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpMethod {
    /// `GET`.
    Get,
    /// `HEAD`.
    Head,
}

/// A request.
#[derive(Clone, Debug)]
pub struct HttpRequest {
    /// What is fetched.
    pub url: Url,
    /// How.
    pub method: HttpMethod,
    /// How the server is verified.
    pub verify: Verify,
    /// How many redirects are followed; never from https to http.
    pub max_redirects: usize,
    /// The longest body that is taken.
    pub max_body_len: usize,
    /// How long all of it may take.
    pub limit: Duration,
}

impl HttpRequest {
    /// A verified `GET` without redirects, of at most 64 KiB, within 15 s.
    pub const fn get(url: Url) -> Self {
        Self {
            url,
            method: HttpMethod::Get,
            verify: Verify::Normal,
            max_redirects: 0,
            max_body_len: 64 * 1024,
            limit: Duration::from_secs(15),
        }
    }

    /// The same as `HEAD`.
    pub fn head(url: Url) -> Self {
        Self { method: HttpMethod::Head, ..Self::get(url) }
    }
}

/// An answer, read as a whole.
#[derive(Clone, Debug)]
pub struct HttpResponse {
    /// Status code.
    pub status: StatusCode,
    /// Header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Net {
    /// Sends a request on a new connection, and closes it afterwards.
    pub async fn http(&self, request: &HttpRequest) -> Result<HttpResponse, NetError> {
        let what = || format!("{} {}", method(request.method), request.url);
        timeout(request.limit, self.follow(request))
            .await
            .unwrap_or_else(|_| Err(NetError::Timeout { what: what(), after: request.limit }))
    }

    async fn follow(&self, request: &HttpRequest) -> Result<HttpResponse, NetError> {
        let mut url = request.url.clone();
        for _ in 0..request.max_redirects {
            let response = self.fetch(&url, request).await?;
            match redirect(&url, &response) {
                Some(next) => url = next,
                None => return Ok(response),
            }
        }
        self.fetch(&url, request).await
    }

    async fn fetch(&self, url: &Url, request: &HttpRequest) -> Result<HttpResponse, NetError> {
        let dial = Dial { limit: request.limit, ..Dial::new(url.scheme, &url.host, url.port()) };
        let mut head = Request::builder().method(method(request.method)).header(HOST, url.authority());
        let mut target = url.path.clone();
        let stream: Stream = match url.scheme {
            Scheme::Https => {
                let stream = self.dial(dial).await?;
                Box::new(self.tls(stream, &url.host, request.verify.clone()).await?)
            }
            Scheme::Http => match self.proxy_for(&dial)? {
                // An HTTP proxy often refuses CONNECT to ports that are not TLS; it takes the whole URL instead.
                Some(proxy) if proxy.protocol != ProxyProtocol::Socks5 => {
                    target = url.to_string();
                    if let Some(credentials) = &proxy.credentials {
                        // Exposed to be sent to the proxy.
                        head = head.header(PROXY_AUTHORIZATION, credentials.basic().expose());
                    }
                    self.dial_proxy(proxy, request.limit).await?
                }
                _ => self.dial(dial).await?,
            },
        };
        let failed = |reason: String| NetError::Http { host: url.authority(), reason };
        let head = head.uri(target).body(Empty::<Bytes>::new()).map_err(|error| failed(error.to_string()))?;
        exchange(stream, head, request.max_body_len).await.map_err(failed)
    }
}

async fn exchange(
    stream: Stream,
    request: Request<Empty<Bytes>>,
    max_body_len: usize,
) -> Result<HttpResponse, String> {
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(MAX_HEAD_LEN)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| chain(&error))?;
    let _connection = AbortOnDrop(tokio::spawn(connection).abort_handle());
    let response = sender.send_request(request).await.map_err(|error| chain(&error))?;
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, max_body_len).collect().await.map_err(|error| chain(&*error))?.to_bytes();
    Ok(HttpResponse { status: parts.status, headers: parts.headers, body })
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

const fn method(method: HttpMethod) -> Method {
    match method {
        HttpMethod::Get => Method::GET,
        HttpMethod::Head => Method::HEAD,
    }
}

/// Where the answer sends us, if we may go there.
fn redirect(from: &Url, response: &HttpResponse) -> Option<Url> {
    let location = response.status.is_redirection().then(|| response.headers.get(LOCATION))??;
    let to = from.join(location.to_str().ok()?).ok()?;
    let downgrade = from.scheme == Scheme::Https && to.scheme == Scheme::Http;
    (!downgrade).then_some(to)
}

/// An error with its causes, since hyper's own text names only the outermost.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
