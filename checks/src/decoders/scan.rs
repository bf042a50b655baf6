//! Finding decoders in the syntax trees.

use std::collections::BTreeSet;

use syn::visit::Visit;

use crate::source::Source;

/// First words of names of functions that read bytes.
const BYTE_WORDS: &[&str] = &[
    "answer",
    "attrs",
    "classify",
    "decode",
    "decompress",
    "dechunk",
    "from",
    "handle",
    "next",
    "of",
    "open",
    "parse",
    "read",
    "received",
    "split",
    "take",
];
/// First words of names of functions that read text. Fewer, since names and paths are text too.
const TEXT_WORDS: &[&str] = &["decode", "from", "parse"];
/// Traits by which a function reads from a stream.
const STREAMS: &[&str] = &["AsyncRead", "AsyncStream", "AsyncBufRead", "Read", "BufRead"];
/// First words of names of functions that read from a stream.
const STREAM_WORDS: &[&str] = &["finish", "parse", "read"];

/// A decoder, as the table names it: folder of its crate, and modules, type and function.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Found {
    pub(super) krate: String,
    pub(super) path: String,
}

/// The functions of the workspace.
#[derive(Default)]
pub(super) struct Functions {
    /// All of them.
    pub(super) all: BTreeSet<Found>,
    /// Those that are decoders.
    pub(super) decoders: BTreeSet<Found>,
}

/// Finds all functions outside of tests, and the decoders among them.
pub(super) fn functions(sources: &[Source]) -> Functions {
    let tests = test_modules(sources);
    let mut found = Functions::default();
    for source in sources.iter().filter(|source| !source.test_only && is_product(&source.krate)) {
        let modules = modules_of(source);
        let is_test = (1..=modules.len()).any(|len| {
            tests.contains(&Found { krate: source.krate.clone(), path: modules[..len].join("::") })
        });
        if !is_test {
            let mut visitor = Visitor { krate: &source.krate, scope: modules, found: &mut found };
            visitor.visit_file(&source.tree);
        }
    }
    found
}

fn is_product(krate: &str) -> bool {
    !krate.starts_with("lab/") && krate != "checks"
}

/// The modules that a file stands for: none for the root of a crate.
fn modules_of(source: &Source) -> Vec<String> {
    let in_crate = source.path.strip_prefix(&source.krate).unwrap_or(&source.path);
    let inner = in_crate.trim_start_matches("/src/").trim_end_matches(".rs");
    let mut modules: Vec<String> = inner.split('/').map(str::to_owned).collect();
    if modules.last().is_some_and(|last| matches!(last.as_str(), "mod" | "lib" | "main")) {
        modules.pop();
    }
    modules
}

/// Modules in files of their own that are built for tests only.
fn test_modules(sources: &[Source]) -> BTreeSet<Found> {
    let mut found = BTreeSet::new();
    for source in sources {
        for item in &source.tree.items {
            if let syn::Item::Mod(module) = item
                && is_test_only(&module.attrs)
            {
                let mut path = modules_of(source);
                path.push(module.ident.to_string());
                found.insert(Found { krate: source.krate.clone(), path: path.join("::") });
            }
        }
    }
    found
}

/// `#[cfg(test)]`, `#[cfg(any(test, …))]` and `#[test]`.
fn is_test_only(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        if attribute.path().is_ident("test") {
            return true;
        }
        let Ok(list) = attribute.meta.require_list() else { return false };
        let text = list.tokens.to_string();
        attribute.path().is_ident("cfg") && (text == "test" || text.starts_with("any (test"))
    })
}

struct Visitor<'a> {
    krate: &'a str,
    /// Modules, type and functions around the place that is visited.
    scope: Vec<String>,
    found: &'a mut Functions,
}

impl Visitor<'_> {
    fn within(&mut self, name: String, visit: impl FnOnce(&mut Self)) {
        self.scope.push(name);
        visit(self);
        self.scope.pop();
    }

    fn here(&self) -> Found {
        Found { krate: self.krate.to_owned(), path: self.scope.join("::") }
    }

    fn function(&mut self, signature: &syn::Signature, visible: bool, visit: impl FnOnce(&mut Self)) {
        self.within(signature.ident.to_string(), |visitor| {
            let here = visitor.here();
            if visible && reads_input(signature) {
                visitor.found.decoders.insert(here.clone());
            }
            visitor.found.all.insert(here);
            visit(visitor);
        });
    }
}

