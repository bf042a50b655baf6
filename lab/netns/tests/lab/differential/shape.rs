//! The shape of JSON: which members there are and of which types.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Objects whose keys are data, though they may look like names.
const MAPS: &[&str] = &["CapMap", "Peer", "User", "UserProfiles", "Warnings"];

/// The types seen at each path, elements of a list and members of a map taken together.
pub(super) type Shape = BTreeMap<String, BTreeSet<&'static str>>;

/// The shape of all values of a text, or why it is no JSON.
pub(super) fn shape(text: &str) -> Result<Shape, serde_json::Error> {
    let mut shape = Shape::new();
    for value in serde_json::Deserializer::from_str(text).into_iter() {
        note(&mut shape, "", "", &value?);
    }
    Ok(shape)
}

/// The paths at which two shapes differ, and how. What lies below a path that only one side has is not named.
pub(super) fn differences(ours: &Shape, theirs: &Shape) -> Vec<(String, String)> {
    let paths: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let mut found: Vec<(String, String)> = Vec::new();
    for path in paths {
        let (our, their) = (ours.get(path), theirs.get(path));
        let below = found
            .iter()
            .any(|(root, _)| path.strip_prefix(root.as_str()).is_some_and(|rest| rest.starts_with('.')));
        if our == their || (below && (our.is_none() || their.is_none())) {
            continue;
        }
        let words =
            |types: Option<&BTreeSet<&str>>| types.map_or("nothing".to_owned(), |types| format!("{types:?}"));
        found.push((path.clone(), format!("{} where the other has {}", words(our), words(their))));
    }
    found
}

fn note(shape: &mut Shape, path: &str, name: &str, value: &Value) {
    shape.entry(path.to_owned()).or_default().insert(kind(value));
    let below = |step: &str| if path.is_empty() { step.to_owned() } else { format!("{path}.{step}") };
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                let step = if is_data(name, key) { "*" } else { key };
                note(shape, &below(step), key, member);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| note(shape, &below("[]"), "", item)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A key is data in a map, and wherever it is no name of a field.
fn is_data(parent: &str, key: &str) -> bool {
    let is_name = key.starts_with(|first: char| first.is_ascii_alphabetic())
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    MAPS.contains(&parent) || !is_name
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

#[test]
fn shapes_differ_in_types_and_members_and_not_in_data() {
    let of = |text| shape(text).unwrap();
    let same = differences(
        &of(r#"{"Peer": {"nodekey:1": {"A": [1, 2]}}, "R": {"900": 1.5}}"#),
        &of(r#"{"Peer": {"x": {"A": [3]}, "y": {"A": [4]}}, "R": {"1": 2, "2": 3}}"#),
    );
    assert_eq!(same, []);
    let found = differences(&of(r#"{"A": null, "B": {"C": 1}, "D": 1}"#), &of(r#"{"A": [], "D": 1}"#));
    assert_eq!(found.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), ["A", "B"]);
}
