//! One client's connection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use rand_core::OsRng;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tsrs_base_types::NodePublic;
use tsrs_tunnel_derp::buffer::FrameBuffer;
use tsrs_tunnel_derp::frame::{
    self, ClientFrame, GoneReason, MAX_CLIENT_INFO_LEN, MAX_PACKET_LEN, PROTOCOL_VERSION,
};
use tsrs_tunnel_derp::{ClientInfo, ServerInfo};
use tsrs_tunnel_path::disco::envelope::is_disco;

use super::{Hub, Queue, Upgrade};

/// Time between keep-alives.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Time that a client has for its greeting.
const GREETING_LIMIT: Duration = Duration::from_secs(10);
/// Time that one write may take before the client counts as gone.
const WRITE_LIMIT: Duration = Duration::from_secs(2);
/// Longest frame that is read: a packet and its destination; the greeting may be longer.
const MAX_BODY_LEN: usize =
    if MAX_CLIENT_INFO_LEN > MAX_PACKET_LEN + 32 { MAX_CLIENT_INFO_LEN } else { MAX_PACKET_LEN + 32 };
/// "Not here" answers that a client gets at once, and then one a second.
const NOT_HERE_BURST: f64 = 3.0;

/// Serves one connection to its end; `stream` stands behind the request's head.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite>(
    hub: Arc<Hub>,
    stream: S,
    upgrade: Upgrade,
) -> Result<()> {
    let (mut from_client, mut to_client) = tokio::io::split(stream);
    let mut greeting = Vec::new();
    if upgrade.fast_start {
        hub.note_fast_start();
    } else {
        let key = hub.key.public();
        let hex = data_encoding::HEXLOWER.encode(key.as_bytes());
        greeting.extend_from_slice(
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\
                 Derp-Version: {PROTOCOL_VERSION}\r\nDerp-Public-Key: {hex}\r\n\r\n"
            )
            .as_bytes(),
        );
    }
    frame::put_server_key(&mut greeting, &hub.key.public());
    to_client.write_all(&greeting).await?;
    to_client.flush().await?;

    let mut buffer = FrameBuffer::new();
    let client = tokio::time::timeout(GREETING_LIMIT, greet(&hub, &mut from_client, &mut buffer))
        .await
        .context("no greeting in time")??;
    let queue = Arc::new(Queue::default());
    let mut info = Vec::new();
    ServerInfo { version: PROTOCOL_VERSION, ..ServerInfo::default() }
        .put(&mut info, &mut OsRng, &hub.key, &client)?;
    queue.push_control(|out| out.append(&mut info));

    let number = hub.join(client, Arc::clone(&queue));
    let result = tokio::select! {
        result = read(&hub, client, number, &queue, &mut from_client, &mut buffer) => result,
        result = write(&queue, &mut to_client) => result,
    };
    hub.leave(&client, number);
    result
}

/// Reads the greeting; the key in it is proved by its box.
async fn greet<R: AsyncRead + Unpin>(
    hub: &Hub,
    from_client: &mut R,
    buffer: &mut FrameBuffer,
) -> Result<NodePublic> {
    loop {
        if let Some((kind, range)) = buffer.next_frame(MAX_CLIENT_INFO_LEN)? {
            let body = buffer.body(range);
            let Some(ClientFrame::ClientInfo(body)) = ClientFrame::parse(kind, body) else {
                bail!("first frame is no greeting");
            };
            return Ok(ClientInfo::open(body, &hub.key)?.0);
        }
        fill(from_client, buffer).await?;
    }
}

async fn read<R: AsyncRead + Unpin>(
    hub: &Hub,
    client: NodePublic,
    number: u64,
    queue: &Queue,
    from_client: &mut R,
    buffer: &mut FrameBuffer,
) -> Result<()> {
    let mut not_here = Allowance { left: NOT_HERE_BURST, at: Instant::now() };
    loop {
        while let Some((kind, range)) = buffer.next_frame(MAX_BODY_LEN)? {
            match ClientFrame::parse(kind, buffer.body(range)) {
                Some(ClientFrame::SendPacket { destination, packet }) => {
                    hub.note_active(&client, number);
                    let wants_answer = is_disco(packet);
                    let passed = hub.forward(&client, &destination, Bytes::copy_from_slice(packet));
                    if !passed && wants_answer && not_here.take(Instant::now()) {
                        queue
                            .push_control(|out| frame::put_peer_gone(out, &destination, GoneReason::NotHere));
                    }
                }
                Some(ClientFrame::Ping(data)) => queue.push_control(|out| frame::put_pong(out, &data)),
                Some(ClientFrame::NotePreferred(_) | ClientFrame::Pong(_) | ClientFrame::ClientInfo(_))
                | None => {}
            }
        }
        fill(from_client, buffer).await?;
    }
}

async fn write<W: AsyncWrite + Unpin>(queue: &Queue, to_client: &mut W) -> Result<()> {
    let mut out = Vec::new();
    loop {
        match tokio::time::timeout(KEEP_ALIVE, queue.fill(&mut out)).await {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(_) => frame::put_keep_alive(&mut out),
        }
        let written = async {
            to_client.write_all(&out).await?;
            to_client.flush().await
        };
        tokio::time::timeout(WRITE_LIMIT, written).await.context("client does not read")??;
        out.clear();
    }
}

async fn fill<R: AsyncRead + Unpin>(from_client: &mut R, buffer: &mut FrameBuffer) -> Result<()> {
    let count = from_client.read(buffer.space()).await?;
    if count == 0 {
        bail!("client closed");
    }
    buffer.note_filled(count);
    Ok(())
}

/// A few at once, then one a second.
struct Allowance {
    left: f64,
    at: Instant,
}

impl Allowance {
    fn take(&mut self, now: Instant) -> bool {
        self.left = (self.left + now.saturating_duration_since(self.at).as_secs_f64()).min(NOT_HERE_BURST);
        self.at = now;
        let granted = self.left >= 1.0;
        if granted {
            self.left -= 1.0;
        }
        granted
    }
}
