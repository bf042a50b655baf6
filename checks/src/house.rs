//! How every crate is set up: lints, `unsafe`, and nothing that runs code at build time.

use anyhow::Context;
use cargo_metadata::{Metadata, TargetKind};
use syn::visit::Visit;

use crate::Violation;
use crate::layers::folder_of;
use crate::source::Source;

/// The crates that may hold `unsafe` code, in modules named `sys`.
const UNSAFE_ALLOWED: &[&str] = &["platform/linux", "platform/macos", "tunnel/engine", "base/aead"];

pub(crate) fn check(metadata: &Metadata, sources: &[Source]) -> anyhow::Result<Vec<Violation>> {
    let mut violations = Vec::new();
    for package in metadata.workspace_packages() {
        let folder =
            folder_of(metadata, package.manifest_path.as_str()).context("manifest outside the workspace")?;
        let manifest = std::fs::read_to_string(&package.manifest_path)?;
        if !manifest.contains("[lints]\nworkspace = true") {
            violations.push(format!("{folder}: does not inherit the lints; add `[lints] workspace = true`"));
        }
        if package.version != metadata_version(metadata) {
            violations.push(format!("{folder}: has a version of its own; write `version.workspace = true`"));
        }
        for target in &package.targets {
            if target.kind.iter().any(|kind| matches!(kind, TargetKind::CustomBuild | TargetKind::ProcMacro))
            {
                violations
                    .push(format!("{folder}: build scripts and procedural macros hide code from the checks"));
            }
        }
    }
    for source in sources {
        violations.extend(unsafe_code(source));
    }
    Ok(violations)
}

/// The version that the workspace sets: the binary's.
fn metadata_version(metadata: &Metadata) -> cargo_metadata::semver::Version {
    let binary =
        metadata.workspace_packages().into_iter().find(|package| package.name.as_str() == "tsrs-agent");
    binary.map_or_else(|| cargo_metadata::semver::Version::new(0, 0, 0), |package| package.version.clone())
}

fn unsafe_code(source: &Source) -> Vec<Violation> {
    let allowed = UNSAFE_ALLOWED.contains(&source.krate.as_str());
    let in_crate = source.path.strip_prefix(&source.krate).unwrap_or(&source.path);
    let root = matches!(in_crate, "/src/lib.rs" | "/src/main.rs");
    let mut violations = Vec::new();
    if root && !allowed && !forbids_unsafe(&source.tree) {
        violations.push(format!("{}: write #![forbid(unsafe_code)]", source.path));
    }
    let in_sys = in_crate.split('/').any(|part| matches!(part, "sys" | "sys.rs"));
    let mut finder = UnsafeFinder::default();
    finder.visit_file(&source.tree);
    if finder.found && !(allowed && (in_sys || source.test_only)) {
        violations.push(format!(
            "{}: unsafe code outside a `sys` module; put a safe face around it there",
            source.path
        ));
    }
    violations
}

fn forbids_unsafe(file: &syn::File) -> bool {
    file.attrs.iter().any(|attribute| {
        attribute.path().is_ident("forbid")
            && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("unsafe_code"))
    })
}

#[derive(Default)]
struct UnsafeFinder {
    found: bool,
}

impl<'ast> Visit<'ast> for UnsafeFinder {
    fn visit_expr_unsafe(&mut self, _: &'ast syn::ExprUnsafe) {
        self.found = true;
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        self.found |= item.unsafety.is_some();
        syn::visit::visit_item_impl(self, item);
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        self.found |= signature.unsafety.is_some();
        syn::visit::visit_signature(self, signature);
    }

    fn visit_item_foreign_mod(&mut self, _: &'ast syn::ItemForeignMod) {
        self.found = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(krate: &str, path: &str, text: &str) -> Source {
        Source {
            krate: krate.into(),
            path: path.into(),
            tree: syn::parse_file(text).unwrap(),
            test_only: false,
        }
    }

    #[test]
    fn unsafe_code_is_found_where_it_may_not_be() {
        let text = "fn f() { unsafe { g() } }";
        assert!(unsafe_code(&source("tunnel/engine", "tunnel/engine/src/sys/udp.rs", text)).is_empty());
        assert_eq!(unsafe_code(&source("tunnel/engine", "tunnel/engine/src/rx.rs", text)).len(), 1);
        assert_eq!(unsafe_code(&source("tunnel/path", "tunnel/path/src/sys.rs", text)).len(), 1);
        assert_eq!(
            unsafe_code(&source("tunnel/path", "tunnel/path/src/a.rs", "unsafe impl Send for A {}")).len(),
            1
        );
        assert_eq!(unsafe_code(&source("tunnel/path", "tunnel/path/src/lib.rs", "fn f() {}")).len(), 1);
        let forbidding = "#![forbid(unsafe_code)] fn f() {}";
        assert!(unsafe_code(&source("tunnel/path", "tunnel/path/src/lib.rs", forbidding)).is_empty());
    }
}
