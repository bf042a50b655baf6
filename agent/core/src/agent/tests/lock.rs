//! Who comes in under Tailnet Lock, and what control cannot change.

use tsrs_control_netmap::{read_cache, write_cache};
use tsrs_control_tailcfg::CapMap;

use super::*;
use crate::lock::testing::{Server, secret, signer};
use crate::state_file;
use crate::status::{self, WhoIsAddr};

const NO_HASH: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn server(id: u64) -> Server {
    Server::new(id, signer(1), "2026-11-22T12:00:00Z".parse().unwrap())
}

fn signed(n: u8, key: NodePublic, server: &Server) -> Value {
    let mut node = node(n, key, &[]);
    node["KeySignature"] = json!(server.sign(key));
    node
}

/// The first frame of a tailnet with a lock: peer 2 is signed, peer 3 is not.
fn locked_frame(own: NodePublic, server: &Server) -> Value {
    let mut frame = first_frame(own, &[]);
    frame["Node"]["KeySignature"] = json!(server.sign(own));
    frame["Peers"] = json!([signed(2, peer_key(2), server), node(3, peer_key(3), &[])]);
    frame["TKAInfo"] = json!({"Head": server.head()});
    frame
}

impl Bench {
    /// Answers every call until there is none.
    fn answer(&mut self, server: &mut Server) {
        for _ in 0..8 {
            let Some((number, call)) = self.lock_calls.pop() else { return };
            let answer = server.answer(&call);
            self.agent.handle_lock_answer(number, Ok(answer), self.now);
            self.drain();
        }
        panic!("calls without end");
    }

    /// A fresh node in a tailnet with a lock.
    fn locked(server: &mut Server) -> (Self, NodePrivate) {
        let mut bench = Self::new();
        let key = NodePrivate::generate(&mut OsRng);
        bench.start("tskey-auth-x");
        bench.logged_in(&key);
        bench.frame(locked_frame(key.public(), server));
        bench.contact();
        assert!(bench.peers.is_empty(), "a fresh node lets nobody in before it has verified the lock");
        bench.answer(server);
        (bench, key)
    }

    /// The same node after a restart of the program.
    fn restarted(&self, chain: crate::lock::Stored) -> Self {
        let mut json = Vec::new();
        write_cache(self.agent.lock.full.as_ref().unwrap(), &mut json).unwrap();
        let bytes = state_file::encode(self.agent.state()).unwrap();
        let netmap = Some(read_cache(&json, self.now.wall).unwrap());
        let mut again = Self::with_kept(state_file::decode(&bytes).unwrap().state, Kept { netmap, chain });
        again.chain = self.chain.clone();
        again.now = self.now;
        again.contact();
        again
    }

    fn standing(&self) -> Standing {
        self.agent.snapshot(self.now).lock.standing
    }

    fn health(&self) -> String {
        self.agent.snapshot(self.now).health_texts.join("\n")
    }

    /// A new map stream with this first frame.
    fn stream(&mut self, frame: Value) {
        self.session.begin_stream();
        self.frame(frame);
    }
}

