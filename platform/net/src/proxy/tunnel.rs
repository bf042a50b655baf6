//! Getting a byte stream to a destination out of a proxy: CONNECT (RFC 9110 §9.3.6) and SOCKS5 (RFC 1928, 1929).

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::env::{Credentials, ProxyError};
use crate::http1::read_response_head;
use crate::stream::{AsyncStream, Prefixed, Stream};

/// Asks for a stream by `CONNECT host:port`.
pub(crate) async fn http_connect(
    mut stream: Stream,
    host: &str,
    port: u16,
    credentials: Option<&Credentials>,
) -> Result<Stream, ProxyError> {
    let target = format!("{host}:{port}");
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some(credentials) = credentials {
        // Exposed to be sent to the proxy.
        request += &format!("Proxy-Authorization: {}\r\n", credentials.basic().expose());
    }
    request += "\r\n";
    stream.write_all(request.as_bytes()).await.map_err(io_error)?;
    stream.flush().await.map_err(io_error)?;
    let (head, rest) = read_response_head(&mut stream).await.map_err(ProxyError::Protocol)?;
    match head.status {
        200..=299 => Ok(Box::new(Prefixed::new(rest, stream))),
        407 => Err(ProxyError::Credentials),
        status => Err(ProxyError::Refused { target, answer: format!("HTTP status {status}") }),
    }
}

const SOCKS_VERSION: u8 = 5;
const METHOD_NONE: u8 = 0;
const METHOD_PASSWORD: u8 = 2;
const PASSWORD_VERSION: u8 = 1;
const COMMAND_CONNECT: u8 = 1;
const ADDRESS_IPV4: u8 = 1;
const ADDRESS_NAME: u8 = 3;
const ADDRESS_IPV6: u8 = 4;

/// Asks for a stream by SOCKS5; a name is resolved by the proxy.
pub(crate) async fn socks5_connect(
    mut stream: Stream,
    host: &str,
    port: u16,
    credentials: Option<&Credentials>,
) -> Result<Stream, ProxyError> {
    let method = if credentials.is_some() { METHOD_PASSWORD } else { METHOD_NONE };
    send(&mut stream, &[SOCKS_VERSION, 1, method]).await?;
    if read(&mut stream).await? != [SOCKS_VERSION, method] {
        return Err(ProxyError::Credentials);
    }
    if let Some(credentials) = credentials {
        // Exposed to be sent to the proxy.
        let (user, password) = (credentials.user.expose(), credentials.password.expose());
        let login = [vec![PASSWORD_VERSION], counted(user)?, counted(password)?].concat();
        send(&mut stream, &login).await?;
        if read(&mut stream).await? != [PASSWORD_VERSION, 0] {
            return Err(ProxyError::Credentials);
        }
    }
    let mut request = vec![SOCKS_VERSION, COMMAND_CONNECT, 0];
    match host.parse::<std::net::Ipv4Addr>() {
        Ok(address) => {
            request.push(ADDRESS_IPV4);
            request.extend_from_slice(&address.octets());
        }
        Err(_) => {
            request.push(ADDRESS_NAME);
            request.extend_from_slice(&counted(host)?);
        }
    }
    request.extend_from_slice(&port.to_be_bytes());
    send(&mut stream, &request).await?;
    let [version, reply, _, kind] = read(&mut stream).await?;
    if version != SOCKS_VERSION {
        return Err(ProxyError::Protocol("not SOCKS5".to_owned()));
    }
    if reply != 0 {
        let answer = format!("SOCKS5 reply {reply}");
        return Err(ProxyError::Refused { target: format!("{host}:{port}"), answer });
    }
    // The address that the proxy bound, and a port: of no use to us.
    let bound_len = match kind {
        ADDRESS_IPV4 => 4,
        ADDRESS_IPV6 => 16,
        ADDRESS_NAME => usize::from(read::<1>(&mut stream).await?[0]),
        _ => return Err(ProxyError::Protocol("unknown address type".to_owned())),
    };
    let mut bound = vec![0; bound_len + 2];
    stream.read_exact(&mut bound).await.map_err(io_error)?;
    Ok(stream)
}

/// One length byte and the text.
fn counted(text: &str) -> Result<Vec<u8>, ProxyError> {
    let len = u8::try_from(text.len()).map_err(|_| ProxyError::Setting)?;
    Ok([&[len], text.as_bytes()].concat())
}

async fn send(stream: &mut (impl AsyncStream + ?Sized), bytes: &[u8]) -> Result<(), ProxyError> {
    stream.write_all(bytes).await.map_err(io_error)?;
    stream.flush().await.map_err(io_error)
}

async fn read<const N: usize>(stream: &mut (impl AsyncStream + ?Sized)) -> Result<[u8; N], ProxyError> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await.map_err(io_error)?;
    Ok(bytes)
}

fn io_error(error: std::io::Error) -> ProxyError {
    ProxyError::Protocol(error.to_string())
}

#[cfg(test)]
#[path = "tunnel_tests.rs"]
mod tests;
