//! All cases of `wire/derp-*.json`.

use std::time::Instant;

use serde_json::{Value, json};
use tsrs_base_types::{NodePrivate, NodePublic};
use tsrs_lab_vectors::{hex, json as load};

use super::{TestRng, UPGRADED, client, peer, server};
use crate::buffer::FrameBuffer;
use crate::client::*;
use crate::frame::*;
use crate::info::{ClientInfo, ServerInfo};

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn key_hex(key: &NodePublic) -> String {
    data_encoding::HEXLOWER.encode(key.as_bytes())
}

fn feed(buffer: &mut FrameBuffer, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let space = buffer.space();
        let count = space.len().min(bytes.len());
        space[..count].copy_from_slice(&bytes[..count]);
        buffer.note_filled(count);
        bytes = &bytes[count..];
    }
}

fn frames(bytes: &[u8]) -> Vec<(FrameType, Vec<u8>)> {
    let mut buffer = FrameBuffer::new();
    feed(&mut buffer, bytes);
    let mut out = Vec::new();
    while let Some((kind, range)) = buffer.next_frame(MAX_FRAME_LEN).unwrap() {
        out.push((kind, buffer.body(range).to_vec()));
    }
    assert!(buffer.unread().is_empty());
    out
}

#[test]
fn logins_agree_with_the_reference() {
    let mut seen = 0;
    for case in load("wire/derp-client.json")["cases"].as_array().unwrap() {
        if case["what"] != "login" {
            continue;
        }
        seen += 1;
        let start = Instant::now();
        let greeting = hex(text(&case["server_sends"]));
        let mode = if greeting.is_empty() { Start::Fast(server().public()) } else { Start::Normal };
        let config = ClientConfig {
            node_key: client(),
            host: "derp.test",
            ideal_node: None,
            start: mode,
            preferred: false,
        };
        let mut machine = ClientMachine::new(config, TestRng(1), start).unwrap();
        if mode == Start::Normal {
            let bytes = [UPGRADED, &greeting].concat();
            machine.read_space()[..bytes.len()].copy_from_slice(&bytes);
            machine.note_read(bytes.len(), start);
        }
        let outcome = machine.poll_message(start).map(|message| assert_eq!(message, None));
        if case["ok"] == json!(false) {
            // "One byte short" ends with the connection: the frame is never complete.
            let incomplete = case["name"] == "greeting one byte short";
            assert_eq!(outcome, if incomplete { Ok(()) } else { Err(Error::ServerKey) }, "{case}");
            assert!(!machine.output().windows(2).any(|window| window == [FrameType::CLIENT_INFO.0, 0]));
            continue;
        }
        outcome.unwrap();
        let written = machine.output().to_vec();
        let request_len = written.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        let ours = frames(&written[request_len..]);
        let [(FrameType::CLIENT_INFO, body)] = ours.as_slice() else { panic!("{ours:?}") };
        let (key, info) = ClientInfo::open(body, &server()).unwrap();
        assert_eq!((key, info), (client().public(), ClientInfo::default()));

        // The reference's greeting, whatever its flags are, is read by our server side and written back as the same JSON.
        let theirs = frames(&hex(text(&case["client_sends"])));
        let [(FrameType::CLIENT_INFO, body)] = theirs.as_slice() else { panic!("{theirs:?}") };
        let (key, info) = ClientInfo::open(body, &server()).unwrap();
        assert_eq!(key, client().public());
        let expected: Value = serde_json::from_str(text(&case["client_info_json"])).unwrap();
        assert_eq!(serde_json::to_value(&info).unwrap(), expected);
    }
    assert_eq!(seen, 11);
}

#[test]
fn client_frames_agree_with_the_reference() {
    let mut seen = 0;
    for case in load("wire/derp-client.json")["cases"].as_array().unwrap() {
        if case["what"] == "login" {
            continue;
        }
        seen += 1;
        let mut out = Vec::new();
        match text(&case["name"]) {
            "packet to peer" => put_send_packet(&mut out, &peer(), b"hello"),
            "empty packet to peer" => put_send_packet(&mut out, &peer(), b""),
            "note preferred" => put_note_preferred(&mut out, true),
            "note preferred, off after on" => {
                put_note_preferred(&mut out, true);
                put_note_preferred(&mut out, false);
            }
            "note preferred off at start" => put_note_preferred(&mut out, false),
            "ping" => put_ping(&mut out, &[1, 2, 3, 4, 5, 6, 7, 8]),
            "pong" => put_pong(&mut out, &[1, 2, 3, 4, 5, 6, 7, 8]),
            // Frames of the mesh between servers, which we do not build.
            "watch connections" | "close peer" | "forward packet" => continue,
            "packet of 65536 zero bytes" => {
                put_send_packet(&mut out, &peer(), &[0; MAX_PACKET_LEN]);
                assert_eq!(out.len(), SEND_OVERHEAD_LEN + MAX_PACKET_LEN);
                assert_eq!(out[..5], [4, 0, 1, 0, 32]);
                continue;
            }
            "packet of 65537 zero bytes" => {
                let config = ClientConfig {
                    node_key: client(),
                    host: "derp.test",
                    ideal_node: None,
                    start: Start::Fast(server().public()),
                    preferred: false,
                };
                let now = Instant::now();
                let mut machine = ClientMachine::new(config, TestRng(1), now).unwrap();
                let refused = machine.send_packet(&peer(), &vec![0; MAX_PACKET_LEN + 1], now);
                assert_eq!(refused, Err(Refused::TooLarge));
                assert_eq!(machine.send_packet(&peer(), &vec![0; MAX_PACKET_LEN], now), Ok(()));
                continue;
            }
            other => panic!("new case {other}"),
        }
        assert_eq!(out, hex(text(&case["bytes"])), "{case}");
    }
    assert_eq!(seen, 12);
}

