use tsrs_agent_localapi::json::from_client;

use super::*;

fn context<'a>(on_link: &'a [Ipv4Net], names: &'a [String]) -> PrefsContext<'a> {
    PrefsContext { on_link, user_exists: &|name| name == "alice", other_profile_names: names, locked: false }
}

fn edit_json(current: &Prefs, body: &str) -> Result<Prefs, PrefsRefusal> {
    edit(current, &from_client(body.as_bytes()).unwrap(), &context(&["203.0.113.0/24".parse().unwrap()], &[]))
}

#[test]
fn settings_without_effect_are_refused_with_their_reason() {
    let current = defaults();
    for (body, word) in [
        (r#"{"ExitNodeID":"n1","ExitNodeIDSet":true}"#, "exit-node"),
        (r#"{"ExitNodeIP":"100.64.0.1","ExitNodeIPSet":true}"#, "exit-node"),
        (r#"{"AutoExitNode":"any","AutoExitNodeSet":true}"#, "exit-node"),
        (r#"{"ExitNodeAllowLANAccess":true,"ExitNodeAllowLANAccessSet":true}"#, "exit-node-allow-lan-access"),
        (r#"{"AdvertiseRoutes":["0.0.0.0/0","::/0"],"AdvertiseRoutesSet":true}"#, "advertise-exit-node"),
        (r#"{"AdvertiseRoutes":["::/0"],"AdvertiseRoutesSet":true}"#, "advertise-exit-node"),
        (r#"{"RunSSH":true,"RunSSHSet":true}"#, "ssh"),
        (r#"{"RunWebClient":true,"RunWebClientSet":true}"#, "webclient"),
        (r#"{"AppConnector":{"Advertise":true},"AppConnectorSet":true}"#, "connector"),
        (r#"{"AdvertiseServices":["svc:a"],"AdvertiseServicesSet":true}"#, "Services"),
        (r#"{"PostureChecking":true,"PostureCheckingSet":true}"#, "posture"),
        (r#"{"RelayServerPort":0,"RelayServerPortSet":true}"#, "relay"),
        (r#"{"RelayServerStaticEndpoints":["192.0.2.1:1"],"RelayServerStaticEndpointsSet":true}"#, "relay"),
        (r#"{"AutoUpdate":{"Apply":true},"AutoUpdateSet":{"ApplySet":true}}"#, "auto-update"),
        (r#"{"AutoUpdate":{"Check":true},"AutoUpdateSet":{"CheckSet":true}}"#, "update-check"),
        (r#"{"DriveShares":[{"name":"a"}],"DriveSharesSet":true}"#, "Taildrive"),
        (r#"{"RemoteConfig":true,"RemoteConfigSet":true}"#, "remote-config"),
        (r#"{"Sync":false,"SyncSet":true}"#, "sync"),
        (r#"{"NetfilterKind":"iptables","NetfilterKindSet":true}"#, "nftables"),
        (r#"{"ForceDaemon":true,"ForceDaemonSet":true}"#, "unattended"),
    ] {
        let refusal = edit_json(&current, body).unwrap_err().to_string();
        assert!(refusal.contains(word), "{body}: {refusal}");
        // The same whole prefs, as `start` gives them.
        let whole: Prefs = from_client(body.as_bytes()).unwrap();
        let given = Prefs { netfilter_mode: 2, ..whole };
        if word != "update-check" {
            assert!(replace(&current, &given, &context(&[], &[])).is_err(), "{body}");
        }
    }
}

#[test]
fn the_default_of_official_clients_to_look_for_updates_is_not_stored() {
    let given = Prefs { auto_update: AutoUpdatePrefs { check: true, apply: None }, ..defaults() };
    assert!(!replace(&defaults(), &given, &context(&[], &[])).unwrap().auto_update.check);
}

#[test]
fn every_reason_is_told_at_once() {
    let refusal = edit_json(
        &defaults(),
        r#"{"RunSSH":true,"RunSSHSet":true,"RunWebClient":true,"RunWebClientSet":true}"#,
    );
    assert_eq!(refusal.unwrap_err().0.len(), 2);
}

#[test]
fn using_and_offering_an_exit_node_is_refused_in_the_official_words() {
    let prefs: Prefs =
        from_client(br#"{"ExitNodeIP":"100.64.0.1","AdvertiseRoutes":["0.0.0.0/0","::/0"]}"#).unwrap();
    assert_eq!(
        check(&prefs, &PrefsContext::BARE).unwrap_err().to_string(),
        "Cannot advertise an exit node and use an exit node at the same time."
    );
}

#[test]
fn only_local_subnets_can_be_advertised() {
    let current = defaults();
    let with = |routes: &str| {
        edit_json(&current, &format!(r#"{{"AdvertiseRoutes":{routes},"AdvertiseRoutesSet":true}}"#))
    };
    for good in [r#"["10.1.0.0/16","192.168.7.0/24"]"#, r#"["203.0.113.0/24"]"#, "[]", "null"] {
        assert!(with(good).is_ok(), "{good}");
    }
    for bad in [
        r#"["8.8.8.0/24"]"#,
        r#"["0.0.0.0/1"]"#,
        r#"["fd00::/8"]"#,
        r#"["100.64.0.0/10"]"#,
        r#"["10.0.0.1/8"]"#,
    ] {
        assert!(with(bad).is_err(), "{bad}");
    }
    let netfilter_off = Prefs { netfilter_mode: 0, ..current.clone() };
    let edit = r#"{"AdvertiseRoutes":["10.1.0.0/16"],"AdvertiseRoutesSet":true}"#;
    assert!(edit_json(&netfilter_off, edit).is_err());
}

#[test]
fn an_on_link_route_counts_only_while_it_is_on_link() {
    let prefs: Prefs = from_client(br#"{"AdvertiseRoutes":["203.0.113.0/24","10.0.0.0/8"]}"#).unwrap();
    let on_link = ["203.0.113.0/24".parse().unwrap()];
    assert_eq!(effective_routes(&prefs, &on_link).len(), 2);
    assert_eq!(effective_routes(&prefs, &[]), ["10.0.0.0/8".parse::<Ipv4Net>().unwrap()]);
}

#[test]
fn values_that_cannot_be_are_refused() {
    let current = defaults();
    for body in [
        r#"{"NetfilterMode":9,"NetfilterModeSet":true}"#,
        r#"{"NetfilterMode":-1,"NetfilterModeSet":true}"#,
        r#"{"ControlURL":"ftp://x","ControlURLSet":true}"#,
        r#"{"ControlURL":"https://","ControlURLSet":true}"#,
        r#"{"ControlURL":"https://user@host","ControlURLSet":true}"#,
        r#"{"ControlURL":"https://a b","ControlURLSet":true}"#,
        r#"{"Hostname":"a\nb","HostnameSet":true}"#,
        r#"{"OperatorUser":"nobody-here","OperatorUserSet":true}"#,
        r#"{"AdvertiseTags":["web"],"AdvertiseTagsSet":true}"#,
        r#"{"AdvertiseTags":["tag:"],"AdvertiseTagsSet":true}"#,
        r#"{"AdvertiseTags":["tag:1a"],"AdvertiseTagsSet":true}"#,
        r#"{"AdvertiseTags":["tag:a_b"],"AdvertiseTagsSet":true}"#,
        r#"{"LoggedOut":true,"LoggedOutSet":true}"#,
        r#"{"InternalExitNodePrior":"x","InternalExitNodePriorSet":true}"#,
    ] {
        let current = if body.contains("LoggedOut") {
            Prefs { logged_out: false, ..current.clone() }
        } else {
            current.clone()
        };
        assert!(edit_json(&current, body).is_err(), "{body}");
    }
    let internal = edit_json(&current, r#"{"InternalExitNodePrior":"x","InternalExitNodePriorSet":true}"#);
    assert_eq!(internal.unwrap_err().to_string(), "can't set Internal fields");
}

#[test]
fn settings_with_effect_are_stored_and_the_rest_is_left() {
    let mut current = defaults();
    current.shields_up = true;
    let next = edit_json(
        &current,
        r#"{"Hostname":"bad_host!name","HostnameSet":true,"RouteAll":true,"RouteAllSet":true,"ShieldsUp":false,
            "NoStatefulFiltering":false,"NoStatefulFilteringSet":true,"OperatorUser":"alice","OperatorUserSet":true,
            "AdvertiseTags":["tag:web-1"],"AdvertiseTagsSet":true,"NetfilterMode":1,"NetfilterModeSet":true,
            "ControlURL":"https://hs.example:8443","ControlURLSet":true,"NetfilterKind":"nftables","NetfilterKindSet":true,
            "WantRunning":true,"WantRunningSet":true,"Sync":null,"SyncSet":true}"#,
    )
    .unwrap();
    assert_eq!(next.hostname, "bad_host!name");
    assert!(next.route_all && next.shields_up && next.want_running && !next.logged_out);
    assert_eq!(next.no_stateful_filtering, Some(false));
    // Nothing changed: succeeds in silence.
    assert_eq!(edit_json(&next, r#"{"RouteAll":true,"RouteAllSet":true}"#).unwrap(), next);
}

#[test]
fn a_nickname_of_another_profile_is_refused() {
    let names = ["work".to_owned()];
    let edit_body = from_client(br#"{"ProfileName":"work","ProfileNameSet":true}"#).unwrap();
    let refusal = edit(&defaults(), &edit_body, &context(&[], &names)).unwrap_err();
    assert_eq!(refusal.to_string(), "profile name \"work\" already in use");
}

#[test]
fn a_configuration_file_locks_the_prefs() {
    let locked = PrefsContext { locked: true, ..PrefsContext::BARE };
    let change = from_client(br#"{"RouteAll":true,"RouteAllSet":true}"#).unwrap();
    assert!(edit(&defaults(), &change, &locked).is_err());
    let same = from_client(br#"{"RouteAll":false,"RouteAllSet":true}"#).unwrap();
    assert!(edit(&defaults(), &same, &locked).is_ok());
}

#[test]
fn stored_prefs_lose_what_has_no_effect_and_stay_down_where_it_protected() {
    let mut prefs = Prefs { want_running: true, run_ssh: true, ..defaults() };
    let removed = remove_unsupported(&mut prefs);
    assert_eq!((removed.reasons.len(), removed.held_down), (1, false));
    assert!(prefs.want_running && !prefs.run_ssh);
    let mut prefs =
        Prefs { want_running: true, exit_node_id: tsrs_base_types::StableNodeId("n1".into()), ..defaults() };
    let removed = remove_unsupported(&mut prefs);
    assert!(removed.held_down && !prefs.want_running && prefs.exit_node_id.0.is_empty());
    assert_eq!(check(&prefs, &PrefsContext::BARE), Ok(()));
    assert_eq!(remove_unsupported(&mut prefs), Removed::default());
}
