use serde_json::json;
use tsrs_base_types::{LockPrivate, MachinePublic, NodePublic};
use tsrs_control_tailcfg::{MapResponse, RegisterResponse};
use tsrs_control_tka::{Key, MemoryStorage, SigKind, StateId, Storage as _, UpdateBuilder};

use super::*;
use crate::config::LabConfig;
use crate::keys::KeySpec;
use crate::tailnet::Outcome;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;
const SECRET: [u8; 32] = [9; 32];

/// Lock key of the node with this number.
fn lock_key(number: u8) -> LockPrivate {
    LockPrivate::from_seed(&[number; 32]).unwrap()
}

fn node_key(number: u8) -> NodePublic {
    NodePublic::from_bytes([number; 32])
}

fn register(tailnet: &mut Tailnet, number: u8, members: serde_json::Value) -> RegisterResponse {
    let mut request = json!({
        "Version": 133, "NodeKey": node_key(number), "NLKey": lock_key(number).public(),
        "Hostinfo": {"Hostname": format!("host{}", number % 100)},
    });
    request.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    let request: RegisterRequest = serde_json::from_value(request).unwrap();
    // A machine keeps its number when its node key changes by 100.
    let machine = MachinePublic::from_bytes([number % 100; 32]);
    match tailnet.register(machine, &request, NOW) {
        Outcome::Answer(answer) => *answer,
        Outcome::Wait(_) => panic!("must not wait"),
    }
}

fn auth(key: &str) -> serde_json::Value {
    json!({"Auth": {"AuthKey": key}})
}

/// Nodes 1 and 2, without a lock.
fn pair() -> Tailnet {
    let config = LabConfig { key_lifetime: None, ..LabConfig::default() };
    let mut tailnet = Tailnet::new(&config, "https://127.0.0.1".to_owned(), Default::default(), NOW);
    for number in [1, 2] {
        let key = tailnet.create_key(KeySpec::single_use(), NOW);
        assert_eq!(register(&mut tailnet, number, auth(&key)).error, "");
    }
    tailnet
}

fn genesis(trusted: &[u8]) -> Aum {
    let keys = trusted.iter().map(|number| Key::new(lock_key(*number).public(), 1, None)).collect();
    let value = DisablementSecret::from_bytes(SECRET.to_vec()).value().unwrap();
    Authority::create(State::new(keys, vec![value], StateId(1, 2)), &lock_key(trusted[0])).unwrap()
}

fn direct(node: u8, signer: u8) -> Base64 {
    let wrapping = Some(lock_key(node % 100).public());
    Base64(NodeKeySignature::direct(node_key(node), wrapping, &lock_key(signer)).unwrap().encode())
}

fn begin(genesis: &Aum) -> TkaInitBeginRequest {
    TkaInitBeginRequest { genesis_aum: Base64(genesis.encode()), ..TkaInitBeginRequest::default() }
}

/// A lock that trusts node 1, which has signed both nodes.
fn locked() -> Tailnet {
    let mut tailnet = pair();
    let needed = tailnet.begin_lock(&begin(&genesis(&[1]))).unwrap().need_signatures;
    assert_eq!(needed.len(), 2);
    let signatures = needed.iter().map(|node| {
        let number = node.node_public.as_bytes()[0];
        assert_eq!(node.rotation_pubkey, Some(Base64(lock_key(number).public().as_bytes().to_vec())));
        (node.node_id, direct(number, 1))
    });
    let request =
        TkaInitFinishRequest { signatures: signatures.collect(), ..TkaInitFinishRequest::default() };
    tailnet.finish_lock(&request, NOW).unwrap();
    tailnet
}

fn sign(tailnet: &mut Tailnet, signature: Base64) -> Result<TkaSubmitSignatureResponse> {
    tailnet.submit_signature(&TkaSubmitSignatureRequest { signature, ..Default::default() })
}

/// The message that node 1 gets for a change.
fn delta<T>(tailnet: &mut Tailnet, change: impl FnOnce(&mut Tailnet) -> T) -> MapResponse {
    let before = tailnet.view(NodeId(1), NOW).unwrap();
    change(tailnet);
    tailnet.view(NodeId(1), NOW).unwrap().since(&before, NOW).unwrap()
}