#[test]
fn peers_from_before_a_lock_stay_until_it_is_verified_and_nobody_new_comes_in() {
    let (mut bench, key) = Bench::running();
    let mut server = server(1);
    bench.frame(json!({"TKAInfo": {"Head": server.head()}, "PeersChanged": [node(4, peer_key(4), &[])]}));
    assert_eq!(bench.peers, BTreeSet::from([peer_key(2), peer_key(3)]));
    assert_eq!((bench.router.routes.len(), bench.standing()), (2, Standing::Announced));
    assert!(bench.health().contains("only peers that were there before"));
    bench.frame(json!({"PeersChangedPatch": [{"NodeID": 3, "Key": peer_key(33)}]}));
    assert_eq!(bench.peers, BTreeSet::from([peer_key(2)]), "a changed key is a new peer");
    bench.frame(json!({"PeersRemoved": [2]}));
    assert!(bench.peers.is_empty(), "who is removed goes");
    bench.frame(json!({"PeersChanged": [node(2, peer_key(2), &[]), signed(5, peer_key(5), &server)]}));
    assert!(bench.peers.is_empty(), "and comes back as somebody new");

    // A failed question changes nothing; the chain does.
    let (number, _) = bench.lock_calls.pop().unwrap();
    bench.agent.handle_lock_answer(number, Err("status 500".to_owned()), bench.now);
    bench.drain();
    assert!(bench.peers.is_empty() && bench.health().contains("status 500"), "{}", bench.health());
    bench.advance(Duration::from_secs(15));
    bench.answer(&mut server);
    assert_eq!((bench.peers.clone(), bench.standing()), (BTreeSet::from([peer_key(5)]), Standing::Verified));
    let command = format!("tailscale lock sign {}", key.public());
    assert!(bench.health().contains(&command), "a node that is not signed says so: {}", bench.health());

    // Without a lock that was verified, the announcement can be taken back.
    let (mut bench, _) = Bench::running();
    bench.frame(json!({"TKAInfo": {"Head": NO_HASH}, "PeersChanged": [node(4, peer_key(4), &[])]}));
    bench.frame(json!({"TKAInfo": {"Disabled": true}}));
    assert_eq!((bench.peers.len(), bench.standing()), (3, Standing::Off));
    assert!(bench.agent.snapshot(bench.now).health_texts.is_empty());
}

#[test]
fn a_peer_that_is_not_signed_is_nowhere_but_in_the_list_of_those() {
    let mut server = server(1);
    let (mut bench, _) = Bench::locked(&mut server);
    assert_eq!(bench.peers, BTreeSet::from([peer_key(2)]));
    assert_eq!(bench.router.routes.len(), 1);
    let snapshot = bench.agent.snapshot(bench.now);
    let netmap = snapshot.netmap.as_ref().unwrap();
    assert!(netmap.peers().iter().all(|node| node.key == peer_key(2)));
    for text in ["100.64.0.3", "100.64.0.3:80", &peer_key(3).to_string()] {
        assert!(status::whois(&snapshot, WhoIsAddr::parse(text).unwrap()).is_none(), "{text}");
    }
    assert!(status::whois(&snapshot, WhoIsAddr::parse("100.64.0.2").unwrap()).is_some());
    let shown = status::status(&snapshot, &status::LiveStatus::default(), true);
    assert!(!shown.peer.unwrap().contains_key(&peer_key(3)));
    let hidden: Vec<_> = snapshot.lock.hidden.iter().map(|(id, why)| (id.0, why.as_str())).collect();
    assert_eq!(hidden, [(3, "not signed")]);
    assert_eq!(bench.health(), "");

    // It is signed, then somebody else's signature takes its place.
    let right = server.sign(peer_key(3));
    bench.frame(json!({"PeersChangedPatch": [{"NodeID": 3, "KeySignature": right}]}));
    assert_eq!(bench.peers.len(), 2);
    bench.frame(json!({"PeersChangedPatch": [{"NodeID": 3, "KeySignature": server.sign(peer_key(9))}]}));
    assert_eq!(bench.peers, BTreeSet::from([peer_key(2)]));
    bench.frame(json!({"PeersChangedPatch": [{"NodeID": 2, "Key": peer_key(22)}]}));
    assert!(bench.peers.is_empty(), "a signature is for one key");
    assert_eq!(bench.agent.snapshot(bench.now).lock.hidden.len(), 2);
    bench.frame(json!({"PeersRemoved": [2, 3]}));
    assert!(bench.agent.snapshot(bench.now).lock.hidden.is_empty());
}

#[test]
fn an_expired_peer_is_shown_as_expired_and_not_as_unsigned() {
    let mut server = server(1);
    let (mut bench, _) = Bench::locked(&mut server);
    let mut node = signed(2, peer_key(2), &server);
    node["KeyExpiry"] = json!("2026-11-22T11:00:00Z");
    bench.frame(json!({"ControlTime": "2026-11-22T12:00:00Z", "PeersChanged": [node]}));
    assert!(bench.peers.is_empty());
    let snapshot = bench.agent.snapshot(bench.now);
    assert!(snapshot.netmap.as_ref().unwrap().node(tsrs_base_types::NodeId(2)).unwrap().expired);
    assert_eq!(snapshot.lock.hidden.len(), 1);
}

