//! Reading, as lenient as the reference.

use std::collections::BTreeSet;

use super::{DecodeError, major};
use crate::limits::{MAX_ARRAY_ELEMENTS, MAX_MAP_PAIRS, MAX_NESTING};

/// The head of an item. A byte or text string has its content; array and map items follow.
#[derive(Clone, Copy)]
pub(crate) enum Item<'a> {
    Unsigned(u64),
    /// -1 - n.
    Negative(u64),
    Bytes(&'a [u8]),
    Text(&'a [u8]),
    Array(usize),
    Map(usize),
    Bool,
    /// Null or undefined: the reference takes either for "absent".
    Null,
    /// A simple value without a meaning of its own.
    Simple(u8),
    Float,
}

impl Item<'_> {
    const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// How many items follow inside, for an array or a map.
    const fn items_inside(&self) -> Option<usize> {
        match self {
            Self::Array(elements) => Some(*elements),
            Self::Map(pairs) => Some(2 * *pairs),
            Self::Unsigned(_)
            | Self::Negative(_)
            | Self::Bytes(_)
            | Self::Text(_)
            | Self::Bool
            | Self::Null
            | Self::Simple(_)
            | Self::Float => None,
        }
    }
}

/// Checks that the bytes are one item and nothing else, within the limits, without looking at what it means.
pub(crate) fn check_well_formed(bytes: &[u8]) -> Result<(), DecodeError> {
    let mut reader = Reader::new(bytes);
    reader.skip()?;
    if reader.rest.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) }
}

/// Reads item after item.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn item(&mut self) -> Result<Item<'a>, DecodeError> {
        let [first] = self.array()?;
        let (kind, info) = (first >> 5, first & 0x1f);
        let value = match info {
            0..=23 => u64::from(info),
            24 => u64::from(u8::from_be_bytes(self.array()?)),
            25 => u64::from(u16::from_be_bytes(self.array()?)),
            26 => u64::from(u32::from_be_bytes(self.array()?)),
            27 => u64::from_be_bytes(self.array()?),
            31 => return Err(DecodeError::Indefinite),
            _ => return Err(DecodeError::Malformed),
        };
        Ok(match kind {
            major::UNSIGNED => Item::Unsigned(value),
            major::NEGATIVE => Item::Negative(value),
            major::BYTES => Item::Bytes(self.take(value)?),
            major::TEXT => Item::Text(self.take(value)?),
            major::ARRAY => Item::Array(self.count(value, MAX_ARRAY_ELEMENTS)?),
            major::MAP => Item::Map(self.count(value, MAX_MAP_PAIRS)?),
            major::TAG => return Err(DecodeError::Tag),
            _ => simple(info, value)?,
        })
    }

    /// Passes over one item with all that is in it. The stack is a list of counts, at most [`MAX_NESTING`] long.
    pub(crate) fn skip(&mut self) -> Result<(), DecodeError> {
        let mut open: Vec<usize> = Vec::new();
        loop {
            match self.item()?.items_inside() {
                Some(_) if open.len() == MAX_NESTING => return Err(DecodeError::TooDeep),
                Some(items) => open.push(items),
                None => {}
            }
            loop {
                match open.last_mut() {
                    None => return Ok(()),
                    Some(0) => {
                        open.pop();
                    }
                    Some(left) => {
                        *left -= 1;
                        break;
                    }
                }
            }
        }
    }

    /// An unsigned number; absent is 0. The reference takes simple values for numbers.
    pub(crate) fn unsigned(&mut self) -> Result<u64, DecodeError> {
        self.optional_unsigned().map(Option::unwrap_or_default)
    }

    pub(crate) fn optional_unsigned(&mut self) -> Result<Option<u64>, DecodeError> {
        match self.item()? {
            Item::Unsigned(value) => Ok(Some(value)),
            Item::Simple(value) => Ok(Some(u64::from(value))),
            Item::Null => Ok(None),
            Item::Negative(_)
            | Item::Bytes(_)
            | Item::Text(_)
            | Item::Array(_)
            | Item::Map(_)
            | Item::Bool
            | Item::Float => Err(DecodeError::Type),
        }
    }

    pub(crate) fn octet(&mut self) -> Result<u8, DecodeError> {
        u8::try_from(self.unsigned()?).map_err(|_| DecodeError::Range)
    }

    /// Bytes, also written as an array of small numbers.
    pub(crate) fn bytes(&mut self) -> Result<Option<Vec<u8>>, DecodeError> {
        let item = self.item()?;
        if let Item::Bytes(bytes) = item {
            return Ok(Some(bytes.to_vec()));
        }
        if let Item::Array(elements) = item {
            return (0..elements).map(|_| self.octet()).collect::<Result<_, _>>().map(Some);
        }
        if item.is_null() { Ok(None) } else { Err(DecodeError::Type) }
    }

    /// Exactly `N` bytes: longer ones are cut, shorter ones filled with zeros.
    pub(crate) fn fixed<const N: usize>(&mut self) -> Result<Option<[u8; N]>, DecodeError> {
        let item = self.item()?;
        if item.is_null() {
            return Ok(None);
        }
        let mut out = [0; N];
        if let Item::Bytes(bytes) = item {
            out.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        } else if let Item::Array(elements) = item {
            for index in 0..elements {
                match out.get_mut(index) {
                    Some(to) => *to = self.octet()?,
                    None => self.skip()?,
                }
            }
        } else {
            return Err(DecodeError::Type);
        }
        Ok(Some(out))
    }

    /// Text; absent is empty.
    pub(crate) fn text(&mut self) -> Result<String, DecodeError> {
        let item = self.item()?;
        if let Item::Text(text) = item {
            return utf8(text).map(str::to_owned);
        }
        if item.is_null() { Ok(String::new()) } else { Err(DecodeError::Type) }
    }

    /// The number of elements of a list that follow; absent is `None`.
    pub(crate) fn list(&mut self) -> Result<Option<usize>, DecodeError> {
        let item = self.item()?;
        if let Item::Array(elements) = item {
            return Ok(Some(elements));
        }
        if item.is_null() { Ok(None) } else { Err(DecodeError::Type) }
    }

    /// The number of pairs of a map that follow; absent is `None`.
    pub(crate) fn map(&mut self) -> Result<Option<usize>, DecodeError> {
        let item = self.item()?;
        if let Item::Map(pairs) = item {
            return Ok(Some(pairs));
        }
        if item.is_null() { Ok(None) } else { Err(DecodeError::Type) }
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], DecodeError> {
        let len = usize::try_from(len).map_err(|_| DecodeError::Truncated)?;
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// A count that the bytes at hand can hold, so that no head makes us reserve memory.
    fn count(&self, value: u64, limit: u64) -> Result<usize, DecodeError> {
        if value > limit {
            return Err(DecodeError::TooLarge);
        }
        let count = usize::try_from(value).map_err(|_| DecodeError::TooLarge)?;
        if count > self.rest.len() { Err(DecodeError::Truncated) } else { Ok(count) }
    }
}