impl<'ast> Visit<'ast> for Visitor<'_> {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !is_test_only(&module.attrs) {
            self.within(module.ident.to_string(), |visitor| syn::visit::visit_item_mod(visitor, module));
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let name = match &*item.self_ty {
            syn::Type::Path(path) => path.path.segments.last().map(|segment| segment.ident.to_string()),
            _ => None,
        };
        let of_trait = item.trait_.is_some();
        self.within(name.unwrap_or_else(|| "_".to_owned()), |visitor| {
            for item in &item.items {
                if let syn::ImplItem::Fn(function) = item
                    && !is_test_only(&function.attrs)
                {
                    let visible = of_trait || is_visible(&function.vis);
                    visitor.function(&function.sig, visible, |visitor| visitor.visit_block(&function.block));
                }
            }
        });
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        if !is_test_only(&function.attrs) {
            self.function(&function.sig, is_visible(&function.vis), |visitor| {
                visitor.visit_block(&function.block);
            });
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if let [library, function] = names.as_slice()
            && library == "serde_json"
            && function.starts_with("from_")
        {
            let here = self.here();
            self.found.decoders.insert(here);
        }
        syn::visit::visit_path(self, path);
    }
}

fn is_visible(visibility: &syn::Visibility) -> bool {
    !matches!(visibility, syn::Visibility::Inherited)
}

/// Whether a function takes what somebody else wrote, and is named for reading it.
fn reads_input(signature: &syn::Signature) -> bool {
    let name = signature.ident.to_string();
    let first_word = name.split('_').next().unwrap_or_default();
    let generics = Mentioned::of(|mentioned| mentioned.visit_generics(&signature.generics));
    signature.inputs.iter().any(|input| {
        let syn::FnArg::Typed(argument) = input else { return false };
        let mut names = Mentioned::of(|mentioned| mentioned.visit_type(&argument.ty)).0;
        if names.iter().any(|name| generics.0.contains(name)) {
            names.extend(generics.0.iter().cloned());
        }
        let has = |wanted: &[&str]| names.iter().any(|name| wanted.contains(&name.as_str()));
        (has(&["[u8]", "Bytes"]) && BYTE_WORDS.contains(&first_word))
            || (has(&["str"]) && TEXT_WORDS.contains(&first_word))
            || (has(STREAMS) && STREAM_WORDS.contains(&first_word))
    })
}

/// The names in a type; slices, arrays and vectors of bytes count as `[u8]`.
#[derive(Default)]
struct Mentioned(BTreeSet<String>);

impl Mentioned {
    fn of(visit: impl FnOnce(&mut Self)) -> Self {
        let mut mentioned = Self::default();
        visit(&mut mentioned);
        mentioned
    }
}

impl<'ast> Visit<'ast> for Mentioned {
    fn visit_type_slice(&mut self, slice: &'ast syn::TypeSlice) {
        self.element(&slice.elem);
    }

    fn visit_type_array(&mut self, array: &'ast syn::TypeArray) {
        self.element(&array.elem);
    }

    fn visit_path_segment(&mut self, segment: &'ast syn::PathSegment) {
        let name = segment.ident.to_string();
        if let ("Vec", syn::PathArguments::AngleBracketed(arguments)) = (name.as_str(), &segment.arguments)
            && let Some(syn::GenericArgument::Type(element)) = arguments.args.first()
        {
            self.element(element);
        }
        self.0.insert(name);
        syn::visit::visit_path_segment(self, segment);
    }

    fn visit_type_param(&mut self, parameter: &'ast syn::TypeParam) {
        self.0.insert(parameter.ident.to_string());
        syn::visit::visit_type_param(self, parameter);
    }
}

impl Mentioned {
    fn element(&mut self, element: &syn::Type) {
        if let syn::Type::Path(path) = element
            && path.path.is_ident("u8")
        {
            self.0.insert("[u8]".to_owned());
        } else {
            self.visit_type(element);
        }
    }
}
