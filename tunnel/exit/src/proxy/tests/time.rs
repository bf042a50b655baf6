use super::*;

const MOMENT: Duration = Duration::from_millis(1);

#[test]
fn a_proxy_that_lets_nobody_in_is_given_up_first() {
    let start = Instant::now();
    let mut handshake = Handshake::new(&socks5(), connect(), None, start).unwrap();
    handshake.poll_transmit();
    assert_eq!(handshake.poll_timeout(), start + GREETING_LIMIT);
    assert_eq!(handshake.handle_timeout(start + GREETING_LIMIT - MOMENT), Ok(()));
    assert_eq!(handshake.handle_timeout(start + GREETING_LIMIT), Err(ProxyError::Silent));
    handshake.handle_input(b"\x05\0", start).unwrap();
    assert_eq!(handshake.poll_timeout(), start + ANSWER_LIMIT);
    assert_eq!(handshake.handle_timeout(start + ANSWER_LIMIT - MOMENT), Ok(()));
    assert_eq!(handshake.handle_timeout(start + ANSWER_LIMIT), Err(ProxyError::NoAnswer));
}

#[test]
fn bytes_that_trickle_in_buy_no_time() {
    let start = Instant::now();
    for (proxy, answer) in
        [(socks5(), b"\x05\0".as_slice()), (http(), b"HTTP/1.1 200 OK\r\nA: b\r\nC: d\r\n")]
    {
        let mut handshake = Handshake::new(&proxy, connect(), None, start).unwrap();
        let before = ANSWER_LIMIT - MOMENT;
        for (index, byte) in answer.iter().enumerate() {
            let now = start + MOMENT * u32::try_from(index).unwrap();
            assert_eq!(handshake.handle_input(&[*byte], now), Ok(Step::Pending));
        }
        assert_eq!(handshake.handle_timeout(start + before), Ok(()));
        assert_eq!(handshake.handle_input(b"\x05", start + ANSWER_LIMIT), Err(ProxyError::NoAnswer));
    }
}

#[test]
fn health_of_an_http_proxy_is_waited_for_no_longer_than_a_greeting() {
    let start = Instant::now();
    let handshake = Handshake::new(&http(), Purpose::Health, None, start).unwrap();
    assert_eq!(handshake.poll_timeout(), start + GREETING_LIMIT);
}
