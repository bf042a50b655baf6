//! The keeper alone: what survives a crash between any two writes, and what control cannot do.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tsrs_control_tailcfg::{Base64, TkaSyncOfferResponse};
use tsrs_control_tka::{AumHash, Graph, limits};

use super::testing::{Folder, Server, signer};
use super::*;

struct Node {
    keeper: Keeper,
    known: Known,
    folder: Folder,
    mono: Instant,
    wall: Timestamp,
}

fn wall() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

impl Node {
    fn new() -> Self {
        let (known, mono) = (Known::default(), Instant::now());
        let keeper = Keeper::load(&known, Ok(Graph::default()));
        Self { keeper, known, folder: Folder::default(), mono, wall: wall() }
    }

    /// Talks to a server until nothing is left to say; every step goes to `write`.
    fn follow(&mut self, server: &mut Server, mut write: impl FnMut(&Known, &StoreStep)) {
        let wish = Wish::On(server.head());
        let mut call = self.keeper.poll_call(&wish, &self.known, self.mono);
        while let Some((number, asked)) = call {
            let answer = Ok(server.answer(&asked));
            let before = self.known.clone();
            let now = (self.mono, self.wall);
            call = self.keeper.handle_answer(number, answer, &mut self.known, &Rules::default(), now);
            for step in self.keeper.take_steps() {
                self.folder.write(&step);
                // The state file is written after the chain.
                write(&before, &step);
            }
        }
    }

    fn head(&self) -> Option<AumHash> {
        self.keeper.authority().map(tsrs_control_tka::Authority::head)
    }
}

#[test]
fn a_stop_between_any_two_writes_costs_no_more_than_another_question() {
    let mut server = Server::new(1, signer(1), wall());
    server.grow(4);
    let mut node = Node::new();
    let mut stops: Vec<(Known, Folder)> = Vec::new();
    let mut folder = Folder::default();
    // The first chain, longer chains, and one long and old enough to be compacted.
    for (round, growth) in [0, 30, 60, 40].into_iter().enumerate() {
        server.grow(growth);
        node.wall = wall() + SignedDuration::from_hours(24 * 30 * i64::try_from(round).unwrap());
        node.follow(&mut server, |known, step| {
            folder.write(step);
            stops.push((known.clone(), folder.clone()));
        });
        stops.push((node.known.clone(), folder.clone()));
        assert_eq!(node.head(), Some(server.authority.head()));
    }
    let count = node.keeper.graph().unwrap().len();
    assert!(count < 134 && node.folder.files.len() == count, "compacted here and on the disk: {count}");
    assert!(stops.len() > 150);
    for (known, folder) in stops {
        let mut again = Node { known: known.clone(), folder, ..Node::new() };
        again.keeper = Keeper::load(&known, Ok(again.folder.graph()));
        match (&known.lock, again.head()) {
            (None, head) => assert_eq!(head, None, "a chain without a pin counts for nothing"),
            (Some(lock), Some(head)) => {
                let seen = again.keeper.graph().unwrap().update(lock.pin.head);
                assert!(seen.is_some(), "{head} lacks what was seen");
            }
            (Some(_), None) => {
                assert!(matches!(again.keeper.entry(&Wish::Off, &known, &Rules::default()), Entry::None));
            }
        }
        again.keeper.take_steps().iter().for_each(|step| again.folder.write(step));
        again.follow(&mut server, |_, _| {});
        assert_eq!(again.head(), Some(server.authority.head()), "{:?}", again.keeper.error());
        assert_eq!(again.known.lock.as_ref().unwrap().pin.genesis, server.genesis.hash());
        // And what is on the disk then opens.
        let reopened = Keeper::load(&again.known, Ok(again.folder.graph()));
        assert_eq!(reopened.authority().unwrap().head(), server.authority.head());
    }
}

#[test]
fn a_question_without_an_answer_is_asked_again_ever_more_slowly() {
    let mut server = Server::new(1, signer(1), wall());
    let mut node = Node::new();
    let wish = Wish::On(server.head());
    let mut waits = Vec::new();
    for _ in 0..8 {
        let (number, _) = node.keeper.poll_call(&wish, &node.known, node.mono).unwrap();
        assert!(node.keeper.poll_call(&wish, &node.known, node.mono).is_none(), "one at a time");
        let failed = Err("unreachable".to_owned());
        let now = (node.mono, node.wall);
        assert!(
            node.keeper
                .handle_answer(number + 1, failed.clone(), &mut node.known, &Rules::default(), now)
                .is_none()
        );
        node.keeper.handle_answer(number, failed, &mut node.known, &Rules::default(), now);
        assert!(node.keeper.poll_call(&wish, &node.known, node.mono).is_none(), "not before its time");
        let at = node.keeper.retry_at().unwrap();
        waits.push(at.duration_since(node.mono).as_secs());
        node.mono = at;
    }
    assert_eq!(waits, [15, 30, 60, 120, 240, 480, 600, 600]);
    // News from control shorten the wait, and never to nothing.
    node.mono -= Duration::from_secs(600);
    node.keeper.note_news(node.mono);
    assert_eq!(node.keeper.retry_at(), Some(node.mono + Duration::from_secs(2)));
    node.mono += Duration::from_secs(600);
    node.follow(&mut server, |_, _| {});
    assert_eq!(node.head(), Some(server.authority.head()));
    assert!(node.keeper.error().is_none() && node.keeper.retry_at().is_none());
}

#[test]
fn answers_that_are_too_long_or_nonsense_change_nothing() {
    let mut server = Server::new(1, signer(1), wall());
    let mut node = Node::new();
    node.follow(&mut server, |_, _| {});
    let (head, known) = (node.head(), node.known.clone());
    let ours = server.head();
    server.grow(2);
    let offer = |head: &str, missing_aums: Vec<Base64>| {
        LockAnswer::Offer(TkaSyncOfferResponse {
            head: head.to_owned(),
            ancestors: vec![ours.clone()],
            missing_aums,
        })
    };
    let flood = vec![Base64(vec![0xa0]); limits::MAX_INFORM_UPDATES + 1];
    let garbage = [
        offer(&server.head(), flood),
        offer("not a hash", Vec::new()),
        offer(&server.head(), vec![Base64(vec![0xff; 40])]),
        offer(&server.head(), vec![Base64(vec![0xa0])]),
        server.answer(&Call::Bootstrap(None)),
    ];
    for answer in garbage {
        let (number, call) = node.keeper.poll_call(&Wish::On(server.head()), &node.known, node.mono).unwrap();
        assert!(matches!(call, Call::Offer(_)));
        let now = (node.mono, node.wall);
        assert!(
            node.keeper.handle_answer(number, Ok(answer), &mut node.known, &Rules::default(), now).is_none()
        );
        assert!(node.keeper.error().is_some());
        assert_eq!((node.head(), &node.known), (head, &known));
        assert!(node.keeper.take_steps().is_empty());
        node.mono = node.keeper.retry_at().unwrap();
    }
}