/// A node's copy of the chain, and an update that trusts one more key.
fn add_key(tailnet: &Tailnet, number: u8) -> (MemoryStorage, Authority, Vec<Base64>) {
    let first = Aum::decode(&tailnet.lock.chain.as_ref().unwrap().genesis().0).unwrap();
    let mut storage = MemoryStorage::default();
    let authority = Authority::bootstrap(&mut storage, first, NOW).unwrap();
    let signer = lock_key(1);
    let mut builder = UpdateBuilder::new(&authority, &signer);
    builder.add_key(Key::new(lock_key(number).public(), 1, None)).unwrap();
    let updates = builder.finish(&authority, storage.graph()).unwrap();
    let updates = updates.iter().map(|aum| Base64(aum.encode())).collect();
    (storage, authority, updates)
}

fn send(tailnet: &mut Tailnet, missing_aums: Vec<Base64>) -> Result<TkaSyncSendResponse> {
    tailnet.lock.sync_send(&TkaSyncSendRequest { missing_aums, ..Default::default() }, NOW)
}

fn end(tailnet: &mut Tailnet, secret: &[u8]) -> Result<TkaDisableResponse> {
    let head = tailnet.lock.head().unwrap_or_default();
    let state = tailnet.lock.state_to_end(&head)?;
    let disablement_secret = SecretBase64::new(secret.to_vec());
    let request = TkaDisableRequest { disablement_secret: disablement_secret.clone(), ..Default::default() };
    check_secret(&state, &request)?;
    tailnet.end_lock(&state, disablement_secret)
}

#[test]
fn a_lock_reaches_the_nodes_with_their_signatures_in_one_message() {
    let mut tailnet = pair();
    assert!(tailnet.view(NodeId(1), NOW).unwrap().full(NOW).tka_info.is_none());
    let message = delta(&mut tailnet, |tailnet| *tailnet = locked());
    assert_eq!(message.tka_info.unwrap().head, genesis(&[1]).hash().to_string());
    assert_eq!(message.peers_changed[0].key_signature, direct(2, 1));
    assert_eq!(message.node.unwrap().key_signature, direct(1, 1));
}

#[test]
fn a_lock_begins_with_good_signatures_only_and_once() {
    let mut tailnet = pair();
    let finish = |signatures| TkaInitFinishRequest { signatures, ..TkaInitFinishRequest::default() };
    assert!(tailnet.finish_lock(&finish([].into()), NOW).is_err(), "nothing was proposed");
    let mut unsigned = genesis(&[1]);
    unsigned.signatures.clear();
    assert!(tailnet.begin_lock(&begin(&unsigned)).is_err());
    tailnet.begin_lock(&begin(&genesis(&[1]))).unwrap();
    for bad in [direct(1, 2), direct(2, 1), Base64(vec![1])] {
        assert!(tailnet.finish_lock(&finish([(NodeId(1), bad)].into()), NOW).is_err());
    }
    assert!(tailnet.finish_lock(&finish([(NodeId(9), direct(9, 1))].into()), NOW).is_err());
    tailnet.finish_lock(&finish([(NodeId(1), direct(1, 1))].into()), NOW).unwrap();
    assert!(tailnet.nodes[&NodeId(2)].key_signature.is_empty());
    assert!(tailnet.begin_lock(&begin(&genesis(&[2]))).is_err());
}

#[test]
fn a_signature_is_kept_if_a_trusted_key_made_it_for_a_known_node() {
    let mut tailnet = locked();
    let key = tailnet.create_key(KeySpec::single_use(), NOW);
    register(&mut tailnet, 3, auth(&key));
    for bad in [direct(3, 2), direct(4, 1), Base64(vec![0xa0])] {
        assert!(sign(&mut tailnet, bad).is_err());
    }
    let message = delta(&mut tailnet, |tailnet| sign(tailnet, direct(3, 1)).unwrap());
    assert_eq!(message.peers_changed[0].key_signature, direct(3, 1));
    assert!(message.tka_info.is_none());
    let using = |key: u8| {
        let key_id = Base64(lock_key(key).public().as_bytes().to_vec());
        let request = TkaSignaturesUsingKeyRequest { key_id, ..Default::default() };
        tailnet.signatures_using_key(&request).unwrap().signatures.len()
    };
    assert_eq!((using(1), using(2)), (3, 0));
}

