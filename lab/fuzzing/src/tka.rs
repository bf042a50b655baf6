//! Tailnet Lock: updates, signatures of node keys, and the texts of offers and keys.

use jiff::Timestamp;
use tsrs_base_types::{LockPrivate, NodePublic};
use tsrs_control_tka::{
    Aum, AumHash, Authority, ExpectedAuthority, Key, MemoryStorage, NodeKeySignature, State, StateId,
    StoredAum, SyncOffer, WrappedAuthKey,
};

/// An update as control sends it, and as its file holds it.
pub fn updates(data: &[u8]) {
    if let Ok(aum) = Aum::decode(data) {
        let again = Aum::decode(&aum.encode());
        if again.as_ref().map(Aum::hash) != Ok(aum.hash()) {
            panic!("an update does not keep its hash");
        }
    }
    let _ = StoredAum::decode(data, AumHash::from_bytes([0; 32]));
}

/// A signature of a node key: nobody whose signature we did not make is let in.
pub fn signatures(data: &[u8]) {
    if let Ok(signature) = NodeKeySignature::decode(data) {
        let again = NodeKeySignature::decode(&signature.encode());
        if again.as_ref().map(NodeKeySignature::sig_digest) != Ok(signature.sig_digest()) {
            panic!("a signature does not keep its digest");
        }
        let _ = (signature.wrapping_public(), signature.authorizing_key_id(), signature.layers().count());
    }
    let Some(signer) = LockPrivate::from_seed(&[7; 32]) else { return };
    let state = State::new(vec![Key::new(signer.public(), 1, None)], vec![[5; 32]], StateId(1, 2));
    if let Ok(genesis) = Authority::create(state, &signer)
        && let Ok(authority) =
            Authority::bootstrap(&mut MemoryStorage::default(), genesis, Timestamp::UNIX_EPOCH)
        && authority.authorize(NodePublic::from_bytes([9; 32]), data).is_ok()
    {
        panic!("a node key is let in that nobody signed");
    }
}

/// Hashes, offers, pins and wrapped auth keys.
pub fn texts(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = text.parse::<AumHash>();
    let _ = AumHash::from_argument(text);
    let _ = WrappedAuthKey::parse(text);
    let _ = ExpectedAuthority::parse(text);
    let mut lines = text.lines();
    let _ = SyncOffer::parse(lines.next().unwrap_or_default(), lines);
}