/// Major type 7 (RFC 8949 §3.3).
fn simple<'a>(info: u8, value: u64) -> Result<Item<'a>, DecodeError> {
    let value = u8::try_from(value).unwrap_or(u8::MAX);
    match info {
        20 | 21 => Ok(Item::Bool),
        22 | 23 => Ok(Item::Null),
        25..=27 => Ok(Item::Float),
        24 if value < 32 => Err(DecodeError::Malformed),
        _ => Ok(Item::Simple(value)),
    }
}

fn utf8(text: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(text).map_err(|_| DecodeError::Utf8)
}

/// The key of a member of a struct.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Field<'a> {
    Number(u64),
    Negative(u64),
    Text(&'a str),
}

/// The pairs of a map that stands for a struct: refuses duplicates and wrong key types, and passes over unknown keys.
pub(crate) struct Entries<'a> {
    left: usize,
    known: &'static [u64],
    seen: BTreeSet<Field<'a>>,
}

impl<'a> Entries<'a> {
    /// For a map head of `pairs`, with the numbers of the members.
    pub(crate) const fn new(pairs: usize, known: &'static [u64]) -> Self {
        Self { left: pairs, known, seen: BTreeSet::new() }
    }

    /// The number of the next known member, whose value follows.
    pub(crate) fn next(&mut self, reader: &mut Reader<'a>) -> Result<Option<u64>, DecodeError> {
        while let Some(left) = self.left.checked_sub(1) {
            self.left = left;
            let field = self.field(reader.item()?)?;
            if !self.seen.insert(field) {
                return Err(DecodeError::Duplicate);
            }
            match field {
                Field::Number(number) if self.known.contains(&number) => return Ok(Some(number)),
                Field::Number(_) | Field::Negative(_) | Field::Text(_) => reader.skip()?,
            }
        }
        Ok(None)
    }

    /// Text that is a member's number in decimal names that member, as the reference has it.
    fn field(&self, key: Item<'a>) -> Result<Field<'a>, DecodeError> {
        match key {
            Item::Unsigned(number) => Ok(Field::Number(number)),
            Item::Negative(number) if i64::try_from(number).is_ok() => Ok(Field::Negative(number)),
            Item::Negative(_) => Err(DecodeError::Range),
            Item::Text(text) => {
                let text = utf8(text)?;
                let named = self.known.iter().find(|number| number.to_string() == text);
                Ok(named.map_or(Field::Text(text), |number| Field::Number(*number)))
            }
            Item::Bytes(_)
            | Item::Array(_)
            | Item::Map(_)
            | Item::Bool
            | Item::Null
            | Item::Simple(_)
            | Item::Float => Err(DecodeError::KeyType),
        }
    }
}
