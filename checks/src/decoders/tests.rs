use super::*;

fn source(path: &str, text: &str) -> Source {
    let krate: Vec<&str> = path.split('/').take(2).collect();
    Source {
        krate: krate.join("/"),
        path: path.to_owned(),
        tree: syn::parse_file(text).unwrap(),
        test_only: false,
    }
}

fn decoders(sources: &[Source]) -> Vec<String> {
    let functions = scan::functions(sources);
    functions.decoders.iter().map(|found| format!("{} {}", found.krate, found.path)).collect()
}

#[test]
fn decoders_are_found_in_every_form() {
    for (text, path) in [
        ("pub fn parse(bytes: &[u8]) {}", "parse"),
        ("pub(crate) fn decode_all(bytes: &mut [u8]) {}", "decode_all"),
        ("pub(super) fn read(raw: [u8; 4]) {}", "read"),
        ("impl A { pub fn handle_datagram(&mut self, from: u8, datagram: &[u8]) {} }", "A::handle_datagram"),
        ("impl<'a> A<'a> { pub async fn open(frame: Option<&Bytes>) {} }", "A::open"),
        ("impl FromStr for A { fn from_str(text: &str) -> Result<Self, ()> { Err(()) } }", "A::from_str"),
        ("pub fn take(messages: Vec<Vec<u8>>) {}", "take"),
        ("pub async fn read_head(stream: &mut (impl AsyncRead + Unpin)) {}", "read_head"),
        ("pub async fn finish<S: AsyncRead>(stream: S) {}", "finish"),
        ("pub async fn read_it<S>(stream: &mut S) where S: tokio::io::AsyncRead {}", "read_it"),
        ("mod inner { pub fn parse_it(text: &str) {} }", "inner::parse_it"),
        ("fn load() { let x: A = serde_json::from_slice(b\"\").unwrap(); }", "load"),
        ("fn load() { read().and_then(serde_json::from_reader::<_, A>); }", "load"),
        ("fn outer() { fn parse() { serde_json::from_str::<A>(\"\"); } }", "outer::parse"),
    ] {
        assert_eq!(
            decoders(&[source("tunnel/path/src/lib.rs", text)]),
            [format!("tunnel/path {path}")],
            "{text}"
        );
    }
    let deep = source("tunnel/path/src/disco/mod.rs", "pub fn parse(bytes: &[u8]) {}");
    assert_eq!(decoders(&[deep]), ["tunnel/path disco::parse"]);
}

#[test]
fn other_functions_are_none() {
    for text in [
        "fn parse(bytes: &[u8]) {}",
        "pub fn parse(count: u8, words: &[u16]) {}",
        "pub fn put(bytes: &[u8]) {}",
        "pub fn open(path: &str) {}",
        "pub fn parsed_of(bytes: &[u8]) {}",
        "pub fn store() { serde_json::to_vec(&1); }",
        "#[cfg(test)] mod tests { pub fn parse(bytes: &[u8]) {} }",
        "#[cfg(any(test, feature = \"testing\"))] mod fake { pub fn parse(bytes: &[u8]) {} }",
        "#[test] fn reads() { serde_json::from_str::<A>(\"\"); }",
    ] {
        assert_eq!(decoders(&[source("tunnel/path/src/lib.rs", text)]), [""; 0], "{text}");
    }
    let text = "pub fn parse(bytes: &[u8]) {}";
    assert_eq!(decoders(&[source("lab/netns/src/lib.rs", text)]), [""; 0]);
    let sources = [
        source("tunnel/path/src/lib.rs", "#[cfg(test)] mod testing;"),
        source("tunnel/path/src/testing/deep.rs", text),
        source("tunnel/path/src/testing.rs", text),
    ];
    assert_eq!(decoders(&sources), [""; 0]);
}

#[test]
fn a_decoder_that_is_not_listed_is_a_violation_and_so_is_an_entry_for_nothing() {
    let functions =
        scan::functions(&[source("tunnel/path/src/a.rs", "pub fn parse(bytes: &[u8]) {} pub fn other() {}")]);
    let target = Cover::Target("path_a");
    assert_eq!(table_against_code(&[("tunnel/path", "a::parse", target)], &functions), [""; 0]);
    // A function that is a decoder by another name may be listed.
    let both = [("tunnel/path", "a::other", target), ("tunnel/path", "a::parse", target)];
    assert_eq!(table_against_code(&both, &functions), [""; 0]);
    assert_eq!(table_against_code(&[], &functions).len(), 1);
    assert_eq!(table_against_code(&[both[1], ("tunnel/path", "b::gone", target)], &functions).len(), 1);
    assert_eq!(table_against_code(&[both[1], both[0]], &functions).len(), 1, "out of order");
}

#[test]
fn targets_and_table_must_agree() {
    let targets: BTreeSet<String> = ["path_a".to_owned()].into();
    let entry = |cover| [("tunnel/path", "a::parse", cover)];
    assert_eq!(table_against_targets(&entry(Cover::Target("path_a")), &targets), [""; 0]);
    assert_eq!(table_against_targets(&entry(Cover::Target("path_b")), &targets).len(), 2);
    assert_eq!(table_against_targets(&entry(Cover::Exempt("a reason")), &targets).len(), 1);
    assert_eq!(table_against_targets(&entry(Cover::Exempt("")), &BTreeSet::new()).len(), 1);
}

#[test]
fn entries_of_the_list_of_targets_are_read() {
    let entry = |text| body(&syn::parse_str(text).unwrap());
    assert_eq!(entry("(\"a_b\", a::b)"), Some(("a_b".to_owned(), ["a".to_owned(), "b".to_owned()])));
    assert_eq!(entry("(\"a_b\", b)"), None);
    assert_eq!(entry("a::b"), None);
}

#[test]
fn programs_and_seeds_are_compared_with_the_targets() {
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
    assert_eq!(differences(&set(&["a"]), &set(&["a"]), "x"), [""; 0]);
    assert_eq!(differences(&set(&["a"]), &set(&["b"]), "x").len(), 2);
}