#[test]
fn a_key_that_is_trusted_later_lets_its_peers_in_without_a_new_netmap_of_them() {
    let mut server = server(1);
    let (mut bench, _) = Bench::locked(&mut server);
    let other = signer(2);
    let signature = tsrs_control_tka::NodeKeySignature::direct(peer_key(3), None, &other).unwrap();
    let signature = tsrs_control_tailcfg::Base64(signature.encode());
    bench.frame(json!({"PeersChangedPatch": [{"NodeID": 3, "KeySignature": signature}]}));
    assert_eq!(bench.peers.len(), 1);
    server.trust(&other);
    bench.frame(json!({"TKAInfo": {"Head": server.head()}}));
    bench.answer(&mut server);
    assert_eq!((bench.peers.len(), bench.router.routes.len()), (2, 2));
    assert!(bench.take_control().contains(&format!("lock-head {}", server.head())));
}

#[test]
fn a_restart_opens_the_stored_chain_and_filters_the_cached_netmap_by_it() {
    let mut server = server(1);
    let (bench, _) = Bench::locked(&mut server);
    let again = bench.restarted(Ok(bench.chain.graph()));
    assert_eq!((again.peers.clone(), again.standing()), (BTreeSet::from([peer_key(2)]), Standing::Verified));
    assert!(again.lock_calls.is_empty(), "control was not there yet");

    for lost in [Ok(tsrs_control_tka::Graph::default()), Err("a file is damaged".to_owned())] {
        let mut lost = bench.restarted(lost);
        assert_eq!((lost.peers.len(), lost.standing()), (0, Standing::Shut));
        assert!(lost.health().contains("verified before is not here"), "{}", lost.health());
        let key = lost.agent.state().profiles.current().login.public_node_key();
        lost.stream(locked_frame(key, &server));
        assert!(lost.peers.is_empty());
        lost.answer(&mut server);
        assert_eq!((lost.peers.len(), lost.standing()), (1, Standing::Verified));
        assert!(lost.chain.graph().len() == 1 && lost.health().is_empty());
    }
}

/// What control tries against a node that knows the lock, with and without its chain.
fn attempts(server: &Server) -> Vec<(Server, &'static str)> {
    let older = Server { secret: Some(vec![9; 32]), ..server.copy() };
    let other = Server::new(1, signer(3), "2026-11-22T12:00:00Z".parse().unwrap());
    let foreign = Server::new(2, signer(3), "2026-11-22T12:00:00Z".parse().unwrap());
    vec![(older, "older"), (other, "another"), (foreign, "another")]
}

#[test]
fn control_cannot_present_another_chain_an_older_head_or_no_lock() {
    let mut server = server(1);
    let old = server.copy();
    server.trust(&signer(8));
    server.grow(4);
    let (bench, key) = Bench::locked(&mut server);
    let stored = bench.chain.graph();
    for chain in [Ok(stored), Ok(tsrs_control_tka::Graph::default())] {
        let verified = chain.as_ref().is_ok_and(|graph| !graph.is_empty());
        let seen = if verified { 1 } else { 0 };
        for (mut wrong, words) in attempts(&old) {
            let mut node = bench.restarted(chain.clone());
            // Everybody is signed by what control presents.
            let mut frame = locked_frame(key.public(), &wrong);
            frame["Peers"] = json!([signed(2, peer_key(2), &server), signed(3, peer_key(3), &wrong)]);
            let same_signer = wrong.signer.public() == server.signer.public();
            node.stream(frame);
            node.answer(&mut wrong);
            let expected = if verified && same_signer { 2 } else { seen };
            assert_eq!(node.peers.len(), expected, "{words}: {}", node.health());
            let head = bench.agent.snapshot(bench.now).lock.pin.unwrap();
            assert_eq!(node.agent.snapshot(node.now).lock.pin, Some(head), "{words}");
            let health = node.health();
            assert!(health.contains(words) || health.contains("lacks update"), "{words}: {health}");
        }
        for secret in [None, Some(vec![]), Some(vec![1; 32]), Some(vec![1; 5000])] {
            let mut node = bench.restarted(chain.clone());
            let mut silent = Server { secret, ..server.copy() };
            for info in [json!({"Disabled": true}), Value::Null, json!({"Head": "garbage"})] {
                let mut frame = locked_frame(key.public(), &server);
                frame["TKAInfo"] = info;
                node.stream(frame);
                node.answer(&mut silent);
                assert_eq!(node.peers.len(), seen);
                assert!(node.health().contains("without a valid disablement secret"), "{}", node.health());
            }
        }
    }
}

