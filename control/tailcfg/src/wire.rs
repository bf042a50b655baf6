//! The one way in which members are read and written, so that all wire types behave alike.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{DeserializeOwned, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Most entries of a list of objects in one message.
///
/// An empty object takes three bytes on the wire and up to a kilobyte in memory, so the size limit on the message does
/// not bound the memory. The largest list by far is that of the peers; this is twice the tailnet size that the
/// benchmarks cover.
pub const MAX_LIST_LEN: usize = 200_000;

/// Declares wire types. In front of each member stands how it is treated:
///
/// - `keep`: always written; `null` is read as absent;
/// - `omit`: left out when it has its zero value; `null` is read as absent;
/// - `list`, `opt_list`: a list of objects, left out when empty (absent); `null` entries are dropped, as many as
///   [`MAX_LIST_LEN`] are read;
/// - `lists`: such lists by name, where `null` in place of a list has a meaning;
/// - `addrs`, `opt_addrs`, `keep_addrs`: a list of addresses or prefixes; entries that do not parse are dropped;
/// - `addr`: one address, where the empty text means none.
macro_rules! wire {
    ($(
        $(#[$meta:meta])*
        struct $name:ident {
            $( $(#[$doc:meta])* $mode:ident $wire:literal $field:ident: $type:ty, )*
        }
    )*) => {$(
        wire! { @build [$(#[$meta])*] $name [] $( $(#[$doc])* $mode $wire $field: $type, )* }
    )*};
    (@build [$($meta:tt)*] $name:ident [$($done:tt)*]) => {
        $($meta)*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        pub struct $name { $($done)* }
    };
    (@build $meta:tt $name:ident [$($done:tt)*] $(#[$doc:meta])* keep $wire:literal $field:ident: $type:ty, $($rest:tt)*) => {
        wire! { @build $meta $name [$($done)*
            $(#[$doc])*
            #[serde(rename = $wire, deserialize_with = "crate::wire::nullable")]
            pub $field: $type,
        ] $($rest)* }
    };
    (@build $meta:tt $name:ident [$($done:tt)*] $(#[$doc:meta])* omit $wire:literal $field:ident: $type:ty, $($rest:tt)*) => {
        wire! { @build $meta $name [$($done)*
            $(#[$doc])*
            #[serde(
                rename = $wire,
                deserialize_with = "crate::wire::nullable",
                skip_serializing_if = "crate::wire::is_zero"
            )]
            pub $field: $type,
        ] $($rest)* }
    };
    (@build $meta:tt $name:ident [$($done:tt)*] $(#[$doc:meta])* list $wire:literal $field:ident: $type:ty, $($rest:tt)*) => {
        wire! { @build $meta $name [$($done)*
            $(#[$doc])*
            #[serde(
                rename = $wire,
                deserialize_with = "crate::wire::list",
                skip_serializing_if = "crate::wire::is_zero"
            )]
            pub $field: $type,
        ] $($rest)* }
    };
    (@build $meta:tt $name:ident [$($done:tt)*] $(#[$doc:meta])* opt_list $wire:literal $field:ident: $type:ty, $($rest:tt)*) => {
        wire! { @build $meta $name [$($done)*
            $(#[$doc])*
            #[serde(
                rename = $wire,
                deserialize_with = "crate::wire::opt_list",
                skip_serializing_if = "crate::wire::is_zero"
            )]
            pub $field: $type,
        ] $($rest)* }
    };
    (@build $meta:tt $name:ident [$($done:tt)*] $(#[$doc:meta])* lists $wire:literal $field:ident: $type:ty, $($rest:tt)*) => {
        wire! { @build $meta $name [$($done)*
            $(#[$doc])*
            #[serde(
                rename = $wire,
                deserialize_with = "crate::wire::lists",
                skip_serializing_if = "crate::wire::is_zero"
            )]
            pub $field: $type,
        ] $($rest)* }
    };
    (@build $meta:tt $name:ident [$($done:tt)*] $(#[$doc:meta])* keep_addrs $wire:literal $field:ident: $type:ty, $($rest:tt)*) => {
        wire! { @build $meta $name [$($done)*
            $(#[$doc])*
            #[serde(rename = $wire, deserialize_with = "crate::wire::addrs")]
            pub $field: $type,
        ] $($rest)* }
    };
    (@build $meta:tt $name:ident [$($done:tt)*] $(#[$doc:meta])* addrs $wire:literal $field:ident: $type:ty, $($rest:tt)*) => {
        wire! { @build $meta $name [$($done)*
            $(#[$doc])*
            #[serde(
                rename = $wire,
                deserialize_with = "crate::wire::addrs",
                skip_serializing_if = "crate::wire::is_zero"
            )]
            pub $field: $type,
        ] $($rest)* }
    };
    (@build $meta:tt $name:ident [$($done:tt)*] $(#[$doc:meta])* opt_addrs $wire:literal $field:ident: $type:ty, $($rest:tt)*) => {
        wire! { @build $meta $name [$($done)*
            $(#[$doc])*
            #[serde(
                rename = $wire,
                deserialize_with = "crate::wire::opt_addrs",
                skip_serializing_if = "crate::wire::is_zero"
            )]
            pub $field: $type,
        ] $($rest)* }
    };
    (@build $meta:tt $name:ident [$($done:tt)*] $(#[$doc:meta])* addr $wire:literal $field:ident: $type:ty, $($rest:tt)*) => {
        wire! { @build $meta $name [$($done)*
            $(#[$doc])*
            #[serde(
                rename = $wire,
                deserialize_with = "crate::wire::addr",
                skip_serializing_if = "crate::wire::is_zero"
            )]
            pub $field: $type,
        ] $($rest)* }
    };
}

pub(crate) fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

pub(crate) fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    d: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

pub(crate) fn list<'de, D: Deserializer<'de>, T: DeserializeOwned>(d: D) -> Result<Vec<T>, D::Error> {
    Ok(opt_list(d)?.unwrap_or_default())
}

pub(crate) fn opt_list<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    d: D,
) -> Result<Option<Vec<T>>, D::Error> {
    Ok(Option::<BoundedList<T>>::deserialize(d)?.map(|list| list.0))
}

pub(crate) fn lists<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    d: D,
) -> Result<BTreeMap<String, Option<Vec<T>>>, D::Error> {
    let lists = Option::<BTreeMap<String, Option<BoundedList<T>>>>::deserialize(d)?.unwrap_or_default();
    Ok(lists.into_iter().map(|(name, list)| (name, list.map(|list| list.0))).collect())
}

pub(crate) fn addrs<'de, D: Deserializer<'de>, T: FromStr>(d: D) -> Result<Vec<T>, D::Error> {
    Ok(opt_addrs(d)?.unwrap_or_default())
}

pub(crate) fn opt_addrs<'de, D: Deserializer<'de>, T: FromStr>(d: D) -> Result<Option<Vec<T>>, D::Error> {
    Ok(Option::<AddrList<T>>::deserialize(d)?.map(|list| list.0))
}

pub(crate) fn addr<'de, D: Deserializer<'de>, T: FromStr>(d: D) -> Result<Option<T>, D::Error> {
    let text = Option::<String>::deserialize(d)?.unwrap_or_default();
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| D::Error::custom("not an IP address"))
}

/// A list of objects without its `null` entries, of bounded length.
pub(crate) struct BoundedList<T>(pub(crate) Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for BoundedList<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_seq(BoundedListVisitor(PhantomData))
    }
}

struct BoundedListVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for BoundedListVisitor<T> {
    type Value = BoundedList<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(entry) = seq.next_element::<Option<T>>()? {
            let Some(entry) = entry else { continue };
            if list.len() == MAX_LIST_LEN {
                return Err(A::Error::custom(format_args!("a list has more than {MAX_LIST_LEN} entries")));
            }
            list.push(entry);
        }
        list.shrink_to_fit();
        Ok(BoundedList(list))
    }
}

/// A list of addresses without the entries that do not parse.
struct AddrList<T>(Vec<T>);

impl<'de, T: FromStr> Deserialize<'de> for AddrList<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_seq(AddrListVisitor(PhantomData))
    }
}

struct AddrListVisitor<T>(PhantomData<T>);

impl<'de, T: FromStr> Visitor<'de> for AddrListVisitor<T> {
    type Value = AddrList<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of addresses")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(entry) = seq.next_element::<Option<Parsed<T>>>()? {
            list.extend(entry.and_then(|parsed| parsed.0));
        }
        list.shrink_to_fit();
        Ok(AddrList(list))
    }
}

/// What a text parses to, read without keeping the text.
struct Parsed<T>(Option<T>);

impl<'de, T: FromStr> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct ParsedVisitor<T>(PhantomData<T>);
        impl<T: FromStr> Visitor<'_> for ParsedVisitor<T> {
            type Value = Parsed<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Parsed(text.parse().ok()))
            }
        }
        d.deserialize_str(ParsedVisitor(PhantomData))
    }
}
