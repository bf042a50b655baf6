//! Against a real headscale, where one is on PATH.

use std::time::Duration;

use tsrs_base_types::{Redacted, RegionId};
use tsrs_control_client::{Activity, Endpoint, Error, ErrorKind, Event};
use tsrs_control_netmap::Change;
use tsrs_control_tailcfg::{EndpointType, NetInfo};

use crate::client::Client;
use crate::headscale::Headscale;

/// Runs a test body with a server, or says loudly that it does not.
macro_rules! with_headscale {
    ($tls:expr) => {
        match Headscale::start($tls).await {
            Some(headscale) => headscale,
            None => {
                tsrs_lab_netns::tools::skip(
                    concat!("servers (line ", line!(), ")"),
                    "headscale is not on PATH",
                );
                return;
            }
        }
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_join_by_auth_key_see_each_other_change_and_leave() {
    let headscale = with_headscale!(true);
    let key = headscale.auth_key(&[]).await;
    let mut first = Client::start(headscale.place(), "first");
    first.handle.login(false, Some(key.clone())).unwrap();
    let first_key = first.logged_in().await.current.unwrap().public();
    let netmap = first.netmap(|_, _| true).await;
    assert_eq!(netmap.self_node().key, first_key);
    assert_eq!(netmap.magic_dns_suffix(), "lab.test");
    assert_eq!(netmap.derp_map().regions.as_ref().map(|regions| regions.len()), Some(1));
    assert_eq!(netmap.peers().iter().count(), 0);
    first.event("online", |event| matches!(event, Event::Online).then_some(())).await;

    let mut second = Client::start(headscale.place(), "second");
    second.handle.login(false, Some(key.clone())).unwrap();
    second.logged_in().await;
    let endpoint = Endpoint { addr: "192.0.2.7:41641".parse().unwrap(), kind: EndpointType::LOCAL };
    second.handle.set_endpoints(vec![endpoint]);
    second.handle.set_net_info(NetInfo { preferred_derp: RegionId(999), ..NetInfo::default() });
    first
        .netmap(|netmap, _| {
            netmap
                .peers()
                .iter()
                .any(|peer| peer.endpoints == [endpoint.addr] && peer.derp_region().is_some())
        })
        .await;
    let netmap = second.netmap(|netmap, _| netmap.peers().iter().count() == 1).await;
    assert_eq!(netmap.peers().iter().next().unwrap().key, first_key);

    // A rename by the administrator, and a new host name from the node itself.
    let id = first.latest().peers().iter().next().unwrap().id;
    headscale.run(&["nodes", "rename", "-i", &id.to_string(), "renamed"]).await;
    first.netmap(|netmap, _| netmap.peers().iter().any(|peer| peer.name.starts_with("renamed."))).await;

    // The same key re-registers after a restart; a new one replaces it on demand.
    let keys = second.keys.clone();
    drop(second);
    let mut second = Client::start_with(headscale.place(), "second", keys.clone());
    second.handle.login(false, None).unwrap();
    assert_eq!(second.logged_in().await, keys);
    second.handle.login(true, Some(key.clone())).unwrap();
    let renewed = second.logged_in().await;
    assert_eq!(renewed.old, keys.current);
    assert_ne!(renewed.current, keys.current);
    let new_key = renewed.current.as_ref().unwrap().public();
    first.netmap(|netmap, _| netmap.peers().by_key(&new_key).is_some()).await;
    let netmap = second.netmap(|netmap, _| netmap.self_node().key == new_key).await;
    assert_eq!(netmap.self_node().id, id, "the node is the same");

    // Calls that headscale lacks are "not offered", not failures of another kind.
    let handle = &second.handle;
    let name = || "_acme-challenge.second.lab.test".to_owned();
    for outcome in [
        handle.set_dns(name(), "TXT".to_owned(), "x".to_owned()).await,
        handle.id_token("aud".to_owned()).await.map(|_| ()),
        handle.query_feature("serve".to_owned()).await.map(|_| ()),
        handle.set_device_attributes([]).await,
        handle.audit_log("DISCONNECT_NODE".to_owned(), "test".to_owned()).await,
    ] {
        assert!(matches!(outcome, Err(Error::NotOffered { .. })), "{outcome:?}");
    }
    let (status, _, body) =
        handle.raw_call(http::Method::GET, "/machine/tka/bootstrap", "{}".into()).await.unwrap();
    assert_eq!((status.as_u16(), &body[..]), (404, b"404 page not found\n".as_slice()));

    // Expired by the administrator: login with the key makes a new node key.
    headscale.run(&["nodes", "expire", "-i", &id.to_string()]).await;
    second.event("key expired", |event| matches!(event, Event::KeyExpired).then_some(())).await;
    second.handle.login(false, None).unwrap();
    let after_expiry = second.logged_in().await;
    assert_eq!(after_expiry.old, renewed.current);

    second.handle.logout().await.unwrap();
    second.event("logged out", |event| matches!(event, Event::LoggedOut).then_some(())).await;
    headscale.run(&["nodes", "delete", "-i", &id.to_string(), "--force"]).await;
    first.netmap(|_, changes| changes.iter().any(|change| matches!(change, Change::PeerRemoved(_)))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_logs_in_on_a_page_and_comes_back_after_deletion() {
    let headscale = with_headscale!(false);
    let mut client = Client::start(headscale.place(), "interactive");
    client.handle.login(false, None).unwrap();
    let url = client.auth_url().await;
    // Asked again, it says the same page and goes on waiting.
    client.handle.login(false, None).unwrap();
    assert_eq!(client.auth_url().await, url);
    headscale.approve(&url).await;
    let keys = client.logged_in().await;
    assert_eq!(keys.old, None);
    client.netmap(|_, _| true).await;

    // A forced login waits for the user while the old key keeps working.
    client.handle.login(true, None).unwrap();
    let url = client.auth_url().await;
    headscale.approve(&url).await;
    assert_eq!(client.logged_in().await.old, keys.current);
    let id = client.netmap(|_, _| true).await.self_node().id;

    // The server forgets the node: after the next reconnect it must be approved again.
    headscale.run(&["nodes", "delete", "-i", &id.to_string(), "--force"]).await;
    client.handle.note_link_change();
    client
        .event("unknown node", |event| match event {
            Event::Trouble(trouble) if trouble.kind == ErrorKind::NodeUnknown => Some(()),
            _ => None,
        })
        .await;
    let url = client.auth_url().await;
    headscale.approve(&url).await;
    client.logged_in().await;
    client.netmap(|_, _| true).await;

    // Paused, nothing happens; the session goes on where it was.
    client.handle.set_paused(true);
    client.event("offline", |event| matches!(event, Event::Offline).then_some(())).await;
    client.handle.set_paused(false);
    client.event("online", |event| matches!(event, Event::Online).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_and_untrusted_servers_are_explained() {
    let headscale = with_headscale!(true);
    let mut client = Client::start(headscale.place(), "refused");
    client.handle.login(false, Some(Redacted::new("garbage".to_owned()))).unwrap();
    let trouble = client.trouble().await;
    assert_eq!((trouble.activity, trouble.kind), (Activity::Login, ErrorKind::Refused), "{}", trouble.text);
    assert!(trouble.text.contains("invalid pre auth key"), "{}", trouble.text);
    assert!(trouble.retry_in.is_some_and(|wait| wait > Duration::from_secs(60)));
    // A better key is tried at once.
    let key = headscale.auth_key(&["--ephemeral"]).await;
    client.handle.login(false, Some(key)).unwrap();
    client.logged_in().await;

    let mut client = Client::start(headscale.untrusted(), "stranger");
    client.handle.login(false, None).unwrap();
    let trouble = client.trouble().await;
    assert_eq!(trouble.kind, ErrorKind::Certificate, "{}", trouble.text);
    assert!(trouble.text.contains("--ca-file"), "{}", trouble.text);

    let oauth = client.handle.login(false, Some(Redacted::new("tskey-client-abc".to_owned())));
    assert!(matches!(oauth, Err(Error::OauthSecret)));
}