#[test]
fn a_valid_secret_ends_the_lock_also_without_the_chain() {
    let mut server = server(1);
    let (bench, key) = Bench::locked(&mut server);
    for chain in [Ok(bench.chain.graph()), Ok(tsrs_control_tka::Graph::default())] {
        let mut node = bench.restarted(chain);
        let mut frame = locked_frame(key.public(), &server);
        frame["TKAInfo"] = json!({"Disabled": true});
        node.stream(frame);
        let mut ending = Server { secret: Some(secret().expose_bytes().to_vec()), ..server.copy() };
        node.answer(&mut ending);
        assert_eq!((node.peers.len(), node.standing()), (2, Standing::Off));
        assert!(node.chain.files.is_empty() && node.agent.snapshot(node.now).lock.pin.is_none());
        assert_eq!(node.health(), "");
    }
}

#[test]
fn a_log_out_and_a_forced_login_do_not_make_the_node_forget_the_lock() {
    let mut server = server(1);
    let (mut bench, _) = Bench::locked(&mut server);
    let pin = bench.agent.snapshot(bench.now).lock.pin;
    // A new key for the same account.
    let key = NodePrivate::generate(&mut OsRng);
    bench.logged_in(&key);
    let mut foreign = Server::new(2, signer(3), bench.now.wall);
    bench.stream(locked_frame(key.public(), &foreign));
    bench.answer(&mut foreign);
    assert_eq!((bench.agent.snapshot(bench.now).lock.pin, bench.peers.len()), (pin, 0));

    // A log-out, a restart, and a login as what control calls another user.
    bench.agent.finish_logout(bench.now);
    bench.drain();
    let bytes = state_file::encode(bench.agent.state()).unwrap();
    let mut bench = Bench::with_state(state_file::decode(&bytes).unwrap().state);
    bench.start("tskey-auth-y");
    let user = User { id: tsrs_base_types::UserId(77), ..User::default() };
    let event = ControlEvent::LoggedIn {
        node_key: key.clone(),
        old_node_key: None,
        user: Box::new(user),
        login: Box::new(Login::default()),
    };
    bench.agent.handle_control(event, bench.now);
    bench.drain();
    bench.frame(locked_frame(key.public(), &foreign));
    bench.answer(&mut foreign);
    bench.contact();
    assert_eq!((bench.peers.len(), bench.standing()), (0, Standing::Shut));
    assert!(bench.health().contains("another chain"), "{}", bench.health());
    bench.stream(first_frame(key.public(), &[2, 3]));
    bench.answer(&mut foreign);
    assert!(bench.peers.is_empty(), "nor does it help to say that there is no lock");
    bench.stream(locked_frame(key.public(), &server));
    bench.advance(Duration::from_secs(600));
    bench.answer(&mut server);
    assert_eq!((bench.agent.snapshot(bench.now).lock.pin, bench.peers.len()), (pin, 1));
}