#[test]
fn a_new_node_key_is_asked_for_its_signature_before_the_auth_key_is_used_up() {
    let mut tailnet = locked();
    let key = tailnet.create_key(KeySpec::single_use(), NOW);
    let mut request = auth(&key);
    request["OldNodeKey"] = json!(node_key(2));
    let asked = register(&mut tailnet, 102, request.clone());
    assert_eq!(asked.node_key_signature, Some(direct(2, 1)));
    assert_eq!(tailnet.nodes[&NodeId(2)].key, node_key(2));
    let renewed = NodeKeySignature::resign(&direct(2, 1).0, node_key(202), &lock_key(2)).unwrap();
    request["NodeKeySignature"] = json!(Base64(renewed.clone()));
    request["NLKey"] = json!(lock_key(2).public());
    let mut answer = RegisterResponse::default();
    let message = delta(&mut tailnet, |tailnet| answer = register(tailnet, 202, request));
    assert_eq!((answer.error.as_str(), answer.node_key_signature), ("", None));
    let change = &message.peers_changed_patch[0];
    assert_eq!((change.key, &change.key_signature), (Some(node_key(202)), &Some(Base64(renewed.clone()))));
    let node = &tailnet.nodes[&NodeId(2)];
    assert_eq!((node.key, &node.key_signature.0), (node_key(202), &renewed));
    assert_eq!(NodeKeySignature::decode(&renewed).unwrap().kind(), SigKind::ROTATION);
}

#[test]
fn after_a_login_by_page_the_signature_is_asked_for_once() {
    let mut tailnet = locked();
    let request = json!({"OldNodeKey": node_key(2), "NLKey": lock_key(2).public()});
    let url = register(&mut tailnet, 102, request.clone()).auth_url;
    let id = url.rsplit('/').next().unwrap();
    assert!(tailnet.decide_login(id, Some(""), NOW));
    assert!(tailnet.nodes[&NodeId(2)].key_signature.is_empty(), "the old signature is not for this key");
    let asked = register(&mut tailnet, 102, request.clone());
    assert_eq!(asked.node_key_signature, Some(direct(2, 1)));
    // A node that cannot sign comes back without one, and joins unsigned.
    let answer = register(&mut tailnet, 102, request);
    assert_eq!((answer.node_key_signature, answer.login.login_name.as_str()), (None, "lab@lab.test"));
}

#[test]
fn a_machine_that_lost_its_keys_is_not_asked_and_a_bad_signature_is_not_kept() {
    let mut tailnet = locked();
    let key = tailnet.create_key(KeySpec::single_use(), NOW);
    let mut request = auth(&key);
    request["NodeKeySignature"] = json!(direct(102, 2));
    assert_eq!(register(&mut tailnet, 102, request).node_key_signature, None);
    let node = &tailnet.nodes[&NodeId(2)];
    assert_eq!((node.key, node.key_signature.is_empty()), (node_key(102), true));
    assert_eq!(register(&mut tailnet, 102, json!({})).node_key_signature, None);
}

#[test]
fn updates_travel_both_ways_and_bad_ones_are_refused() {
    let mut tailnet = locked();
    let (storage, authority, updates) = add_key(&tailnet, 2);
    let offer = authority.sync_offer(storage.graph());
    let request = TkaSyncOfferRequest {
        head: offer.head.to_string(),
        ancestors: offer.ancestors.iter().map(ToString::to_string).collect(),
        ..Default::default()
    };
    assert!(tailnet.lock.sync_offer(&request).unwrap().missing_aums.is_empty());
    let mut forged = Aum::decode(&updates[0].0).unwrap();
    forged.signatures.clear();
    forged.sign(&lock_key(2));
    assert!(send(&mut tailnet, vec![Base64(forged.encode())]).is_err());
    let message = delta(&mut tailnet, |tailnet| send(tailnet, updates.clone()).unwrap());
    assert_eq!(message.tka_info.unwrap().head, tailnet.lock.head().unwrap());
    assert_eq!(tailnet.lock.state().unwrap().keys().len(), 2);
    // The node that has not heard of it gets it; one that has nothing in common gets an error.
    assert_eq!(tailnet.lock.sync_offer(&request).unwrap().missing_aums, updates);
    let stranger = genesis(&[2]).hash().to_string();
    let request =
        TkaSyncOfferRequest { head: stranger.clone(), ancestors: vec![stranger], ..Default::default() };
    assert!(tailnet.lock.sync_offer(&request).is_err());
}

