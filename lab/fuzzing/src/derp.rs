//! What relays send, and what clients send to a relay.

use std::time::Instant;

use tsrs_tunnel_derp::buffer::FrameBuffer;
use tsrs_tunnel_derp::frame::{self, ClientFrame, FrameType, MAX_FRAME_LEN, ServerFrame};
use tsrs_tunnel_derp::{ClientConfig, ClientInfo, ClientMachine, Message, ServerInfo, Start};

use crate::input::{Input, Seeded};
use crate::peer::{private_key, public_key};

/// A stream of frames in both directions.
pub fn frames(data: &[u8]) {
    let mut input = Input::new(data);
    let chunk_len = usize::from(input.byte()).max(1);
    let mut buffer = FrameBuffer::new();
    for chunk in input.rest().chunks(chunk_len) {
        buffer.space()[..chunk.len()].copy_from_slice(chunk);
        buffer.note_filled(chunk.len());
        loop {
            let Ok(frame) = buffer.next_frame(MAX_FRAME_LEN) else { return };
            let Some((kind, range)) = frame else { break };
            let body = buffer.body(range);
            frame::parse_server_key(body);
            ClientFrame::parse(kind, body);
            ServerFrame::parse(kind, body);
        }
    }
}

/// The greetings: as they are, and as any text in a right box.
pub fn greetings(data: &[u8]) {
    let (client, server) = (private_key(1), private_key(2));
    let _ = ServerInfo::open(data, &client, &server.public());
    let _ = ClientInfo::open(data, &server);
    let sealed = client.nacl_box(server.public().as_bytes()).seal(&mut Seeded(1), data);
    let _ = ServerInfo::open(&sealed, &client, &server.public());
    let greeting = [&client.public().as_bytes()[..], &sealed].concat();
    if let Ok((key, _)) = ClientInfo::open(&greeting, &server) {
        assert_eq!(key, client.public());
    }
}

/// A connection from the first byte on: HTTP response, server's key, server's greeting, frames.
pub fn client(data: &[u8]) {
    let now = Instant::now();
    let mut input = Input::new(data);
    let options = input.byte();
    let start = if options & 1 == 0 { Start::Normal } else { Start::Fast(public_key(2)) };
    let config = ClientConfig {
        node_key: private_key(1),
        host: "derp.test",
        ideal_node: None,
        start,
        preferred: options & 2 == 0,
    };
    let Ok(mut machine) = ClientMachine::new(config, Seeded(1), now) else { return };
    for (kind, record) in input.records() {
        let bytes = match kind & 7 {
            0 => record.to_vec(),
            1 => b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\n\r\n".to_vec(),
            2 => {
                let mut frame = Vec::new();
                frame::put_server_key(&mut frame, &public_key(2));
                frame
            }
            // The server's greeting with any text in its box.
            3 => {
                let sealed = private_key(2).nacl_box(public_key(1).as_bytes()).seal(&mut Seeded(2), record);
                let mut frame = Vec::new();
                frame::put_frame(&mut frame, FrameType::SERVER_INFO, &[&sealed]);
                frame
            }
            4 => {
                machine.ping(now);
                let _ = machine.send_packet(&public_key(3), record, now);
                continue;
            }
            _ => {
                let mut frame = Vec::new();
                let (kind, body) = record.split_first().unwrap_or((&0, &[]));
                frame::put_frame(&mut frame, FrameType(*kind), &[body]);
                frame
            }
        };
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let space = machine.read_space();
            let len = rest.len().min(space.len());
            space[..len].copy_from_slice(&rest[..len]);
            machine.note_read(len, now);
            rest = &rest[len..];
            loop {
                match machine.poll_message(now) {
                    Ok(Some(Message::Packet { packet, .. })) => packet.fill(0),
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => return,
                }
            }
        }
        let written = machine.output().len();
        machine.note_written(written);
        let _ = machine.handle_timeout(now);
    }
}
