//! The Rust files of the workspace as syntax trees.

use std::path::{Path, PathBuf};

use anyhow::Context;
use cargo_metadata::Metadata;

use crate::layers::folder_of;

/// One parsed file.
pub(crate) struct Source {
    /// Folder of the crate it belongs to.
    pub(crate) krate: String,
    /// Path relative to the workspace root.
    pub(crate) path: String,
    /// Its syntax tree.
    pub(crate) tree: syn::File,
    /// Whether it holds tests only: `tests.rs` and files below a `tests/` or `benches/` folder.
    pub(crate) test_only: bool,
}

/// All files under `src/`, `tests/`, `benches/` and `examples/` of every crate.
pub(crate) fn workspace(metadata: &Metadata) -> anyhow::Result<Vec<Source>> {
    let root = metadata.workspace_root.as_std_path();
    let mut sources = Vec::new();
    for package in metadata.workspace_packages() {
        let krate =
            folder_of(metadata, package.manifest_path.as_str()).context("manifest outside the workspace")?;
        for part in ["src", "tests", "benches", "examples"] {
            let mut files = Vec::new();
            rust_files(&root.join(&krate).join(part), &mut files)?;
            for file in files {
                sources.push(read(root, &krate, &file)?);
            }
        }
    }
    Ok(sources)
}

fn read(root: &Path, krate: &str, file: &Path) -> anyhow::Result<Source> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let tree = syn::parse_file(&text).with_context(|| format!("{} does not parse", file.display()))?;
    let path = file.strip_prefix(root)?.to_string_lossy().into_owned();
    let in_crate = path.strip_prefix(krate).unwrap_or(&path);
    let test_only =
        in_crate.split('/').any(|part| matches!(part, "tests" | "tests.rs" | "benches" | "examples"));
    Ok(Source { krate: krate.to_owned(), path, tree, test_only })
}

fn rust_files(folder: &Path, out: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            rust_files(&path, out)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            out.push(path);
        }
    }
    Ok(())
}
