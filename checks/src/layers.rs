//! Which crate of the workspace may name which (ARCHITECTURE.md, "Layers").

use cargo_metadata::{DependencyKind, Metadata};

use crate::Violation;

/// How a crate takes part: its height, and whether it may do input and output.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// Crates depend on lower layers and on equals of the same group only.
    layer: u8,
    /// Whether sockets, files, clocks and processes are allowed.
    pub(crate) io: bool,
}

/// The table of places, by folder. A folder that is not here may not be in the workspace.
const PLACES: &[(&str, Place)] = &[
    ("base/types", sans_io(0)),
    ("base/aead", sans_io(0)),
    ("base/noise", sans_io(1)),
    ("control/tailcfg", sans_io(1)),
    ("agent/localapi", sans_io(1)),
    ("platform/api", sans_io(1)),
    ("tunnel/packet", sans_io(1)),
    ("control/netmap", sans_io(2)),
    ("control/tka", sans_io(2)),
    ("tunnel/wireguard", sans_io(2)),
    ("tunnel/path", sans_io(2)),
    ("tunnel/derp", sans_io(2)),
    ("tunnel/filter", sans_io(2)),
    ("tunnel/dns", sans_io(2)),
    ("tunnel/service", sans_io(2)),
    ("platform/net", with_io(2)),
    ("tunnel/dataplane", sans_io(3)),
    ("agent/core", sans_io(4)),
    ("control/client", with_io(4)),
    ("tunnel/engine", with_io(4)),
    ("tunnel/exit", with_io(4)),
    ("platform/linux", with_io(4)),
    ("platform/macos", with_io(4)),
    ("agent/services", with_io(4)),
    ("agent/daemon", with_io(5)),
    ("agent/cli", with_io(5)),
    ("agent/bin", with_io(6)),
    ("lab/vectors", with_io(9)),
    ("lab/fuzzing", with_io(9)),
    ("lab/control", with_io(9)),
    ("lab/netns", with_io(9)),
    ("lab/bench", with_io(9)),
    ("checks", with_io(9)),
];

const fn sans_io(layer: u8) -> Place {
    Place { layer, io: false }
}

const fn with_io(layer: u8) -> Place {
    Place { layer, io: true }
}

/// The place of a crate by its folder.
pub(crate) fn place(folder: &str) -> Option<Place> {
    PLACES.iter().find(|(name, _)| *name == folder).map(|(_, place)| *place)
}

pub(crate) fn check(metadata: &Metadata) -> Vec<Violation> {
    let mut violations = Vec::new();
    for package in metadata.workspace_packages() {
        let Some(from) = folder_of(metadata, package.manifest_path.as_str()) else { continue };
        if place(&from).is_none() {
            violations.push(format!(
                "{from}: not in the table of layers; add it to checks/src/layers.rs with its layer"
            ));
            continue;
        }
        for dependency in &package.dependencies {
            let Some(path) = &dependency.path else { continue };
            let Some(to) = folder_of(metadata, &format!("{path}/Cargo.toml")) else { continue };
            if let Some(why) = refusal(&from, &to, dependency.kind) {
                violations.push(format!("{from} must not depend on {to}: {why}"));
            }
        }
    }
    violations
}

/// Why the dependency is forbidden, if it is.
fn refusal(from: &str, to: &str, kind: DependencyKind) -> Option<String> {
    let (Some(from_place), Some(to_place)) = (place(from), place(to)) else {
        return Some("one of them has no layer".to_owned());
    };
    if to_place.layer == 9 {
        let beside = from_place.layer == 9 || kind == DependencyKind::Development;
        return (!beside)
            .then(|| "lab and checks are used by tests only; make it a dev-dependency".to_owned());
    }
    if from_place.layer == 9 || kind == DependencyKind::Development {
        return None;
    }
    let group = |folder: &str| folder.split('/').next().unwrap_or(folder).to_owned();
    match (group(from).as_str(), group(to).as_str()) {
        ("control", "tunnel") | ("tunnel", "control") => {
            return Some("control and tunnel never name each other; agent/core joins them".to_owned());
        }
        _ => {}
    }
    if from == "agent/cli" && !matches!(to, "agent/localapi" | "base/types") {
        return Some("the command line sees agent/localapi and base/types only".to_owned());
    }
    if matches!(to, "platform/linux" | "platform/macos") && from != "agent/daemon" {
        return Some("only agent/daemon names an operating system".to_owned());
    }
    if from_place.io && to_place.io && from_place.layer == to_place.layer {
        return Some(
            "two crates with input and output never name each other; pass a trait through a lower layer"
                .to_owned(),
        );
    }
    let vocabulary = from_place.layer == to_place.layer && (from_place.layer <= 1);
    (to_place.layer >= from_place.layer && !vocabulary).then(|| {
        format!("dependencies go down, and this goes from layer {} to {}", from_place.layer, to_place.layer)
    })
}

/// The folder of a manifest relative to the workspace root.
pub(crate) fn folder_of(metadata: &Metadata, manifest: &str) -> Option<String> {
    let folder = manifest.strip_suffix("/Cargo.toml")?;
    Some(folder.strip_prefix(metadata.workspace_root.as_str())?.trim_start_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forbidden_edges_are_refused() {
        for (from, to) in [
            ("control/client", "tunnel/derp"),
            ("tunnel/engine", "control/tailcfg"),
            ("agent/cli", "agent/core"),
            ("agent/core", "tunnel/engine"),
            ("agent/core", "platform/linux"),
            ("tunnel/engine", "control/client"),
            ("platform/linux", "platform/macos"),
            ("base/types", "control/netmap"),
            ("tunnel/wireguard", "tunnel/path"),
            ("agent/daemon", "lab/control"),
        ] {
            assert!(refusal(from, to, DependencyKind::Normal).is_some(), "{from} -> {to}");
        }
    }

    #[test]
    fn wanted_edges_are_allowed() {
        for (from, to) in [
            ("agent/daemon", "platform/linux"),
            ("tunnel/dataplane", "tunnel/wireguard"),
            ("agent/core", "tunnel/dataplane"),
            ("agent/core", "control/netmap"),
            ("control/client", "platform/net"),
            ("agent/localapi", "control/tailcfg"),
        ] {
            assert_eq!(refusal(from, to, DependencyKind::Normal), None, "{from} -> {to}");
        }
        assert_eq!(refusal("base/types", "lab/vectors", DependencyKind::Development), None);
    }
}
