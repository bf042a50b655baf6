//! Two nodes in a network that loses, doubles, delays and goes away, by seed.

use rand_core::RngCore;

use super::pair::{A, B, Flight, Pair, SeededRng, Side, packet};
use crate::wire::Kind;

struct Storm {
    pair: Pair,
    rng: SeededRng,
    delayed: Vec<Flight>,
}

impl Storm {
    fn below(&mut self, limit: u64) -> u64 {
        self.rng.next_u64() % limit
    }

    /// One step: traffic, the whims of the network, and time.
    fn step(&mut self, loss_percent: u64) {
        for side in [A, B] {
            if self.below(3) == 0 {
                let burst = self.below(5);
                for _ in 0..burst {
                    self.pair.queue(side, &packet(1));
                }
            }
            for flight in self.pair.take_outbox(side) {
                match self.below(100) {
                    roll if roll < loss_percent => {}
                    roll if roll < loss_percent + 10 => self.delayed.push(flight),
                    roll if roll < loss_percent + 13 => {
                        self.delayed.push(flight.clone());
                        self.pair.deliver(flight);
                    }
                    _ => self.pair.deliver(flight),
                }
            }
        }
        while !self.delayed.is_empty() && self.below(3) == 0 {
            let pick = usize::try_from(self.below(self.delayed.len() as u64)).unwrap();
            let flight = self.delayed.swap_remove(pick);
            self.pair.deliver(flight);
        }
        let pause = [5, 50, 900, 4_000, 30_000][usize::try_from(self.below(5)).unwrap()];
        let millis = self.below(pause);
        self.pass(millis);
    }

    /// Time passes without the network: what timers send waits for the next step.
    fn pass(&mut self, millis: u64) {
        self.pair.now += std::time::Duration::from_millis(millis);
        let now = self.pair.now;
        for side in [A, B] {
            self.pair.node(side).device.handle_timeout(now);
            self.pair.node(side).drain();
        }
    }
}

#[test]
fn after_any_storm_the_tunnel_works_again() {
    for seed in 0..25 {
        let pair = Pair::with_seeds(seed * 2 + 100, seed * 2 + 101);
        let mut storm = Storm { pair, rng: SeededRng(seed), delayed: Vec::new() };
        for round in 0..200 {
            let loss = if round / 40 % 2 == 0 { 15 } else { 70 };
            storm.step(loss);
        }
        let mut pair = storm.pair;
        // Handshakes are spaced, whatever happens.
        let spaced = |side: Side| {
            let times: Vec<_> = pair
                .log
                .iter()
                .filter(|sent| sent.from == side && sent.kind == Kind::Initiation)
                .map(|sent| sent.at)
                .collect();
            times.windows(2).all(|pair| pair[1] - pair[0] >= crate::limits::REKEY_TIMEOUT)
        };
        assert!(spaced(A) && spaced(B), "seed {seed}");
        // Calm: whatever state the two are in, a packet each way gets through within two repetitions and silence.
        pair.run();
        for side in [A, B] {
            pair.send(side, &packet(7));
        }
        pair.advance_secs(32);
        for side in [A, B] {
            pair.node(side).received.clear();
            pair.send(side.other(), &packet(9));
            pair.advance_secs(1);
            assert!(pair.node(side).received.contains(&packet(9)), "seed {seed} {side:?}");
        }
        // At most three sessions, and everything is forgotten in the end.
        for side in [A, B] {
            assert!(pair.node(side).receive.len() <= 3);
        }
        pair.advance_secs(1000);
        for side in [A, B] {
            assert!(pair.node(side).receive.is_empty() && pair.node(side).send.is_empty());
            assert_eq!(pair.node(side).device.poll_timeout(), None, "seed {seed}");
            assert_eq!(pair.node(side).device.index_count(), 0, "seed {seed}");
        }
    }
}
