//! The handshake and the records of the connection to control.

use tokio::io::AsyncReadExt;
use tsrs_base_noise::{Protocol, Responder};
use tsrs_base_types::MachinePrivate;
use tsrs_control_client::noise::{
    INITIATION_LEN, NoiseStream, Opener, PROTOCOL_NAME, Sealer, initiate, prologue,
};

use crate::input::{Connection, Input, Seeded, run};

const VERSION: u16 = 1;

fn machine_key(number: u8) -> MachinePrivate {
    MachinePrivate::from_bytes([number; 32])
}

/// What a server answers to our initiation.
pub fn response(data: &[u8]) {
    let server = machine_key(2).public();
    let Ok((initiated, _)) = initiate(&machine_key(1), &server, VERSION, &mut Seeded(1)) else {
        panic!("no initiation");
    };
    let _ = run(initiated.finish(&mut Connection::new(data)));
}

/// What a client sends to a server: our own initiation with changes, each three bytes a place and a mask.
pub fn responder(data: &[u8]) {
    let server = machine_key(2);
    let Ok((_, mut initiation)) = initiate(&machine_key(1), &server.public(), VERSION, &mut Seeded(1)) else {
        panic!("no initiation");
    };
    let mut changed = false;
    for change in data.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % INITIATION_LEN;
        initiation[at] ^= change[2];
    }
    let Ok((_, original)) = initiate(&machine_key(1), &server.public(), VERSION, &mut Seeded(1)) else {
        return;
    };
    changed |= original[5..] != initiation[5..];
    let prologue = prologue(VERSION);
    let protocol = Protocol { name: PROTOCOL_NAME, prologue: &prologue, psk: false };
    let mut input = Input::new(&initiation[5..]);
    let (ephemeral, sealed_static) = (input.array(), input.array());
    let responder = Responder::new(protocol, server.expose_bytes(), server.public().as_bytes());
    let Ok(identified) = responder.read_static(&ephemeral, &sealed_static) else { return };
    let taken = identified.read_payload(None, input.rest()).is_ok();
    assert!(!(taken && changed), "a changed initiation was taken");
}

/// Records of a connection: as they are, and sealed with any content.
pub fn records(data: &[u8]) {
    let key = zeroize_key(3);
    let mut received = Vec::new();
    let _ = run(NoiseStream::new(Connection::new(data), &key, &key).read_to_end(&mut received));
    let (mut sealer, mut opener) = (Sealer::new(&key), Opener::new(&key));
    for (_, record) in Input::new(data).records() {
        let mut frame = Vec::new();
        let Ok(len) = sealer.seal(record, &mut frame) else { return };
        let Some((header, ciphertext)) = frame.split_first_chunk_mut::<3>() else { panic!("a short frame") };
        assert_eq!(Opener::ciphertext_len(*header), Ok(ciphertext.len()));
        assert_eq!(opener.open(ciphertext), Ok(len));
        assert_eq!(&ciphertext[..len], &record[..len]);
    }
}

fn zeroize_key(byte: u8) -> tsrs_base_noise::Secret {
    tsrs_base_noise::Secret::new([byte; 32])
}
