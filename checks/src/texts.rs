//! ARCHITECTURE.md against the tree: what it names exists, and every crate is named.

use cargo_metadata::Metadata;

use crate::Violation;
use crate::layers::folder_of;

pub(crate) fn check(metadata: &Metadata) -> anyhow::Result<Vec<Violation>> {
    let root = metadata.workspace_root.as_std_path();
    let text = std::fs::read_to_string(root.join("ARCHITECTURE.md"))?;
    let mut violations = Vec::new();
    for name in quoted_paths(&text) {
        if !root.join(&name).exists() {
            violations.push(format!("ARCHITECTURE.md names {name}, which does not exist"));
        }
    }
    for package in metadata.workspace_packages() {
        if let Some(folder) = folder_of(metadata, package.manifest_path.as_str())
            && !quoted_paths(&text).contains(&folder)
        {
            violations.push(format!("ARCHITECTURE.md does not name {folder}"));
        }
    }
    Ok(violations)
}

/// What stands between backticks and has a slash or a known ending, and no blank or wildcard: a path of the repository.
fn quoted_paths(text: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for line in text.lines() {
        for (index, part) in line.split('`').enumerate() {
            let known_ending = [".md", ".rs", ".toml"].iter().any(|ending| part.ends_with(ending));
            let path_like =
                !part.contains([' ', '*', '<', '{', ':', '(']) && !part.starts_with(['/', '-', '~']);
            if index % 2 == 1 && path_like && (part.contains('/') || known_ending || part == "checks") {
                paths.push(part.trim_end_matches('/').to_owned());
            }
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_from_other_code() {
        let text = "see `base/types` and `README.md`, not `/var/lib/x`, `a::b`, `up --flag`, `10.0.0.0/8 x`; `checks`";
        assert_eq!(quoted_paths(text), ["base/types", "README.md", "checks"]);
    }
}
