//! Every path that a file names, with its imports resolved.
//!
//! A path is followed through `use` (also renamed, grouped and nested), through modules of the same file, and into the
//! tokens of macro calls, where it is taken as written. What hides a path from this resolver cannot be followed and is
//! reported as [`Hidden`]: globs over a guarded module, `include!`, `#[path]` and `extern crate`.

use std::collections::HashMap;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::Visit;

/// A construct behind which a path could hide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hidden {
    /// `use a::b::*`.
    Glob(String),
    /// `include!(…)`.
    Include,
    /// `#[path = "…"] mod …`.
    PathAttribute,
    /// `extern crate …`.
    ExternCrate,
    /// `extern "C" { … }`.
    ForeignItems,
}

/// What a file names outside its test code.
#[derive(Debug, Default)]
pub(crate) struct Named {
    /// Resolved paths, segments joined by `::`.
    pub(crate) paths: Vec<String>,
    /// Constructs that hide paths.
    pub(crate) hidden: Vec<Hidden>,
}

/// Collects what the non-test part of a file names.
pub(crate) fn named(file: &syn::File) -> Named {
    let mut collector = Collector { scopes: vec![HashMap::new()], named: Named::default() };
    collector.enter(&file.items);
    collector.visit_file(file);
    collector.named
}

struct Collector {
    /// Imports by visible name, innermost scope last.
    scopes: Vec<HashMap<String, String>>,
    named: Named,
}

impl Collector {
    /// Takes in the imports of a list of items before any path in it is resolved.
    fn enter(&mut self, items: &[syn::Item]) {
        for item in items {
            if let syn::Item::Use(item_use) = item
                && !is_test(&item_use.attrs)
            {
                self.import(&item_use.tree, "");
            }
            // `type A = path;` renames as `use path as A;` does.
            if let syn::Item::Type(alias) = item
                && let Some(target) = type_path(&alias.ty)
            {
                self.bind(alias.ident.to_string(), &target);
            }
        }
    }

    fn import(&mut self, tree: &syn::UseTree, prefix: &str) {
        let join = |name: &str| if prefix.is_empty() { name.to_owned() } else { format!("{prefix}::{name}") };
        match tree {
            syn::UseTree::Path(path) => self.import(&path.tree, &join(&path.ident.to_string())),
            syn::UseTree::Name(name) => {
                let ident = name.ident.to_string();
                let (visible, full) = if ident == "self" {
                    (prefix.rsplit("::").next().unwrap_or(prefix).to_owned(), prefix.to_owned())
                } else {
                    (ident.clone(), join(&ident))
                };
                self.bind(visible, &full);
            }
            syn::UseTree::Rename(rename) => {
                let ident = rename.ident.to_string();
                let full = if ident == "self" { prefix.to_owned() } else { join(&ident) };
                self.bind(rename.rename.to_string(), &full);
            }
            syn::UseTree::Glob(_) => {
                let full = self.resolve(prefix);
                self.named.hidden.push(Hidden::Glob(full));
            }
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.import(tree, prefix)),
        }
    }

    fn bind(&mut self, visible: String, full: &str) {
        let full = self.resolve(full);
        self.named.paths.push(full.clone());
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(visible, full);
        }
    }

    /// Replaces the first segment by what it was imported as.
    fn resolve(&self, path: &str) -> String {
        let path = path.trim_start_matches("::");
        let (first, rest) = path.split_once("::").map_or((path, None), |(first, rest)| (first, Some(rest)));
        let full = self.scopes.iter().rev().find_map(|scope| scope.get(first)).map_or(first, String::as_str);
        let full = match full {
            "core" | "alloc" => "std",
            other => other,
        };
        let full = full.strip_prefix("core::").map_or_else(|| full.to_owned(), |rest| format!("std::{rest}"));
        rest.map_or_else(|| full.clone(), |rest| format!("{full}::{rest}"))
    }

    fn name(&mut self, path: &str) {
        let full = self.resolve(path);
        self.named.paths.push(full);
    }

    /// Joins the idents and `::` of a token stream to paths and names each.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path = String::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons == 2 && !path.is_empty() {
                        path.push_str("::");
                    } else if !path.is_empty() {
                        let done = std::mem::take(&mut path);
                        self.name(&done);
                    }
                    path.push_str(&ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    // `a::{b, c}` in a macro: each member of the group belongs to the path in front of it.
                    if colons == 2 && !path.is_empty() {
                        self.named.hidden.push(Hidden::Glob(self.resolve(&path)));
                    }
                    self.tokens(group.stream());
                    colons = 0;
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {
                    if colons == 2 && !path.is_empty() {
                        self.named.hidden.push(Hidden::Glob(self.resolve(&path)));
                    }
                    colons = 0;
                    if !path.is_empty() {
                        let done = std::mem::take(&mut path);
                        self.name(&done);
                    }
                }
            }
        }
        if !path.is_empty() {
            self.name(&path);
        }
    }
}