#[test]
fn a_lock_that_is_switched_off_here_stays_off_and_another_does_not() {
    let mut server = server(1);
    let (mut bench, key) = Bench::locked(&mut server);
    bench.agent.disable_lock_here(bench.now).unwrap();
    bench.drain();
    assert_eq!((bench.peers.len(), bench.standing()), (2, Standing::DisabledHere));
    assert!(bench.chain.files.is_empty());
    assert_eq!(bench.agent.disable_lock_here(bench.now), Err(LockCommandError::NotActive));
    let mut again = bench.restarted(Ok(bench.chain.graph()));
    assert_eq!((again.peers.len(), again.standing()), (2, Standing::DisabledHere));
    again.stream(locked_frame(key.public(), &server));
    again.answer(&mut server);
    assert_eq!((again.peers.len(), again.standing()), (2, Standing::DisabledHere));

    let mut next = Server::new(2, signer(3), again.now.wall);
    again.stream(locked_frame(key.public(), &next));
    again.answer(&mut next);
    assert_eq!((again.peers.len(), again.standing()), (1, Standing::Verified));
}

#[test]
fn a_lock_that_is_demanded_shuts_the_doors_until_it_is_the_right_one() {
    let mut server = server(1);
    let genesis = server.genesis.hash().to_string();
    let signer_text = server.signer.public().cli_text();
    for (edit, opens) in [
        (json!({"LockRequired": true, "LockRequiredSet": true}), true),
        (json!({"LockPin": genesis, "LockPinSet": true}), true),
        (json!({"LockPin": signer_text, "LockPinSet": true}), true),
        (json!({"LockPin": NO_HASH, "LockPinSet": true}), false),
        (json!({"LockPin": signer(9).public().cli_text(), "LockPinSet": true}), false),
    ] {
        let mut bench = Bench::new();
        bench.edit(edit.clone()).unwrap();
        let key = NodePrivate::generate(&mut OsRng);
        // The whole prefs of a client that does not know of the demand leave it in force.
        bench.start("tskey-auth-x");
        bench.logged_in(&key);
        bench.frame(first_frame(key.public(), &[2, 3]));
        bench.contact();
        assert_eq!((bench.peers.len(), bench.standing()), (0, Standing::Shut), "{edit}");
        assert!(bench.health().contains("demand a lock"));
        let mut unsigned = node(4, peer_key(4), &[]);
        unsigned["UnsignedPeerAPIOnly"] = json!(true);
        let mut frame = locked_frame(key.public(), &server);
        frame["Peers"].as_array_mut().unwrap().push(unsigned);
        bench.stream(frame);
        bench.answer(&mut server);
        let required = edit.get("LockRequired").is_some();
        let expected = match (opens, required) {
            (true, true) => 1,
            (true, false) => 2,
            (false, _) => 0,
        };
        assert_eq!(bench.peers.len(), expected, "{edit}: {}", bench.health());
        if !opens {
            assert!(bench.health().contains("not the authority that was asked for"));
        }
    }
    let mut bench = Bench::new();
    assert!(bench.edit(json!({"LockPin": "nonsense", "LockPinSet": true})).is_err());
}

#[test]
fn a_demand_made_later_takes_effect_at_once() {
    let (mut bench, _) = Bench::running();
    bench.edit(json!({"LockRequired": true, "LockRequiredSet": true})).unwrap();
    assert!(bench.peers.is_empty() && bench.router.routes.is_empty());
    bench.edit(json!({"LockRequired": false, "LockRequiredSet": true})).unwrap();
    assert_eq!((bench.peers.len(), bench.router.routes.len()), (2, 2));
}

#[test]
fn a_chain_that_could_not_be_written_is_written_again_as_a_whole() {
    let mut server = server(1);
    let (mut bench, _) = Bench::locked(&mut server);
    server.grow(2);
    bench.chain = Folder::default();
    bench.agent.handle_lock_stored(Err("disk full".to_owned()), bench.now);
    bench.drain();
    assert!(bench.health().contains("disk full"));
    bench.advance(Duration::from_secs(30));
    assert_eq!(bench.chain.files.len(), 1);
    assert_eq!(bench.health(), "");
}

