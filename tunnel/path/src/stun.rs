//! STUN binding requests and responses (RFC 8489 §5, §14; data-plane sheet §5.1).
//!
//! The request has one exact form of 40 bytes, because Tailscale's STUN servers ignore any other: a SOFTWARE attribute
//! with the name `tailnode` and a FINGERPRINT.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! |0 0|     STUN Message Type     |         Message Length        |
//! |                    Magic Cookie  0x2112a442                   |
//! |                  Transaction ID (12 bytes)                    |
//! |  attributes: type u16, length u16, value, padding to 4 bytes  |
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Length of a request in bytes.
pub const REQUEST_LEN: usize = 40;

const HEADER_LEN: usize = 20;
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
const BINDING_SUCCESS: [u8; 2] = [0x01, 0x01];
const ATTR_MAPPED_ADDRESS: u16 = 0x0001;
const ATTR_XOR_MAPPED_ADDRESS: u16 = 0x0020;
/// Code of XOR-MAPPED-ADDRESS before RFC 5389; some servers still send it.
const ATTR_XOR_MAPPED_ADDRESS_OLD: u16 = 0x8020;
/// SOFTWARE attribute with its header.
const SOFTWARE: [u8; 12] = *b"\x80\x22\x00\x08tailnode";
/// Header of the FINGERPRINT attribute.
const FINGERPRINT_HEADER: [u8; 4] = [0x80, 0x28, 0x00, 0x04];
/// What the CRC-32 of a FINGERPRINT is combined with (RFC 8489 §14.7).
const FINGERPRINT_XOR: u32 = 0x5354_554e;
/// Where the FINGERPRINT attribute of a request begins; the CRC covers everything before it.
const FINGERPRINT_OFFSET: usize = REQUEST_LEN - 8;
const FAMILY_IPV4: u8 = 1;
const FAMILY_IPV6: u8 = 2;

/// Transaction id of a request, echoed by the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxId(pub [u8; 12]);

/// A binding response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response {
    /// The request it answers.
    pub tx_id: TxId,
    /// Our address as the server saw it.
    pub mapped: SocketAddr,
}

/// Whether a datagram is a STUN message of any kind.
pub fn is_stun(datagram: &[u8]) -> bool {
    datagram.len() >= HEADER_LEN && datagram[0] & 0xc0 == 0 && datagram[4..8] == MAGIC_COOKIE
}

/// Whether a datagram is a binding message of STUN: the form that the classifier of the UDP socket takes out.
pub fn is_binding(datagram: &[u8]) -> bool {
    is_stun(datagram) && datagram[1] == 0x01
}

/// The one form of request that Tailscale's servers answer.
pub fn request(tx_id: TxId) -> [u8; REQUEST_LEN] {
    let mut out = [0; REQUEST_LEN];
    out[..2].copy_from_slice(&BINDING_REQUEST);
    out[2..4].copy_from_slice(&[0, 20]);
    out[4..8].copy_from_slice(&MAGIC_COOKIE);
    out[8..20].copy_from_slice(&tx_id.0);
    out[20..FINGERPRINT_OFFSET].copy_from_slice(&SOFTWARE);
    out[FINGERPRINT_OFFSET..36].copy_from_slice(&FINGERPRINT_HEADER);
    let crc = crc32fast::hash(&out[..FINGERPRINT_OFFSET]) ^ FINGERPRINT_XOR;
    out[36..].copy_from_slice(&crc.to_be_bytes());
    out
}

/// The transaction id of a request in the form of [`request`]; servers answer nothing else.
pub fn parse_request(datagram: &[u8]) -> Option<TxId> {
    let tx_id = TxId(datagram.get(8..HEADER_LEN)?.try_into().ok()?);
    (datagram == request(tx_id)).then_some(tx_id)
}

/// A binding response with an XOR-MAPPED-ADDRESS, as servers send it.
pub fn response(tx_id: TxId, mapped: SocketAddr) -> Vec<u8> {
    let value_len: u8 = if mapped.is_ipv4() { 8 } else { 20 };
    let mut out = Vec::with_capacity(HEADER_LEN + 4 + usize::from(value_len));
    out.extend_from_slice(&BINDING_SUCCESS);
    out.extend_from_slice(&[0, 4 + value_len]);
    out.extend_from_slice(&MAGIC_COOKIE);
    out.extend_from_slice(&tx_id.0);
    out.extend_from_slice(&ATTR_XOR_MAPPED_ADDRESS.to_be_bytes());
    out.extend_from_slice(&[0, value_len, 0, if mapped.is_ipv4() { FAMILY_IPV4 } else { FAMILY_IPV6 }]);
    let mask = xor_mask(tx_id);
    let [p0, p1] = mapped.port().to_be_bytes();
    out.extend_from_slice(&[p0 ^ mask[0], p1 ^ mask[1]]);
    match mapped.ip() {
        IpAddr::V4(ip) => out.extend(ip.octets().iter().zip(mask).map(|(byte, mask)| byte ^ mask)),
        IpAddr::V6(ip) => out.extend(ip.octets().iter().zip(mask).map(|(byte, mask)| byte ^ mask)),
    }
    out
}

