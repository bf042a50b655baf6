//! Reading the head of an HTTP/1.1 response by hand, where the connection goes on as something else after it.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest response head that is read: many times what control, DERP and proxy servers send.
pub const MAX_HEAD_LEN: usize = 16 * 1024;

/// Status line and header fields of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status code.
    pub status: u16,
    fields: Vec<(String, String)>,
}

impl ResponseHead {
    /// The value of the first field of that name, without regard to case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Reads a whole head, up to and without the empty line. `None`: this is not HTTP/1.x.
    fn parse(head: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(head).ok()?;
        let mut lines = text.split("\r\n");
        let mut words = lines.next()?.splitn(3, ' ');
        if !matches!(words.next()?, "HTTP/1.0" | "HTTP/1.1") {
            return None;
        }
        let status = words
            .next()
            .filter(|code| code.len() == 3 && code.bytes().all(|b| b.is_ascii_digit()))?
            .parse()
            .ok()?;
        let fields = lines
            .map(|line| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned())))
            .collect::<Option<_>>()?;
        Some(Self { status, fields })
    }
}

/// Reads a response head and gives back what was read beyond it. The error says what is wrong with the answer.
pub async fn read_response_head(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<(ResponseHead, Bytes), String> {
    let mut buffer = BytesMut::with_capacity(1024);
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let mut head = buffer.split_to(end + 4);
            head.truncate(end);
            let head = ResponseHead::parse(&head).ok_or("it does not speak HTTP/1.1")?;
            return Ok((head, buffer.freeze()));
        }
        if buffer.len() >= MAX_HEAD_LEN {
            return Err(format!("its header is longer than {MAX_HEAD_LEN} bytes"));
        }
        match stream.read_buf(&mut buffer).await {
            Ok(0) if buffer.is_empty() => return Err("it closed the connection without an answer".to_owned()),
            Ok(0) => return Err("it closed the connection within the header".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> Result<(ResponseHead, Bytes), String> {
        read_response_head(&mut &*bytes).await
    }

    #[tokio::test]
    async fn what_follows_the_head_is_given_back() {
        let (head, rest) =
            read(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: a\r\nX:  b \r\n\r\n\x02\0\x30")
                .await
                .unwrap();
        assert_eq!((head.status, head.header("upgrade"), head.header("x")), (101, Some("a"), Some("b")));
        assert_eq!(head.header("y"), None);
        assert_eq!(&rest[..], b"\x02\0\x30");
        let (head, rest) = read(b"HTTP/1.0 200 \r\n\r\n").await.unwrap();
        assert_eq!((head.status, rest.len()), (200, 0));
    }

    #[tokio::test]
    async fn truncated_heads_are_refused_at_every_length() {
        let whole = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n";
        for len in 0..whole.len() {
            assert!(read(&whole[..len]).await.is_err(), "{len}");
        }
        assert!(read(whole).await.is_ok());
    }

    #[tokio::test]
    async fn garbage_and_endless_heads_are_refused() {
        for bad in [
            b"SSH-2.0-OpenSSH\r\n\r\n".as_slice(),
            b"HTTP/2.0 200 OK\r\n\r\n",
            b"HTTP/1.1 20 OK\r\n\r\n",
            b"HTTP/1.1 +20 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: \xff\r\n\r\n",
        ] {
            assert!(read(bad).await.is_err(), "{}", bad.escape_ascii());
        }
        let endless = [b"HTTP/1.1 200 OK\r\n".as_slice(), &b"A: b\r\n".repeat(MAX_HEAD_LEN)].concat();
        assert!(read(&endless).await.unwrap_err().contains("longer"));
    }
}