/// A frame in the words of the reference's file; none for what a client skips.
fn describe(kind: FrameType, body: &mut [u8]) -> Result<Option<Value>, ()> {
    let Some(parsed) = ServerFrame::parse(kind, body) else { return Ok(None) };
    Ok(Some(match parsed {
        ServerFrame::ServerInfo(body) => {
            let info = ServerInfo::open(body, &client(), &server().public()).map_err(drop)?;
            json!({ "type": "server_info", "token_bucket_bytes_burst": info.burst_bytes,
                    "token_bucket_bytes_per_second": info.bytes_per_sec })
        }
        ServerFrame::RecvPacket { source, packet } => {
            json!({ "type": "packet", "src": key_hex(&source), "data": data_encoding::HEXLOWER.encode(packet) })
        }
        ServerFrame::KeepAlive => json!({ "type": "keep_alive" }),
        ServerFrame::PeerGone { peer, reason } => {
            json!({ "type": "peer_gone", "peer": key_hex(&peer), "reason": u8::from(reason) })
        }
        ServerFrame::Ping(data) => json!({ "type": "ping", "data": data_encoding::HEXLOWER.encode(&data) }),
        ServerFrame::Pong(data) => json!({ "type": "pong", "data": data_encoding::HEXLOWER.encode(&data) }),
        ServerFrame::Health(text) => {
            json!({ "type": "health", "problem": String::from_utf8(text.to_vec()).unwrap() })
        }
        ServerFrame::Restarting { reconnect_in, try_for } => {
            json!({ "type": "restarting", "reconnect_in_ms": u64::try_from(reconnect_in.as_millis()).unwrap(),
                    "try_for_ms": u64::try_from(try_for.as_millis()).unwrap() })
        }
    }))
}

#[test]
fn received_frames_agree_with_the_reference() {
    let file = load("wire/derp-recv.json");
    let mut seen = 0;
    for case in file["cases"].as_array().unwrap() {
        seen += 1;
        let mut buffer = FrameBuffer::new();
        for bytes in case["frames"].as_array().unwrap() {
            feed(&mut buffer, &hex(text(bytes)));
        }
        let mut messages = Vec::new();
        let end = loop {
            match buffer.next_frame(MAX_FRAME_LEN) {
                Err(_) => break json!({ "type": "error", "eof": false }),
                Ok(None) => break json!({ "type": "error", "eof": true }),
                Ok(Some((kind, range))) => match describe(kind, buffer.body(range)) {
                    Ok(message) => messages.extend(message),
                    Err(()) => break json!({ "type": "error", "eof": false }),
                },
            }
        };
        messages.push(end);
        // PeerPresent belongs to the mesh between servers: a client skips it.
        let mut expected = case["messages"].as_array().unwrap().clone();
        expected.retain(|message| message["type"] != "peer_present");
        assert_eq!(messages, expected, "{}", case["name"]);
    }
    assert_eq!(seen, 40);
}

#[test]
fn a_session_with_the_reference_server_is_read_and_written_the_same() {
    let file = load("wire/derp-session.json");
    let peer_key = NodePrivate::from_bytes([0x63; 32]);
    let mut seen = 0;
    for case in file["cases"].as_array().unwrap() {
        seen += 1;
        for (field, receiver) in [("server_to_client", client()), ("server_to_peer", peer_key.clone())] {
            let bytes = hex(case[field].as_str().unwrap_or(""));
            let mut again = Vec::new();
            for (kind, mut body) in frames(&bytes) {
                if kind == FrameType::SERVER_KEY {
                    put_server_key(&mut again, &parse_server_key(&body).unwrap());
                    continue;
                }
                match ServerFrame::parse(kind, &mut body).unwrap() {
                    ServerFrame::ServerInfo(body) => {
                        let info = ServerInfo::open(body, &receiver, &server().public()).unwrap();
                        assert_eq!(info, ServerInfo { version: 2, ..ServerInfo::default() });
                        put_frame(&mut again, kind, &[body]);
                    }
                    ServerFrame::RecvPacket { source, packet } => {
                        put_recv_packet(&mut again, &source, packet)
                    }
                    ServerFrame::PeerGone { peer, reason } => put_peer_gone(&mut again, &peer, reason),
                    ServerFrame::Pong(data) => put_pong(&mut again, &data),
                    other @ (ServerFrame::KeepAlive
                    | ServerFrame::Ping(_)
                    | ServerFrame::Health(_)
                    | ServerFrame::Restarting { .. }) => panic!("{other:?}"),
                }
            }
            assert_eq!(again, bytes, "{case}");
        }
        for (field, sender) in [("client_to_server", client()), ("peer_to_server", peer_key.clone())] {
            let bytes = hex(case[field].as_str().unwrap_or(""));
            let mut again = Vec::new();
            for (kind, body) in frames(&bytes) {
                match ClientFrame::parse(kind, &body).unwrap() {
                    ClientFrame::ClientInfo(body) => {
                        assert_eq!(
                            ClientInfo::open(body, &server()),
                            Ok((sender.public(), ClientInfo::default()))
                        );
                        put_frame(&mut again, kind, &[body]);
                    }
                    ClientFrame::SendPacket { destination, packet } => {
                        put_send_packet(&mut again, &destination, packet);
                    }
                    ClientFrame::NotePreferred(preferred) => put_note_preferred(&mut again, preferred),
                    ClientFrame::Ping(data) => put_ping(&mut again, &data),
                    ClientFrame::Pong(data) => put_pong(&mut again, &data),
                }
            }
            assert_eq!(again, bytes, "{case}");
        }
    }
    assert_eq!(seen, 9);
}
