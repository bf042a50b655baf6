//! Every decoder of input from the network or the disk has a fuzz target.
//!
//! A decoder is a function of a crate that is neither of the lab nor `checks`, outside of tests, which
//!
//! - can be called from outside its module, takes bytes, text or a stream, and is named for reading them (`parse`, `decode`,
//!   `open`, `handle_…`: the words stand in [`scan`]); or
//! - calls a `serde_json::from_…` function, whatever its name.
//!
//! Each stands in the [`table`] with the target that reaches it, or with the reason why it needs none. The table, the list `TARGETS` of
//! `lab/fuzzing`, the programs in `lab/fuzz/fuzz_targets` and the seeds in `lab/fuzz/seeds` must agree. Functions that macros write
//! are not seen.

mod scan;
mod table;

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context;
use cargo_metadata::{Metadata, MetadataCommand};

use crate::Violation;
use crate::source::Source;
use scan::{Found, Functions};
use table::TABLE;

/// What covers a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cover {
    /// A target of `lab/fuzzing`.
    Target(&'static str),
    /// Nothing, for this reason.
    Exempt(&'static str),
}

type Table<'a> = &'a [(&'a str, &'a str, Cover)];

/// Most bytes of a seed: they are read at each test run and stay in the history of the repository.
const MAX_SEED_LEN: u64 = 4096;

pub(crate) fn check(metadata: &Metadata, sources: &[Source]) -> anyhow::Result<Vec<Violation>> {
    let folder = metadata.workspace_root.as_std_path().join("lab/fuzz");
    let bodies = bodies(sources)?;
    let mut violations = table_against_code(TABLE, &scan::functions(sources));
    violations.extend(table_against_targets(TABLE, &names(&bodies)));
    violations.extend(programs(&folder, &bodies)?);
    violations.extend(seeds(&folder, &names(&bodies))?);
    Ok(violations)
}

fn table_against_code(table: Table<'_>, functions: &Functions) -> Vec<Violation> {
    let listed: BTreeSet<Found> = table
        .iter()
        .map(|(krate, path, _)| Found { krate: (*krate).to_owned(), path: (*path).to_owned() })
        .collect();
    let missing = functions.decoders.difference(&listed).map(|found| {
        format!(
            "{}: {} is a decoder without a fuzz target; write one in lab/fuzzing and name it in checks/src/decoders/table.rs",
            found.krate, found.path
        )
    });
    let gone = listed
        .difference(&functions.all)
        .map(|entry| format!("checks/src/decoders/table.rs: {} has no function {}", entry.krate, entry.path));
    let unsorted = table.windows(2).filter(|pair| (pair[0].0, pair[0].1) >= (pair[1].0, pair[1].1));
    let unsorted = unsorted
        .map(|pair| format!("checks/src/decoders/table.rs: {} {} is not in order", pair[1].0, pair[1].1));
    missing.chain(gone).chain(unsorted).collect()
}

fn table_against_targets(table: Table<'_>, targets: &BTreeSet<String>) -> Vec<Violation> {
    let mut used = BTreeSet::new();
    let mut violations = Vec::new();
    for (krate, path, cover) in table {
        match cover {
            Cover::Target(target) => {
                used.insert((*target).to_owned());
                if !targets.contains(*target) {
                    violations.push(format!(
                        "{krate}: {path} is covered by {target}, which lab/fuzzing does not have"
                    ));
                }
            }
            Cover::Exempt(reason) => {
                if reason.is_empty() {
                    violations.push(format!("{krate}: {path} is exempt without a reason"));
                }
            }
        }
    }
    violations
        .extend(targets.difference(&used).map(|target| format!("lab/fuzzing: {target} covers no decoder")));
    violations
}

/// A target: its name, and module and function of its body.
type Body = (String, [String; 2]);

fn names(bodies: &[Body]) -> BTreeSet<String> {
    bodies.iter().map(|(name, _)| name.clone()).collect()
}

/// The list `TARGETS` of `lab/fuzzing`.
fn bodies(sources: &[Source]) -> anyhow::Result<Vec<Body>> {
    let source = sources.iter().find(|source| source.path == "lab/fuzzing/src/lib.rs");
    let items = &source.context("lab/fuzzing has no lib.rs")?.tree.items;
    let list = items.iter().find_map(|item| match item {
        syn::Item::Const(list) if list.ident == "TARGETS" => Some(&*list.expr),
        _ => None,
    });
    let Some(syn::Expr::Reference(list)) = list else { anyhow::bail!("lab/fuzzing has no list TARGETS") };
    let syn::Expr::Array(list) = &*list.expr else { anyhow::bail!("TARGETS is no array") };
    list.elems
        .iter()
        .map(|entry| body(entry).context("an entry of TARGETS is not (\"name\", module::function)"))
        .collect()
}

fn body(entry: &syn::Expr) -> Option<Body> {
    let syn::Expr::Tuple(entry) = entry else { return None };
    let (syn::Expr::Lit(name), syn::Expr::Path(body)) = (entry.elems.first()?, entry.elems.get(1)?) else {
        return None;
    };
    let syn::Lit::Str(name) = &name.lit else { return None };
    let mut names = body.path.segments.iter().map(|segment| segment.ident.to_string());
    Some((name.value(), [names.next()?, names.next()?]))
}

/// For each target a program of its name that runs its body, and no other program.
fn programs(folder: &Path, bodies: &[Body]) -> anyhow::Result<Vec<Violation>> {
    let metadata = MetadataCommand::new().manifest_path(folder.join("Cargo.toml")).no_deps().exec()?;
    let declared: BTreeSet<String> = metadata
        .packages
        .iter()
        .flat_map(|package| &package.targets)
        .map(|target| target.name.clone())
        .collect();
    let mut violations = differences(&declared, &names(bodies), "lab/fuzz/Cargo.toml");
    let files = file_names(&folder.join("fuzz_targets"))?;
    let wanted = bodies.iter().map(|(name, _)| format!("{name}.rs")).collect();
    violations.extend(differences(&files, &wanted, "lab/fuzz/fuzz_targets"));
    for (name, [module, function]) in bodies {
        if *name != format!("{module}_{function}") {
            violations.push(format!("lab/fuzzing: {name} should be named {module}_{function}"));
        }
        let program =
            std::fs::read_to_string(folder.join(format!("fuzz_targets/{name}.rs"))).unwrap_or_default();
        let line = format!(
            "libfuzzer_sys::fuzz_target!(|data: &[u8]| tsrs_lab_fuzzing::{module}::{function}(data));"
        );
        if program.trim() != format!("#![no_main]\n{line}") {
            violations.push(format!("lab/fuzz/fuzz_targets/{name}.rs: write #![no_main] and {line}"));
        }
    }
    Ok(violations)
}

fn seeds(folder: &Path, targets: &BTreeSet<String>) -> anyhow::Result<Vec<Violation>> {
    let folder = folder.join("seeds");
    let mut violations = differences(&file_names(&folder)?, targets, "lab/fuzz/seeds");
    for target in targets {
        let Ok(entries) = std::fs::read_dir(folder.join(target)) else { continue };
        for entry in entries {
            let entry = entry?;
            if entry.metadata()?.len() > MAX_SEED_LEN {
                violations.push(format!("{}: longer than {MAX_SEED_LEN} bytes", entry.path().display()));
            }
        }
    }
    Ok(violations)
}

fn file_names(folder: &Path) -> anyhow::Result<BTreeSet<String>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

fn differences(found: &BTreeSet<String>, wanted: &BTreeSet<String>, place: &str) -> Vec<Violation> {
    let missing = wanted.difference(found).map(|name| format!("{place}: {name} is missing"));
    let unknown = found.difference(wanted).map(|name| format!("{place}: {name} is no target of lab/fuzzing"));
    missing.chain(unknown).collect()
}

#[cfg(test)]
mod tests;
