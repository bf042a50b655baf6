use std::collections::BTreeSet;
use std::time::Duration;

use super::*;

fn start() -> (Health, Instant, Timestamp) {
    (Health::default(), Instant::now(), "2026-11-22T21:54:54Z".parse().unwrap())
}

fn codes(health: &Health, now: Instant) -> Vec<String> {
    health.warnings(now).into_keys().collect()
}

#[test]
fn a_warning_is_shown_once_it_has_lasted() {
    let (mut health, now, wall) = start();
    assert!(health.set(Problem::NoDerpHome, "", now, wall));
    assert!(codes(&health, now).is_empty());
    assert_eq!(health.poll_timeout(now), Some(now + Duration::from_secs(10)));
    let later = now + Duration::from_secs(10);
    assert_eq!(codes(&health, later), ["no-derp-home"]);
    assert_eq!(health.poll_timeout(later), None);
    // Noting it again does not start the time anew.
    assert!(!health.set(Problem::NoDerpHome, "", later, wall));
    assert_eq!(codes(&health, later), ["no-derp-home"]);
    assert!(health.clear(Problem::NoDerpHome));
    assert!(!health.clear(Problem::NoDerpHome));
    assert!(codes(&health, later).is_empty());
    assert_eq!(health.state(later).warnings, None);
}

#[test]
fn a_warning_hides_behind_what_explains_it() {
    let (mut health, now, wall) = start();
    health.set(Problem::LoginState, "invalid pre auth key", now, wall);
    assert_eq!(codes(&health, now), ["login-state"]);
    health.set(Problem::WantRunningFalse, "", now, wall);
    assert_eq!(codes(&health, now), ["wantrunning-false"]);
    health.clear(Problem::WantRunningFalse);
    let texts = health.texts(now);
    assert_eq!(texts, ["You are logged out. The last login error was: invalid pre auth key"]);
    let warning = &health.warnings(now)["login-state"];
    assert_eq!(warning.depends_on, ["wantrunning-false", "warming-up"]);
    assert_eq!(warning.broken_since, Some(wall.into()));
}

#[test]
fn messages_of_control_have_their_own_codes_and_a_limit() {
    let (mut health, now, _) = start();
    let message = |n: usize| {
        let text = "x".repeat(5000);
        (
            n.to_string(),
            HealthWarning { severity: "high".into(), title: "t".into(), text, ..HealthWarning::default() },
        )
    };
    assert!(health.set_control((0..1000).map(message)));
    let warnings = health.warnings(now);
    assert_eq!(warnings.len(), MAX_CONTROL_MESSAGES);
    let first = &warnings["control-health.0"];
    assert_eq!((first.code.as_str(), first.text.len()), ("control-health.0", MAX_DETAIL_LEN));
    assert!(!health.set_control((0..1000).map(message)));
    assert!(health.set_control([]));
    assert!(codes(&health, now).is_empty());
}

#[test]
fn long_details_are_cut_between_characters() {
    let (mut health, now, wall) = start();
    health.set(Problem::RouterFailed, &"é".repeat(4000), now, wall);
    assert!(health.texts(now)[0].len() <= MAX_DETAIL_LEN + 1);
}

#[test]
fn codes_are_distinct_and_texts_say_something() {
    let codes: BTreeSet<&str> = catalogue::ALL.iter().map(|problem| entry(*problem).code).collect();
    assert_eq!(codes.len(), catalogue::ALL.len());
    for problem in catalogue::ALL {
        let entry = entry(*problem);
        assert!(!entry.title.is_empty() && !entry.text.is_empty());
        assert!(!entry.explained_by.contains(problem), "{}", entry.code);
    }
}
