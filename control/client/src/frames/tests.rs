use std::io::Write as _;

use super::*;

fn framed(frame: &[u8]) -> Vec<u8> {
    [&u32::try_from(frame.len()).unwrap().to_le_bytes()[..], frame].concat()
}

fn cut(chunks: &[&[u8]]) -> Result<Vec<Bytes>, FrameError> {
    let mut cutter = FrameCutter::default();
    let mut frames = Vec::new();
    for chunk in chunks {
        cutter.push(chunk);
        while let Some(frame) = cutter.next()? {
            frames.push(frame);
        }
    }
    Ok(frames)
}

/// A zstd frame of blocks that each say "128 KiB of `a`" in four bytes (RFC 8878 §3.1.1.2).
fn repetitive(block_count: usize) -> Vec<u8> {
    const BLOCK_LEN: u32 = 128 * 1024;
    let mut frame = ZSTD_MAGIC.to_vec();
    frame.extend_from_slice(&[0x00, 0x58]); // no content size, window of 2 MiB
    for block in 1..=block_count {
        let header = BLOCK_LEN << 3 | 1 << 1 | u32::from(block == block_count);
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.push(b'a');
    }
    frame
}

#[test]
fn frames_are_cut_wherever_the_chunks_end() {
    let bytes = [framed(b"one"), framed(&[0; 1000]), framed(b"three")].concat();
    for at in 0..=bytes.len() {
        let frames = cut(&[&bytes[..at], &bytes[at..]]).unwrap();
        assert_eq!(frames.iter().map(Bytes::len).collect::<Vec<_>>(), [3, 1000, 5], "{at}");
    }
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(cut(&single).unwrap().len(), 3);
}

#[test]
fn a_body_may_end_only_between_frames() {
    let bytes = framed(b"one");
    for len in 0..=bytes.len() {
        let mut cutter = FrameCutter::default();
        cutter.push(&bytes[..len]);
        let whole = cutter.next().unwrap().is_some();
        assert_eq!(whole, len == bytes.len());
        assert_eq!(cutter.is_between_frames(), len == 0 || whole, "{len}");
    }
}

#[test]
fn empty_and_oversized_frames_end_the_stream() {
    assert_eq!(cut(&[&framed(b"")]), Err(FrameError::Empty));
    let too_long = u32::try_from(MAX_FRAME_LEN + 1).unwrap();
    assert_eq!(cut(&[&too_long.to_le_bytes()]), Err(FrameError::TooLong(MAX_FRAME_LEN + 1)));
    assert!(matches!(cut(&[&[0xff; 4]]), Err(FrameError::TooLong(_))));
}

#[test]
fn what_a_real_headscale_sends_is_decoded() {
    let stream = tsrs_lab_vectors::json("headscale/map-stream-zstd.json");
    let mut seen = 0;
    for frame in stream["frames"].as_array().unwrap() {
        let text = frame.as_object().unwrap();
        let raw = data_encoding::BASE64.decode(text["frame_base64"].as_str().unwrap().as_bytes()).unwrap();
        let frames = cut(&[&raw]).unwrap();
        assert_eq!(frames.len(), 1);
        let decoded = match decode(&frames[0]).unwrap() {
            Decoded::KeepAlive => serde_json::json!({"KeepAlive": true}),
            Decoded::Json(json) => serde_json::from_slice(&json).unwrap(),
        };
        assert_eq!(decoded, text["decoded"]);
        seen += 1;
        for len in 0..frames[0].len() {
            let cut_off = frames[0].slice(..len);
            if len >= ZSTD_MAGIC.len() {
                assert!(decode(&cut_off).is_err(), "{len}");
            }
        }
    }
    assert!(seen >= 4, "{seen}");
}

#[test]
fn plain_json_passes_and_keep_alives_are_recognised() {
    let json = Bytes::from_static(br#"{"Domain":"lab"}"#);
    assert_eq!(decode(&json), Ok(Decoded::Json(json.clone())));
    let plain = Bytes::from_static(KEEP_ALIVE);
    assert_eq!(decode(&plain), Ok(Decoded::KeepAlive));
    assert_eq!(
        decode(&Bytes::from_static(br#"{"KeepAlive":true,"Domain":"lab"}"#))
            .map(|decoded| decoded == Decoded::KeepAlive),
        Ok(false)
    );

    let mut cache = KeepAliveCache::default();
    assert!(!cache.is_keep_alive(&Bytes::new()) && !cache.is_keep_alive(&plain));
    cache.remember(&plain);
    assert!(cache.is_keep_alive(&plain) && !cache.is_keep_alive(&json));
}

#[test]
fn a_zip_bomb_is_stopped_at_the_limit() {
    let just_fits = MAX_DECODED_LEN / (128 * 1024);
    assert_eq!(decompress(&repetitive(just_fits)).map(|out| out.len()), Ok(MAX_DECODED_LEN));
    let bomb = repetitive(just_fits * 100);
    assert!(bomb.len() < 256 * 1024);
    assert_eq!(decompress(&bomb), Err(FrameError::DecodedTooLong));
}

#[test]
fn damaged_zstd_never_panics() {
    let good = repetitive(2);
    assert!(matches!(decompress(&[&good[..], b"x"].concat()), Err(FrameError::Trailing(1))));
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut damaged = good.clone();
            damaged[at] ^= 1 << bit;
            let _ = decode(&Bytes::from(damaged));
        }
    }
    // A window of 1 TiB.
    let mut huge = ZSTD_MAGIC.to_vec();
    huge.write_all(&[0x00, 0xf0, 1, 0, 0]).unwrap();
    assert!(matches!(decompress(&huge), Err(FrameError::Zstd(_))));
}
