//! The server's side of the handshake, for tests.

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tsrs_base_noise::{Protocol, Responder, Split};
use tsrs_base_types::{MachinePrivate, MachinePublic};
use zeroize::Zeroizing;

use super::*;

/// A server key and what the server learnt.
pub(crate) struct Accepted {
    pub(crate) client: MachinePublic,
    pub(crate) version: u16,
    pub(crate) response: Vec<u8>,
    pub(crate) split: Split,
}

/// Answers an initiation; `None` when it does not authenticate.
pub(crate) fn accept(server_key: &MachinePrivate, initiation: &[u8]) -> Option<Accepted> {
    assert_eq!(initiation.len(), INITIATION_LEN);
    let version = u16::from_be_bytes([initiation[0], initiation[1]]);
    assert_eq!(initiation[2..5], [TYPE_INITIATION, 0, 96]);
    let prologue = prologue(version);
    let protocol = Protocol { name: PROTOCOL_NAME, prologue: &prologue, psk: false };
    let (ready, payload) =
        Responder::new(protocol, server_key.expose_bytes(), server_key.public().as_bytes())
            .read_static(&initiation[5..37].try_into().unwrap(), &initiation[37..85].try_into().unwrap())
            .ok()
            .map(|identified| {
                let client = MachinePublic::from_bytes(*identified.initiator_static());
                identified
                    .read_payload(None, &initiation[85..])
                    .map(|(ready, payload)| ((ready, client), payload))
            })?
            .ok()?;
    assert!(payload.is_empty());
    let (ready, client) = ready;
    let (fields, split) = ready.respond(&Zeroizing::new([0x77; 32]), &[0; 32], &[]).unwrap();
    let response = [&[TYPE_RESPONSE, 0, 48], &fields.ephemeral[..], &fields.sealed_payload].concat();
    Some(Accepted { client, version, response, split })
}

/// Sends the response and goes on as the server.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    accepted: &Accepted,
) -> NoiseStream<S> {
    stream.write_all(&accepted.response).await.unwrap();
    let split = &accepted.split;
    NoiseStream::new(stream, &split.responder_to_initiator, &split.initiator_to_responder)
}
