use super::pair::{Server, pattern};
use super::*;

/// Moves bytes in both directions at once, ends both, and gives how long it took.
fn transfer(link: Link, down: usize, up: usize, seed: u64) -> Duration {
    let mut pair = Pair::new(link, FlowLimits::default(), seed);
    let (sent_down, sent_up) = (pattern(down, seed), pattern(up, seed + 1));
    let server = Server { to_send: sent_down.clone().into(), closes: true, ..Server::default() };
    let (client, flow) = pair.connected(server);
    let start = pair.now;
    let mut to_send: VecDeque<u8> = sent_up.clone().into();
    let mut received = Vec::new();
    pair.run_until("all bytes arrive", |pair| {
        pair.move_client(client, &mut to_send, &mut received);
        pair.servers[&flow].received.len() == up && received.len() == down
    });
    let took = pair.now - start;
    assert!(received == sent_down && pair.servers[&flow].received == sent_up, "seed {seed}");
    pair.client(client).close();
    pair.run_until("it closes", |pair| pair.servers[&flow].closed.is_some());
    assert_eq!(pair.servers[&flow].closed, Some(CloseReason::Finished), "seed {seed}");
    assert!(pair.servers[&flow].peer_ended);
    assert_eq!(pair.stack.usage(), FlowUsage::default());
    took
}

#[test]
fn bytes_arrive_in_both_directions_over_a_clean_link() {
    for (down, up) in [(0, 0), (1, 0), (0, 1), (100, 100), (300_000, 0), (0, 300_000), (200_000, 200_000)] {
        transfer(Link::CLEAN, down, up, 7);
    }
}

#[test]
fn bytes_arrive_over_links_that_lose_repeat_and_reorder() {
    for seed in 0..12 {
        let link = Link { loss: 3, repeat: 2, reorder: 5, delay_ms: 10 };
        transfer(link, 300_000, 100_000, seed);
        let bad = Link { loss: 15, repeat: 10, reorder: 20, delay_ms: 20 };
        transfer(bad, 40_000, 40_000, seed);
    }
}

#[test]
fn a_clean_link_is_filled() {
    // 5 ms each way and the client's window of 200 kB: at most 20 MB/s. A megabyte needs a few round trips of slow start.
    let took = transfer(Link::CLEAN, 1_000_000, 0, 3);
    assert!(took < Duration::from_millis(200), "{took:?}");
}

#[test]
fn losses_are_mended_faster_than_by_timeouts() {
    let link = Link { loss: 1, ..Link::CLEAN };
    // A timeout of 200 ms for each of the eight to ten losses would be far more; a lost acknowledgement may cost one.
    let took = transfer(link, 1_000_000, 0, 5);
    assert!(took < Duration::from_millis(1500), "{took:?}");
}