impl<'ast> Visit<'ast> for Collector {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !item_attributes(item).is_some_and(is_test) {
            syn::visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast syn::ImplItem) {
        if let syn::ImplItem::Fn(function) = item
            && is_test(&function.attrs)
        {
            return;
        }
        syn::visit::visit_impl_item(self, item);
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if module.attrs.iter().any(|attribute| attribute.path().is_ident("path")) {
            self.named.hidden.push(Hidden::PathAttribute);
        }
        // A module sees its own imports and, through `super`, ours; taking ours in as well only names more.
        self.scopes.push(HashMap::new());
        if let Some((_, items)) = &module.content {
            self.enter(items);
        }
        syn::visit::visit_item_mod(self, module);
        self.scopes.pop();
    }

    fn visit_block(&mut self, block: &'ast syn::Block) {
        self.scopes.push(HashMap::new());
        for statement in &block.stmts {
            if let syn::Stmt::Item(item) = statement {
                self.enter(std::slice::from_ref(item));
            }
        }
        syn::visit::visit_block(self, block);
        self.scopes.pop();
    }

    fn visit_item_extern_crate(&mut self, _: &'ast syn::ItemExternCrate) {
        self.named.hidden.push(Hidden::ExternCrate);
    }

    fn visit_item_foreign_mod(&mut self, _: &'ast syn::ItemForeignMod) {
        self.named.hidden.push(Hidden::ForeignItems);
    }

    fn visit_macro(&mut self, mac: &'ast syn::Macro) {
        let name = mac.path.segments.last().map(|segment| segment.ident.to_string()).unwrap_or_default();
        if name == "include" {
            self.named.hidden.push(Hidden::Include);
        }
        self.tokens(mac.tokens.clone());
        syn::visit::visit_macro(self, mac);
    }

    fn visit_expr_path(&mut self, expression: &'ast syn::ExprPath) {
        // `<std::time::Instant>::now` names the same as `std::time::Instant::now`.
        if let Some(target) = expression.qself.as_ref().and_then(|qself| type_path(&qself.ty)) {
            self.name(&format!("{target}::{}", joined(&expression.path)));
        }
        syn::visit::visit_expr_path(self, expression);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.name(&joined(path));
        syn::visit::visit_path(self, path);
    }
}

fn joined(path: &syn::Path) -> String {
    path.segments.iter().map(|segment| segment.ident.to_string()).collect::<Vec<_>>().join("::")
}

fn type_path(ty: &syn::Type) -> Option<String> {
    match ty {
        syn::Type::Path(path) => Some(joined(&path.path)),
        syn::Type::Paren(paren) => type_path(&paren.elem),
        syn::Type::Group(group) => type_path(&group.elem),
        _ => None,
    }
}

/// Whether an item is compiled for tests only.
pub(crate) fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || (attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test")))
    })
}

fn item_attributes(item: &syn::Item) -> Option<&[syn::Attribute]> {
    Some(match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => return None,
    })
}
