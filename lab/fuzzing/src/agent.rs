//! The LocalAPI in both directions, and the state file.

use data_encoding::BASE64;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tsrs_agent_core::bus::parse_mask;
use tsrs_agent_core::config_file::ConfigFile;
use tsrs_agent_core::state_file;
use tsrs_agent_core::status::WhoIsAddr;
use tsrs_agent_core::takeover::from_tailscaled;
use tsrs_agent_localapi::json::from_client;
use tsrs_agent_localapi::{
    MaskedPrefs, Notify, PingKind, PingResult, Prefs, StartOptions, Status, WhoIs, lock, requests,
};

use crate::input::Input;

/// Bodies and parameters of clients.
pub fn localapi(data: &[u8]) {
    let prefs = from_client::<Prefs>(data);
    if let Ok(prefs) = &prefs {
        write(prefs);
    }
    if let (Ok(edit), Ok(mut prefs)) = (from_client::<MaskedPrefs>(data), prefs) {
        edit.apply_to(&mut prefs);
    }
    let _ = from_client::<StartOptions>(data);
    reads_back::<lock::SignRequest>(data);
    reads_back::<lock::ModifyRequest>(data);
    reads_back::<lock::InitRequest>(data);
    reads_back::<lock::WrapRequest>(data);
    reads_back::<lock::RevokeRequest>(data);
    reads_back::<lock::LinkRequest>(data);
    let text = Input::new(data).text();
    let _ = parse_mask(Some(&text));
    let _ = text.parse::<PingKind>();
    WhoIsAddr::parse(&text);
}

/// What the command line reads of a daemon, ours or another.
pub fn answers(data: &[u8]) {
    reads_back::<Prefs>(data);
    reads_back::<Notify>(data);
    reads_back::<Status>(data);
    reads_back::<PingResult>(data);
    reads_back::<WhoIs>(data);
    reads_back::<requests::DnsQueryAnswer>(data);
    reads_back::<requests::DnsOsConfig>(data);
    reads_back::<requests::Reloaded>(data);
    reads_back::<requests::ErrorBody>(data);
    reads_back::<lock::LockStatus>(data);
    reads_back::<Vec<lock::LockUpdate>>(data);
    reads_back::<lock::Disablement>(data);
}

/// The file of `--config`.
pub fn config_file(data: &[u8]) {
    let _ = ConfigFile::parse(&Input::new(data).text());
}

/// A state file of tailscaled: as it is, and as any text in each of its entries. What is taken over can be written.
pub fn takeover(data: &[u8]) {
    let _ = from_tailscaled(data);
    let mut file = Map::new();
    let key = format!("privkey:{}", "44".repeat(32));
    file.insert("_machinekey".to_owned(), Value::String(BASE64.encode(key.as_bytes())));
    let names = ["_profiles", "profile-ab12", "_current-profile", "_machinekey"];
    for (kind, record) in Input::new(data).records() {
        let name = names[usize::from(kind & 3)];
        file.insert(name.to_owned(), Value::String(BASE64.encode(record)));
    }
    let Ok(loaded) = from_tailscaled(&write(&file)) else { return };
    assert!(state_file::encode(&loaded.state).is_ok(), "a state that was taken over cannot be written");
}

/// The state file. What is read can be written, and then reads back.
pub fn state_file(data: &[u8]) {
    let Ok(loaded) = state_file::decode(data) else { return };
    let Ok(text) = state_file::encode(&loaded.state) else { panic!("a state cannot be written") };
    match state_file::decode(&text) {
        Ok(again) => assert_eq!(again.state, loaded.state),
        Err(error) => panic!("a state does not read back: {error}"),
    }
}

/// A DNS message that `dns query` shows.
pub fn dns_message(data: &[u8]) {
    tsrs_agent_cli::fuzzing::dns_message(data);
}

fn reads_back<T: Serialize + DeserializeOwned>(data: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(data) else { return };
    let text = write(&value);
    if let Err(error) = serde_json::from_slice::<T>(&text) {
        panic!("{} does not read back: {error}", std::any::type_name::<T>());
    }
}

fn write<T: Serialize>(value: &T) -> Vec<u8> {
    match serde_json::to_vec(value) {
        Ok(text) => text,
        Err(error) => panic!("{} cannot be written: {error}", std::any::type_name::<T>()),
    }
}
