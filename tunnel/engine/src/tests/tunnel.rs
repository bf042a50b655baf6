//! Two engines that know each other's address.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tsrs_base_aead::Implementation;
use tsrs_tunnel_dataplane::Event;
use tsrs_tunnel_dataplane::machine::MAX_HANDSHAKES_PER_CALL;
use tsrs_tunnel_dataplane::notice::MAX_HANDSHAKES;
use tsrs_tunnel_packet::DropReason;
use tsrs_tunnel_path::{LinkChange, Source};

use super::host::{Host, LIMIT, eventually, host, udp};
use crate::EngineEvent;
use crate::offload::{Disabled, Offload};

async fn pair(disabled: Disabled) -> [Host; 2] {
    let hosts = [host(1, disabled), host(2, disabled)];
    hosts[0].add(hosts[1].as_static_peer()).await;
    hosts[1].add(hosts[0].as_static_peer()).await;
    hosts
}

/// Packets of several sizes in bursts, both ways; every one arrives, in order and unchanged.
fn exchange([a, b]: &[Host; 2]) {
    for (from, to) in [(a, b), (b, a)] {
        for round in 0..20_u8 {
            let packets: Vec<_> = (0..10_u8)
                .map(|number| {
                    let payload = vec![round ^ number; usize::from(number % 3) * 600 + 4];
                    udp(from.tailnet, to.tailnet, &payload)
                })
                .collect();
            packets.iter().for_each(|packet| from.send(packet));
            for packet in &packets {
                assert_eq!(to.receive(), *packet);
            }
        }
    }
}

#[tokio::test]
async fn packets_cross_with_every_offload_of_the_socket_on_and_off() {
    for list in ["", "udp-gso", "udp-gro", "udp-gso,udp-gro", "equal-tail", "all"] {
        let hosts = pair(list.parse().unwrap()).await;
        exchange(&hosts);
        let metrics = hosts[0].engine.handle().metrics();
        assert_eq!(metrics.outbound.direct_packets, 200, "{list}");
        assert_eq!(metrics.inbound.direct_packets, 200, "{list}");
    }
}

#[tokio::test]
async fn offloads_can_be_switched_while_packets_flow() {
    let hosts = pair(Disabled::default()).await;
    for offload in [Offload::UdpGso, Offload::UdpGro, Offload::EqualTail, Offload::SimdCipher] {
        for on in [false, true] {
            hosts.iter().for_each(|host| host.engine.handle().set_offload(offload, on));
            exchange(&hosts);
        }
    }
}

#[tokio::test]
async fn vector_instructions_can_be_switched_off() {
    let handle = |host: &Host| host.engine.handle().clone();
    let fastest = host(1, Disabled::default());
    assert_eq!(handle(&fastest).metrics().cipher, Implementation::fastest().name());
    handle(&fastest).set_offload(Offload::SimdCipher, false);
    assert_eq!(handle(&fastest).metrics().cipher, "ring");
    let hosts = pair("simd-cipher".parse().unwrap()).await;
    assert_eq!(handle(&hosts[0]).metrics().cipher, "ring");
    exchange(&hosts);
}

#[tokio::test]
async fn tunnel_goes_on_over_a_new_socket() {
    let hosts = pair(Disabled::default()).await;
    exchange(&hosts);
    let port = hosts[0].engine.handle().port();
    hosts[0].engine.handle().change_link(LinkChange::Major, Vec::new()).await.unwrap();
    assert_eq!(hosts[0].engine.handle().port(), port);
    exchange(&hosts);
}

#[tokio::test]
async fn session_is_told_and_statuses_are_answered() {
    let mut hosts = pair(Disabled::default()).await;
    exchange(&hosts);
    let [a, b] = &mut hosts;
    a.wait_for(|event| *event == EngineEvent::Plane(Event::SessionBegun(b.key))).await;
    let status = a.engine.handle().peer_status(b.key).await.unwrap().unwrap();
    assert!(status.wireguard.has_session && status.last_received.is_some());
    assert_eq!(a.engine.handle().peer_status(a.key).await.unwrap(), None);
}

#[tokio::test]
async fn service_packets_go_to_their_queue_and_answers_to_the_host() {
    let mut host = host(1, Disabled::default());
    let service = Ipv4Addr::new(100, 100, 100, 100);
    let query = udp(host.tailnet, service, b"query");
    host.send(&query);
    assert_eq!(&*host.outputs.services.recv().await.unwrap(), &query[..]);
    let answer = udp(service, host.tailnet, b"answer");
    host.engine.handle().send_to_host(answer.clone().into_boxed_slice()).await.unwrap();
    assert_eq!(host.receive(), answer);
}

#[tokio::test]
async fn host_hears_at_once_that_nobody_has_an_address() {
    let host = host(1, Disabled::default());
    host.send(&udp(host.tailnet, Ipv4Addr::new(100, 64, 0, 9), b"anybody?"));
    let answer = tsrs_tunnel_packet::ipv4::parse(&host.receive());
    assert!(answer.is_icmp_error());
    assert_eq!(host.engine.handle().metrics().outbound.drops, [(DropReason::NoPeer, 1)]);
}

#[tokio::test]
async fn engine_stops_when_it_is_dropped_and_its_handle_says_so() {
    let host = host(1, Disabled::default());
    let handle = host.engine.handle().clone();
    drop(host);
    assert_eq!(handle.break_relays().await, Err(crate::Stopped));
}

#[tokio::test]
async fn lost_tun_is_told_and_ends_the_engine() {
    let Host { engine, mut outputs, tun, .. } = host(1, Disabled::default());
    drop(tun);
    let event = tokio::time::timeout(LIMIT, outputs.events.recv()).await.unwrap();
    assert!(matches!(event, Some(EngineEvent::Failed(_))), "{event:?}");
    drop(engine);
}

#[tokio::test]
async fn commands_have_their_turn_while_more_comes_in_than_can_be_taken() {
    let host = host(1, Disabled::default());
    let shared = Arc::clone(host.engine.handle().shared());
    let stop = Arc::new(AtomicBool::new(false));
    let flood = std::thread::spawn({
        let (shared, stop) = (Arc::clone(&shared), Arc::clone(&stop));
        let source = Source::Udp(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9));
        // An initiation with a wrong MAC. Looking into one takes longer than putting it in, so the queue stays full.
        let mut message = [0; 148];
        message[0] = 1;
        move || {
            while !stop.load(Ordering::Relaxed) {
                shared.notices.push_handshake(source, &message);
                shared.notices.flush();
            }
        }
    });
    // On a busy machine the flood pauses, too, and what is answered then says nothing.
    let mut answered = 0;
    let answers = async || {
        let full = shared.notices.handshake_count() == MAX_HANDSHAKES;
        let answer = tokio::time::timeout(LIMIT, host.engine.handle().peer_statuses()).await;
        answered += u32::from(full && shared.notices.handshake_count() > MAX_HANDSHAKES_PER_CALL);
        (answer != Ok(Ok(Vec::new())) || answered == 10).then_some(answer)
    };
    let answer = eventually(answers).await;
    stop.store(true, Ordering::Relaxed);
    flood.join().unwrap();
    assert_eq!(answer, Ok(Ok(Vec::new())));
}