#[test]
fn a_peer_that_may_stay_unsigned_is_granted_nothing_but_ingress() {
    let mut server = server(1);
    let (mut bench, _) = Bench::locked(&mut server);
    let mut unsigned = node(4, peer_key(4), &["10.0.0.0/8"]);
    unsigned["UnsignedPeerAPIOnly"] = json!(true);
    let ingress = "https://tailscale.com/cap/ingress";
    bench.frame(json!({
        "PeersChanged": [unsigned],
        "PacketFilter": [{"SrcIPs": ["100.64.0.2", "100.64.0.4"], "CapGrant": [
            {"Dsts": ["100.64.0.1/32"], "CapMap": {ingress: [], "may/do": []}}]}],
    }));
    assert_eq!(bench.peers, BTreeSet::from([peer_key(2), peer_key(4)]));
    assert_eq!(bench.router.routes.len(), 2, "and routes nothing but itself");
    let snapshot = bench.agent.snapshot(bench.now);
    let granted = |address: &str| {
        let whois = status::whois(&snapshot, WhoIsAddr::parse(address).unwrap()).unwrap();
        whois.cap_map.iter().flat_map(CapMap::names).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(granted("100.64.0.4"), [ingress]);
    assert_eq!(granted("100.64.0.2"), [ingress, "may/do"]);
    bench.edit(json!({"LockRequired": true, "LockRequiredSet": true})).unwrap();
    assert_eq!(bench.peers, BTreeSet::from([peer_key(2)]));
}

#[test]
fn an_auth_key_that_signs_its_node_closes_the_first_join() {
    use tsrs_control_tka::WrappedAuthKey;
    let mut server = server(1);
    let wrapped = WrappedAuthKey::wrap("tskey-auth-x", signer(5), &server.signer).unwrap().expose_text();
    let mut bench = Bench::new();
    let key = NodePrivate::generate(&mut OsRng);
    bench.start(&wrapped);
    bench.logged_in(&key);
    let bytes = state_file::encode(bench.agent.state()).unwrap();
    assert!(state_file::decode(&bytes).unwrap().state.profiles.current().login.lock.awaited);
    bench.frame(first_frame(key.public(), &[2, 3]));
    bench.contact();
    assert_eq!(
        (bench.peers.len(), bench.standing()),
        (0, Standing::Shut),
        "a tailnet without a lock is another one"
    );
    bench.stream(locked_frame(key.public(), &server));
    bench.answer(&mut server);
    assert_eq!((bench.peers.len(), bench.standing()), (1, Standing::Verified));
    assert!(!bench.agent.state().profiles.current().login.lock.awaited);
}

#[test]
fn a_signature_that_anybody_may_rotate_is_warned_about() {
    use tsrs_control_tka::NodeKeySignature;
    let mut server = server(1);
    let (mut bench, key) = Bench::locked(&mut server);
    assert_eq!(bench.health(), "");
    // As official clients sign a node without a rotation key: with 32 zero bytes in its place (Tailnet Lock sheet §17).
    let mut unsigned = vec![0xa4, 1, 1, 2, 0x58, 34];
    unsigned.extend(key.public().to_binary());
    unsigned.extend([3, 0x58, 32]);
    unsigned.extend(server.signer.public().as_bytes());
    let tail = [vec![6, 0x58, 32], vec![0; 32]].concat();
    let digest = NodeKeySignature::decode(&[unsigned.clone(), tail.clone()].concat()).unwrap().sig_digest();
    let signature = server.signer.sign(digest.as_bytes()).unwrap();
    unsigned[0] = 0xa5;
    let signed = [unsigned, vec![4, 0x58, 64], signature.to_vec(), tail].concat();
    let mut own = node(1, key.public(), &[]);
    own["KeySignature"] = json!(tsrs_control_tailcfg::Base64(signed));
    bench.frame(json!({"Node": own}));
    let health = bench.health();
    assert!(health.contains("anybody can sign") && health.contains("tailscale lock sign"), "{health}");
    assert!(bench.agent.snapshot(bench.now).lock.own.unwrap().unwrap().anybody_may_rotate);
}
