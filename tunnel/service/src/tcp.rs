//! DNS over TCP (RFC 7766): several queries per connection, answers in any order, a length in front of each message.

use std::collections::HashMap;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::time::Duration;

use crate::{DNS_PORT, QueryId};

/// Connections that may be open at once. More are refused until one closes; this host is the only client.
const MAX_CONNECTIONS: usize = 32;
/// Sockets that wait for a connection, so that several may come in one batch.
const BACKLOG: usize = 4;
/// Longest query by TCP; a longer one ends the connection.
const MAX_QUERY_LEN: usize = 4096;
/// Queries of one connection that wait for their answers; more stay in the receive buffer.
const MAX_OPEN_QUERIES: usize = 64;
/// How long a connection may idle.
const IDLE: Duration = Duration::from_secs(45);
/// Bytes of each direction's buffer: a query, or two answers.
const BUFFER_LEN: usize = 2 * (MAX_QUERY_LEN + 2);

pub(crate) struct Connections {
    sockets: Vec<SocketHandle>,
    open: HashMap<QueryId, SocketHandle>,
}

impl Connections {
    pub(crate) fn new(sockets: &mut SocketSet<'static>) -> Self {
        let mut connections = Self { sockets: Vec::new(), open: HashMap::new() };
        connections.refill(sockets);
        connections
    }

    /// Hands whole queries to `query`, closes what is done, and keeps sockets listening.
    pub(crate) fn take_queries(
        &mut self,
        sockets: &mut SocketSet<'static>,
        mut query: impl FnMut(Vec<u8>) -> QueryId,
    ) {
        // Before anything is closed: a socket that was aborted is needed until its RST went out.
        self.reap(sockets);
        for handle in &self.sockets {
            let socket = sockets.get_mut::<tcp::Socket<'_>>(*handle);
            let mut waiting = self.open.values().filter(|open| *open == handle).count();
            while waiting < MAX_OPEN_QUERIES
                && let Some(message) = next_query(socket)
            {
                self.open.insert(query(message), *handle);
                waiting += 1;
            }
            // The client has said all it will say; the answers that are still due go out before the connection closes.
            if socket.state() == tcp::State::CloseWait && waiting == 0 && socket.recv_queue() < 2 {
                socket.close();
            }
        }
        self.refill(sockets);
    }

    /// Sends an answer, if its connection is still there.
    pub(crate) fn answer(&mut self, id: QueryId, message: &[u8], sockets: &mut SocketSet<'static>) {
        let Some(handle) = self.open.remove(&id) else { return };
        let socket = sockets.get_mut::<tcp::Socket<'_>>(handle);
        let room = socket.send_capacity() - socket.send_queue();
        let Ok(len) = u16::try_from(message.len()) else { return socket.abort() };
        // A client that does not read its answers is not waited for.
        if room < message.len() + 2 {
            return socket.abort();
        }
        let sent = socket.send_slice(&len.to_be_bytes()).and_then(|_| socket.send_slice(message));
        if let Err(error) = sent {
            tracing::debug!(%error, "answer of the resolver does not go out");
        }
    }

    fn reap(&mut self, sockets: &mut SocketSet<'static>) {
        self.sockets.retain(|handle| {
            let open = sockets.get::<tcp::Socket<'_>>(*handle).is_open();
            if !open {
                sockets.remove(*handle);
                self.open.retain(|_, of| of != handle);
            }
            open
        });
    }

    fn refill(&mut self, sockets: &mut SocketSet<'static>) {
        let listening = |handle: &&SocketHandle| sockets.get::<tcp::Socket<'_>>(**handle).is_listening();
        let mut waiting = self.sockets.iter().filter(listening).count();
        while waiting < BACKLOG && self.sockets.len() < MAX_CONNECTIONS {
            let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER_LEN]);
            let mut socket = tcp::Socket::new(buffer(), buffer());
            socket.set_timeout(Some(IDLE));
            socket.set_keep_alive(None);
            // Answers are small and wait for nothing.
            socket.set_nagle_enabled(false);
            socket.set_ack_delay(None);
            // Only an open socket or port 0 is refused.
            let _ = socket.listen(DNS_PORT);
            self.sockets.push(sockets.add(socket));
            waiting += 1;
        }
    }
}

/// Takes a whole query out of the receive buffer; a length that cannot be ends the connection.
fn next_query(socket: &mut tcp::Socket<'_>) -> Option<Vec<u8>> {
    let mut prefix = [0; 2];
    if socket.peek_slice(&mut prefix) != Ok(2) {
        return None;
    }
    let len = usize::from(u16::from_be_bytes(prefix));
    if len > MAX_QUERY_LEN {
        socket.abort();
        return None;
    }
    if socket.recv_queue() < 2 + len {
        return None;
    }
    let mut framed = vec![0; 2 + len];
    socket.recv_slice(&mut framed).ok()?;
    framed.drain(..2);
    Some(framed)
}