#[test]
fn a_lock_ends_with_its_secret_which_every_node_then_gets() {
    let mut tailnet = locked();
    assert!(end(&mut tailnet, &[8; 32]).is_err());
    assert!(tailnet.lock.state_to_end(&genesis(&[2]).hash().to_string()).is_err());
    let message = delta(&mut tailnet, |tailnet| end(tailnet, &SECRET).unwrap());
    assert!(message.tka_info.unwrap().disabled);
    let answer = tailnet.lock.bootstrap();
    assert_eq!(answer.disablement_secret.expose(), SECRET);
    assert!(answer.genesis_aum.is_empty());
    assert!(end(&mut tailnet, &SECRET).is_err());
    // The next lock knows nothing of it.
    tailnet.begin_lock(&begin(&genesis(&[2]))).unwrap();
    tailnet.finish_lock(&TkaInitFinishRequest::default(), NOW).unwrap();
    let answer = tailnet.lock.bootstrap();
    assert_eq!(answer.genesis_aum.0, genesis(&[2]).encode());
    assert!(answer.disablement_secret.expose().is_empty());
}

#[test]
fn a_state_file_brings_back_chain_and_signatures() {
    let mut tailnet = locked();
    let (.., updates) = add_key(&tailnet, 2);
    send(&mut tailnet, updates).unwrap();
    let (.., fork) = add_key(&tailnet, 3);
    send(&mut tailnet, fork).unwrap();
    let json = serde_json::to_vec(&tailnet.store()).unwrap();
    let mut other = pair();
    other.restore(serde_json::from_slice(&json).unwrap(), NOW).unwrap();
    assert_eq!(other.lock.head(), tailnet.lock.head());
    assert_eq!(other.lock.chain.unwrap().encode().len(), 3);
    assert_eq!(other.nodes, tailnet.nodes);
}

#[test]
fn a_lie_changes_what_nodes_are_told_and_nothing_else() {
    let mut tailnet = locked();
    let (.., updates) = add_key(&tailnet, 2);
    send(&mut tailnet, updates).unwrap();
    let truth = tailnet.lock.info();
    let first = genesis(&[1]).hash().to_string();
    let request =
        TkaSyncOfferRequest { head: first.clone(), ancestors: vec![first.clone()], ..Default::default() };
    let mut lie = |lie: LockLie| {
        tailnet.lock.lie(Some(lie), NOW).unwrap();
        let bootstrap = tailnet.lock.bootstrap();
        let missing = tailnet.lock.sync_offer(&request).map(|answer| answer.missing_aums.len()).ok();
        (tailnet.lock.info(), bootstrap, missing)
    };
    let (info, _, missing) = lie(LockLie::Withheld);
    assert_eq!((info, missing), (truth.clone(), Some(0)));
    let (info, _, missing) = lie(LockLie::Behind(1));
    assert_eq!((info.unwrap().head, missing), (first, Some(0)));
    let (info, bootstrap, missing) = lie(LockLie::OtherAuthority);
    assert_eq!(info.unwrap().head, Aum::decode(&bootstrap.genesis_aum.0).unwrap().hash().to_string());
    assert_eq!(missing, Some(1));
    assert_eq!(lie(LockLie::Silent), (None, TkaBootstrapResponse::default(), None));
    let (info, bootstrap, missing) = lie(LockLie::Ended { secret: vec![7] });
    assert_eq!(
        (info.unwrap().disabled, bootstrap.disablement_secret.expose(), missing),
        (true, &[7][..], None)
    );
    tailnet.lock.lie(None, NOW).unwrap();
    assert_eq!(tailnet.lock.info(), truth);
}
