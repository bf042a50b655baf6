//! STUN servers (data-plane sheet §5.1): only the exact form of request that clients of the field send is answered.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::net::UdpSocket;
use tsrs_base_types::RegionId;
use tsrs_tunnel_path::stun;

use crate::fault::{FaultAction, FaultTarget};
use crate::shared::Shared;

/// Longest datagram looked at; a request has 40 bytes.
const MAX_DATAGRAM_LEN: usize = 1500;

/// Answers requests for ever.
pub(crate) async fn serve(shared: Arc<Shared>, region: RegionId, socket: Arc<UdpSocket>) {
    let mut datagram = [0; MAX_DATAGRAM_LEN];
    loop {
        // An error belongs to an earlier answer that could not be delivered.
        let Ok((len, from)) = socket.recv_from(&mut datagram).await else { continue };
        let Some(tx_id) = stun::parse_request(&datagram[..len]) else { continue };
        shared.stun_requests.fetch_add(1, Ordering::Relaxed);
        let answer = stun::response(tx_id, from);
        match shared.faults.take(FaultTarget::Stun(region)) {
            None => drop(socket.send_to(&answer, from).await),
            Some(FaultAction::Delay(delay)) => {
                let socket = Arc::clone(&socket);
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    drop(socket.send_to(&answer, from).await);
                });
            }
            Some(
                FaultAction::Hang
                | FaultAction::Endless
                | FaultAction::Garbage(_)
                | FaultAction::Status { .. },
            ) => {}
        }
    }
}
