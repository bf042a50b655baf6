use rand_core::OsRng;
use tsrs_base_types::UserId;

use super::*;

fn user(id: i64, name: &str) -> UserProfile {
    UserProfile {
        id: UserId(id),
        login_name: name.into(),
        display_name: name.into(),
        ..UserProfile::default()
    }
}

fn log_in(profiles: &mut Profiles, id: i64, name: &str, node: &str) -> bool {
    let now = "2026-11-22T21:54:54Z".parse::<jiff::Timestamp>().unwrap().into();
    profiles.note_login(user(id, name), StableNodeId(node.into()), NetworkProfile::default(), now, &mut OsRng)
}

fn names(profiles: &Profiles) -> Vec<&str> {
    profiles.saved().map(|profile| profile.meta.name.as_str()).collect()
}

#[test]
fn a_fresh_agent_has_no_listed_profile() {
    let profiles = Profiles::default();
    assert_eq!(profiles.saved().count(), 0);
    assert_eq!(profiles.current().meta, LoginProfile::default());
    assert!(profiles.current().prefs.logged_out && !profiles.current().prefs.want_running);
    assert_eq!(profiles.current().public_prefs().config, None);
}

#[test]
fn a_login_gives_the_profile_an_id_once() {
    let mut profiles = Profiles::default();
    assert!(log_in(&mut profiles, 1, "lab", "3"));
    let meta = profiles.current().meta.clone();
    assert_eq!(meta.id.len(), 4);
    assert_eq!(meta.key, format!("profile-{}", meta.id));
    assert_eq!((meta.name.as_str(), meta.node_id.0.as_str()), ("lab", "3"));
    assert!(!log_in(&mut profiles, 1, "lab", "3"), "the same login again changes nothing");
    assert_eq!(profiles.current().meta, meta);
    let config = profiles.current().public_prefs().config.unwrap();
    assert_eq!(config.user_profile.login_name, "lab");
}

#[test]
fn accounts_are_switched_named_and_deleted() {
    let mut profiles = Profiles::default();
    log_in(&mut profiles, 1, "lab", "3");
    let first = profiles.current().meta.id.clone();
    profiles.start_new();
    assert!(!profiles.current().is_saved());
    profiles.current_mut().prefs.profile_name = "second".into();
    log_in(&mut profiles, 2, "other", "10");
    let second = profiles.current().meta.id.clone();
    assert_eq!(names(&profiles), ["lab", "second"]);
    assert_eq!(profiles.other_names(), ["lab"]);

    assert_eq!(profiles.switch("zzzz"), Err(NoSuchProfile));
    assert_eq!(profiles.current().meta.id, second);
    profiles.switch(&first).unwrap();
    profiles.switch(&first).unwrap();
    assert_eq!(profiles.current().meta.id, first);
    profiles.current_mut().prefs.profile_name = "home".into();
    profiles.note_prefs_changed();
    assert_eq!(names(&profiles), ["home", "second"]);

    assert!(profiles.delete(&second));
    assert!(!profiles.delete(&second), "deleting what is not there is no change");
    assert!(profiles.delete(&first), "the current one can go too");
    assert_eq!(profiles, Profiles::default());
}

#[test]
fn leaving_the_blank_profile_leaves_nothing_behind() {
    let mut profiles = Profiles::default();
    log_in(&mut profiles, 1, "lab", "3");
    let first = profiles.current().meta.id.clone();
    profiles.start_new();
    profiles.current_mut().prefs.hostname = "draft".into();
    profiles.switch(&first).unwrap();
    assert_eq!(profiles.saved().count(), 1);
}

#[test]
fn logging_in_to_a_known_account_replaces_its_profile() {
    let mut profiles = Profiles::default();
    log_in(&mut profiles, 1, "lab", "3");
    let first = profiles.current().meta.clone();
    profiles.start_new();
    assert!(log_in(&mut profiles, 1, "lab", "4"));
    assert_eq!(profiles.saved().count(), 1);
    assert_eq!(profiles.current().meta.id, first.id);
    assert_eq!(profiles.current().meta.created, first.created);
    // The same user on another server is another account.
    profiles.start_new();
    profiles.current_mut().prefs.control_url = "https://hs.example".into();
    log_in(&mut profiles, 1, "lab", "5");
    assert_eq!(profiles.saved().count(), 2);
}

#[test]
fn ids_do_not_repeat() {
    let mut profiles = Profiles::default();
    for n in 0..MAX_PROFILE_COUNT {
        let n = i64::try_from(n).unwrap();
        log_in(&mut profiles, n, "user", "node");
        profiles.start_new();
    }
    let mut ids: Vec<String> = profiles.saved().map(|profile| profile.meta.id.clone()).collect();
    ids.dedup();
    assert_eq!(ids.len(), MAX_PROFILE_COUNT);
}
