//! Reading cases.

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use serde_json::Value;
use tsrs_base_types::{LockPrivate, LockPublic, NodePublic};
use tsrs_lab_vectors::json;

use crate::{Aum, AumHash, Authority, MemoryStorage, Storage};

/// The cases of a file below `tka/`, and how many there are.
pub(super) fn cases(file: &str) -> Vec<Value> {
    list(&file_of(file)["cases"]).to_vec()
}

pub(super) fn file_of(file: &str) -> Value {
    json(&format!("tka/{file}.json"))
}

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not text: {value}"))
}

pub(super) fn flag(value: &Value) -> bool {
    value.as_bool().unwrap_or_else(|| panic!("not a flag: {value}"))
}

pub(super) fn number(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap_or_else(|| panic!("not a number: {value}"))).unwrap()
}

pub(super) fn hex(value: &Value) -> Vec<u8> {
    tsrs_lab_vectors::hex(text(value))
}

pub(super) fn to_hex(bytes: impl AsRef<[u8]>) -> String {
    HEXLOWER.encode(bytes.as_ref())
}

pub(super) fn aum(value: &Value) -> Aum {
    Aum::decode(&hex(value)).unwrap()
}

pub(super) fn aums(value: &Value) -> Vec<Aum> {
    list(value).iter().map(aum).collect()
}

pub(super) fn hash(value: &Value) -> AumHash {
    text(value).parse().unwrap()
}

pub(super) fn node(value: &Value) -> NodePublic {
    NodePublic::from_bytes(hex(value).try_into().unwrap())
}

pub(super) fn lock_public(value: &Value) -> LockPublic {
    LockPublic::from_bytes(hex(value).try_into().unwrap())
}

/// The key `S1`, `S2`, …: its seed is 32 times the number.
pub(super) fn signer(name: &str) -> LockPrivate {
    let number: u8 = name.strip_prefix('S').unwrap().parse().unwrap();
    LockPrivate::from_seed(&[number; 32]).unwrap()
}

pub(super) fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

/// An authority in a fresh storage.
pub(super) fn bootstrap(genesis: Aum) -> (Authority, MemoryStorage) {
    let mut storage = MemoryStorage::default();
    let authority = Authority::bootstrap(&mut storage, genesis, now()).unwrap();
    (authority, storage)
}

/// The storage opened again must give what the running authority says.
pub(super) fn assert_reopens(authority: &Authority, storage: &MemoryStorage) {
    let again = Authority::open(storage.graph()).unwrap();
    assert_eq!(again.head(), authority.head());
    assert_eq!(again.state(), authority.state());
}
