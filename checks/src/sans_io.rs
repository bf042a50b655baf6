//! Protocol crates are pure: no socket, file, clock, thread, process or environment; and no crate makes an unbounded
//! channel.

use crate::Violation;
use crate::layers::place;
use crate::paths::{Hidden, Named, named};
use crate::source::Source;

/// What a crate without input and output may not name, with what to do instead.
const GUARDED: &[(&str, &str)] = &[
    ("std::net::TcpStream", "take bytes in and give bytes out"),
    ("std::net::TcpListener", "take bytes in and give bytes out"),
    ("std::net::UdpSocket", "take datagrams in and give datagrams out"),
    ("std::net::ToSocketAddrs", "names are resolved by platform/net"),
    ("std::fs", "the daemon owns the files"),
    ("std::process", "only platform crates and the lab start programs"),
    ("std::thread", "the shell owns the threads"),
    ("std::env", "settings are passed in"),
    ("std::os::unix", "sockets and files belong to the shells"),
    ("std::os::linux", "sockets and files belong to the shells"),
    ("std::os::fd::RawFd", "borrow a descriptor or own it"),
    ("std::os::fd::FromRawFd", "borrow a descriptor or own it"),
    ("std::os::fd::AsRawFd", "borrow a descriptor or own it"),
    ("std::time::Instant::now", "pass `now` in"),
    ("std::time::Instant::elapsed", "pass `now` in"),
    ("std::time::SystemTime", "pass the time in"),
    ("jiff::Timestamp::now", "pass the time in"),
    ("jiff::Zoned::now", "pass the time in"),
    ("rand_core::OsRng", "the generator is given at construction"),
    ("std::io::stdin", "no terminal here"),
    ("std::io::stdout", "no terminal here"),
    ("std::io::stderr", "no terminal here"),
    ("tokio", "the shell owns the runtime"),
    ("nix", "system calls belong to the shells"),
    ("libc", "system calls belong to the shells"),
    ("socket2", "sockets belong to the shells"),
];

/// What no crate may name.
const UNBOUNDED: &[(&str, &str)] = &[
    ("tokio::sync::mpsc::unbounded_channel", "every queue has a named limit"),
    ("std::sync::mpsc::channel", "every queue has a named limit; use sync_channel"),
    ("futures_util::channel::mpsc::unbounded", "every queue has a named limit"),
    ("crossbeam_queue::SegQueue", "every queue has a named limit"),
];

pub(crate) fn check(sources: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for source in sources.iter().filter(|source| !source.test_only) {
        let Some(place) = place(&source.krate) else { continue };
        if place.io && !source.krate.starts_with("lab") {
            let named = named(&source.tree);
            violations.extend(breaches(&source.path, &named, UNBOUNDED));
        } else if !place.io {
            let named = named(&source.tree);
            violations.extend(breaches(&source.path, &named, UNBOUNDED));
            violations.extend(breaches(&source.path, &named, GUARDED));
            violations.extend(hidden(&source.path, &named));
        }
    }
    violations
}

pub(crate) fn breaches(file: &str, named: &Named, guarded: &[(&str, &str)]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (guard, instead) in guarded {
        let below = format!("{guard}::");
        if named.paths.iter().any(|path| path == guard || path.starts_with(&below)) {
            violations.push(format!("{file}: names {guard}: {instead}"));
        }
        for hidden in &named.hidden {
            if let Hidden::Glob(prefix) = hidden
                && (prefix == guard
                    || guard.starts_with(&format!("{prefix}::"))
                    || prefix.starts_with(&below))
            {
                violations.push(format!(
                    "{file}: imports all of {prefix}, which holds {guard}: name what you need"
                ));
            }
        }
    }
    violations
}

pub(crate) fn hidden(file: &str, named: &Named) -> Vec<Violation> {
    named
        .hidden
        .iter()
        .filter_map(|hidden| match hidden {
            Hidden::Glob(_) => None,
            Hidden::Include => Some(format!("{file}: include! hides code from the checks; make it a module")),
            Hidden::PathAttribute => {
                Some(format!("{file}: #[path] hides code from the checks; name the file as the module"))
            }
            Hidden::ExternCrate => {
                Some(format!("{file}: extern crate hides names from the checks; use `use`"))
            }
            Hidden::ForeignItems => {
                Some(format!("{file}: foreign functions belong to a `sys` module of an [io] crate"))
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each evasion must be caught; the file name says which.
    #[test]
    fn every_evasion_of_the_corpus_is_caught() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let tree = syn::parse_file(&std::fs::read_to_string(&path).unwrap()).unwrap();
            let source = Source { krate: "tunnel/path".into(), path: name.clone(), tree, test_only: false };
            let violations = check(&[source]);
            let wanted = !name.starts_with("fine_");
            assert_eq!(!violations.is_empty(), wanted, "{name}: {violations:?}");
            seen += 1;
        }
        assert!(seen >= 15, "the corpus is missing files");
    }
}