/// Reads a binding response: XOR-MAPPED-ADDRESS where there is one, else MAPPED-ADDRESS. Unknown attributes are skipped.
pub fn parse_response(datagram: &[u8]) -> Option<Response> {
    if !is_stun(datagram) || datagram[..2] != BINDING_SUCCESS {
        return None;
    }
    let attributes_len = usize::from(u16::from_be_bytes([datagram[2], datagram[3]]));
    let tx_id = TxId(datagram[8..HEADER_LEN].try_into().ok()?);
    let mut rest = datagram.get(HEADER_LEN..HEADER_LEN + attributes_len)?;
    let mut plain = None;
    while let Some((&[t0, t1, l0, l1], body)) = rest.split_first_chunk::<4>() {
        let value_len = usize::from(u16::from_be_bytes([l0, l1]));
        let value = body.get(..value_len)?;
        match u16::from_be_bytes([t0, t1]) {
            ATTR_XOR_MAPPED_ADDRESS | ATTR_XOR_MAPPED_ADDRESS_OLD => {
                return Some(Response { tx_id, mapped: parse_address(value, xor_mask(tx_id))? });
            }
            ATTR_MAPPED_ADDRESS => plain = plain.or(Some(parse_address(value, [0; 16])?)),
            _ => {}
        }
        // Values are padded to a multiple of four bytes; the padding of the last one may be absent.
        rest = body.get(value_len.next_multiple_of(4)..).unwrap_or_default();
    }
    plain.map(|mapped| Response { tx_id, mapped })
}

/// Cookie, then transaction id: what addresses are combined with (RFC 8489 §14.2).
fn xor_mask(tx_id: TxId) -> [u8; 16] {
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&MAGIC_COOKIE);
    mask[4..].copy_from_slice(&tx_id.0);
    mask
}

/// Value of an address attribute: zero, family, port, address. More bytes than the family needs are tolerated.
fn parse_address(value: &[u8], mask: [u8; 16]) -> Option<SocketAddr> {
    let (&[_, family, p0, p1], address) = value.split_first_chunk::<4>()?;
    let port = u16::from_be_bytes([p0 ^ mask[0], p1 ^ mask[1]]);
    let ip = match family {
        FAMILY_IPV4 => {
            let raw = address.first_chunk::<4>()?;
            IpAddr::V4(Ipv4Addr::from(std::array::from_fn::<u8, 4, _>(|i| raw[i] ^ mask[i])))
        }
        FAMILY_IPV6 => {
            let raw = address.first_chunk::<16>()?;
            IpAddr::V6(Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|i| raw[i] ^ mask[i])))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tsrs_lab_vectors::{hex, json};

    fn tx_id(value: &serde_json::Value) -> TxId {
        TxId(hex(value.as_str().unwrap()).try_into().unwrap())
    }

    #[test]
    fn requests_and_responses_agree_with_the_reference() {
        let file = json("wire/stun.json");
        for case in file["cases"].as_array().unwrap() {
            let id = tx_id(&case["tx_id"]);
            let bytes = hex(case["bytes"].as_str().unwrap());
            if case["what"] == "request" {
                assert_eq!(request(id).as_slice(), bytes, "{case}");
                assert_eq!(parse_request(&bytes), Some(id));
            } else {
                let mapped = case["addr"].as_str().unwrap().parse().unwrap();
                assert_eq!(response(id, mapped), bytes, "{case}");
                assert_eq!(parse_response(&bytes), Some(Response { tx_id: id, mapped }));
            }
        }
    }

    #[test]
    fn parser_verdicts_agree_with_the_reference() {
        let file = json("wire/stun.json");
        let cases = file["parse"].as_array().unwrap();
        assert_eq!(cases.len() + file["cases"].as_array().unwrap().len(), 59);
        for case in cases {
            let bytes = hex(case["bytes"].as_str().unwrap());
            assert_eq!(is_stun(&bytes), case["is_stun"].as_bool().unwrap(), "{case}");
            let request_ok = case["request_ok"].as_bool().unwrap();
            assert_eq!(parse_request(&bytes), request_ok.then(|| tx_id(&case["request_tx_id"])), "{case}");
            let response_ok = case["response_ok"].as_bool().unwrap();
            let expected = response_ok.then(|| Response {
                tx_id: tx_id(&case["tx_id"]),
                mapped: case["addr"].as_str().unwrap().parse().unwrap(),
            });
            assert_eq!(parse_response(&bytes), expected, "{case}");
        }
    }

    #[test]
    fn no_truncation_of_a_response_parses_or_panics() {
        let id = TxId([7; 12]);
        for mapped in ["192.0.2.1:1234", "[2001:db8::1]:5"] {
            let whole = response(id, mapped.parse().unwrap());
            for len in 0..whole.len() {
                assert_eq!(parse_response(&whole[..len]), None);
            }
        }
        for len in 0..REQUEST_LEN {
            assert_eq!(parse_request(&request(id)[..len]), None);
        }
    }
}
