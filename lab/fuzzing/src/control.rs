//! What the control server sends inside its connection.

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tsrs_base_types::NodePublic;
use tsrs_control_client::{ServerUrl, fuzzing};
use tsrs_control_netmap::{Session, read_cache, write_cache};
use tsrs_control_tailcfg::{
    EarlyNoise, FilterRule, MapRequest, MapResponse, OverTlsPublicKeyResponse, PingRequest,
    QueryFeatureResponse, RawMessage, RegisterRequest, RegisterResponse, SetDnsResponse,
    TkaBootstrapResponse, TkaInitBeginResponse, TkaSignaturesUsingKeyResponse, TkaSyncOfferResponse,
    TkaSyncSendResponse, TokenResponse, WebClientAuthResponse,
};

use crate::input::{Connection, Input, run};

/// The body of a map stream, framed and perhaps compressed.
pub fn map_stream(data: &[u8]) {
    let mut input = Input::new(data);
    let chunk_len = usize::from(input.byte()).max(1) * 16;
    let body = input.rest();
    let whole = fuzzing::map_stream([body]);
    assert_eq!(fuzzing::map_stream(body.chunks(chunk_len)), whole, "chunks change what is read");
}

/// What comes first on a new connection.
pub fn early_payload(data: &[u8]) {
    if let Ok(rest) = run(fuzzing::early_payload(Connection::new(data))) {
        assert!(data.ends_with(&rest));
    }
}

/// A request inside a ping.
pub fn c2n_request(data: &[u8]) {
    assert!(
        fuzzing::c2n_request(data).is_ok_and(|body_len| body_len <= data.len())
            || fuzzing::c2n_request(data).is_err()
    );
}

/// Map responses, one per line, folded into a netmap; the cache that is written of it reads back.
pub fn netmap(data: &[u8]) {
    let mut session = Session::new();
    let mut last = None;
    for line in data.split(|byte| *byte == b'\n') {
        let Ok(update) = session.handle_frame(line, now()) else { break };
        assert_eq!(update.netmap.is_none(), update.changes.is_empty());
        last = update.netmap.or(last);
        session.handle_time(now());
    }
    let Some(netmap) = last else { return };
    let mut cache = Vec::new();
    if let Err(error) = write_cache(&netmap, &mut cache) {
        panic!("a netmap cannot be cached: {error}");
    }
    if let Err(error) = read_cache(&cache, now()) {
        panic!("a cached netmap cannot be read: {error}");
    }
}

/// A cached netmap.
pub fn netmap_cache(data: &[u8]) {
    let _ = read_cache(data, now());
}

/// The answers to all other calls. What is understood can be written, and then reads back.
pub fn replies(data: &[u8]) {
    reads_back::<MapResponse>(data);
    reads_back::<RegisterResponse>(data);
    reads_back::<RegisterRequest>(data);
    reads_back::<MapRequest>(data);
    reads_back::<EarlyNoise>(data);
    reads_back::<OverTlsPublicKeyResponse>(data);
    reads_back::<PingRequest>(data);
    reads_back::<QueryFeatureResponse>(data);
    reads_back::<SetDnsResponse>(data);
    reads_back::<TokenResponse>(data);
    reads_back::<WebClientAuthResponse>(data);
    reads_back::<TkaBootstrapResponse>(data);
    reads_back::<TkaSyncOfferResponse>(data);
    reads_back::<TkaSyncSendResponse>(data);
    reads_back::<TkaInitBeginResponse>(data);
    reads_back::<TkaSignaturesUsingKeyResponse>(data);
    if let Ok(raw) = serde_json::from_slice::<RawMessage>(data) {
        let _ = raw.read::<FilterRule>();
    }
    if let Some(key) = NodePublic::from_binary(data) {
        assert_eq!(NodePublic::from_binary(&key.to_binary()), Some(key));
    }
    let _ = Input::new(data).text().parse::<ServerUrl>();
}

fn reads_back<T: Serialize + DeserializeOwned>(data: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(data) else { return };
    let name = std::any::type_name::<T>();
    let text = match serde_json::to_vec(&value) {
        Ok(text) => text,
        Err(error) => panic!("{name} cannot be written: {error}"),
    };
    if let Err(error) = serde_json::from_slice::<T>(&text) {
        panic!("{name} does not read back: {error}");
    }
}

fn now() -> Timestamp {
    Timestamp::constant(1_800_000_000, 0)
}
