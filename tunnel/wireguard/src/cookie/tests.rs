//! MACs and cookies between two parties.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::*;
use crate::wire::INITIATION_LEN;

fn source(port: u16) -> Source {
    Source::Udp(SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), port)))
}

#[test]
fn a_cookie_makes_the_second_mac_right_until_it_is_old() {
    let (mut rng, start) = (rand_core::OsRng, Instant::now());
    let responder = NodePublic::from_bytes([7; 32]);
    let (own, mut maker, mut jar) =
        (MacKeys::new(&responder), CookieMaker::new(), CookieJar::new(&responder));
    let mut message = [0x5a; INITIATION_LEN];
    jar.finish(&mut message, start);
    assert!(own.mac1_verifies(&message));
    assert!(!maker.mac2_verifies(&message, &source(1), start));
    let reply = maker.reply(&message, &source(1), &own, &mut rng, start).unwrap();
    assert_eq!(reply.len(), COOKIE_REPLY_LEN);
    assert!(jar.take_cookie(&reply, start));
    jar.finish(&mut message, start);
    let almost = start + COOKIE_LIFETIME - Duration::from_millis(1);
    assert!(maker.mac2_verifies(&message, &source(1), almost));
    assert!(!maker.mac2_verifies(&message, &source(2), start));
    assert!(!maker.mac2_verifies(&message, &source(1), start + COOKIE_LIFETIME));
    // The holder of the cookie forgets it at the same age.
    jar.finish(&mut message, almost);
    assert_ne!(message[132..], [0; 16]);
    jar.finish(&mut message, start + COOKIE_LIFETIME);
    assert_eq!(message[132..], [0; 16]);
}

#[test]
fn a_reply_is_bound_to_the_message_that_it_answers() {
    let (mut rng, now) = (rand_core::OsRng, Instant::now());
    let responder = NodePublic::from_bytes([7; 32]);
    let (own, mut maker, mut jar) =
        (MacKeys::new(&responder), CookieMaker::new(), CookieJar::new(&responder));
    let mut message = [1; INITIATION_LEN];
    assert!(!jar.take_cookie(&[3; COOKIE_REPLY_LEN], now));
    jar.finish(&mut message, now);
    let reply = maker.reply(&message, &source(1), &own, &mut rng, now).unwrap();
    let mut later = [2; INITIATION_LEN];
    jar.finish(&mut later, now);
    assert!(!jar.take_cookie(&reply, now));
    for len in 0..reply.len() {
        assert!(!jar.take_cookie(&reply[..len], now));
    }
    // A key that is not the responder's cannot give cookies in its name.
    let forged =
        maker.reply(&later, &source(1), &MacKeys::new(&NodePublic::from_bytes([8; 32])), &mut rng, now);
    assert!(!jar.take_cookie(&forged.unwrap(), now));
}

#[test]
fn short_messages_have_no_macs() {
    let keys = MacKeys::new(&NodePublic::from_bytes([7; 32]));
    let maker = CookieMaker::new();
    for len in 0..32 {
        let message = vec![0; len];
        assert!(!keys.mac1_verifies(&message));
        assert!(!maker.mac2_verifies(&message, &source(1), Instant::now()));
    }
}
