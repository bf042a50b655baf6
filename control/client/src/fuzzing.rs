//! The private decoders of this crate as functions of bytes, for `lab/fuzzing`.

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::c2n::C2nRequest;
use crate::early::WithoutEarlyPayload;
use crate::frames::FrameCutter;
use crate::map_stream;

/// The body of a map stream, as it arrives in chunks. Gives the number of whole frames.
pub fn map_stream<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> usize {
    let mut cutter = FrameCutter::default();
    let mut count = 0;
    for chunk in chunks {
        cutter.push(chunk);
        loop {
            match cutter.next() {
                Ok(Some(frame)) => {
                    count += 1;
                    if map_stream::parse(&frame).is_err() {
                        return count;
                    }
                }
                Ok(None) => break,
                Err(_) => return count,
            }
        }
    }
    count
}

/// An HTTP request inside a ping of control. Gives the length of its body, or what is wrong with it.
pub fn c2n_request(request: &[u8]) -> Result<usize, &'static str> {
    C2nRequest::parse(request).map(|request| request.body.len())
}

/// What a new Noise connection delivers first. Gives what is left when the early payload is taken out.
pub async fn early_payload(stream: impl AsyncRead + Unpin) -> std::io::Result<Vec<u8>> {
    let mut rest = Vec::new();
    WithoutEarlyPayload::new(stream).read_to_end(&mut rest).await?;
    Ok(rest)
}
