//! Encoding of node-key signatures.
//!
//! Members: 1 kind, 2 pubkey, 3 key id, 4 signature, 5 nested, 6 wrapping pubkey. All but the kind are left out when empty.

use super::{NodeKeySignature, SigKind};
use crate::cbor::{DecodeError, Entries, Reader, Writer, check_well_formed};
use crate::limits::MAX_SIGNATURE_BYTES;

impl NodeKeySignature {
    /// Reads a signature as leniently as the reference does; no deeper than [`crate::limits::MAX_NESTING`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_SIGNATURE_BYTES {
            return Err(DecodeError::TooLarge);
        }
        check_well_formed(bytes)?;
        let mut reader = Reader::new(bytes);
        let Some(pairs) = reader.map()? else { return Ok(Self::default()) };
        // The layers whose maps are open, outermost first.
        let mut outer: Vec<(Self, Entries<'_>)> = Vec::new();
        let mut layer = Self::default();
        let mut entries = Entries::new(pairs, FIELDS);
        loop {
            match entries.next(&mut reader)? {
                Some(1) => layer.kind = SigKind(reader.octet()?),
                Some(2) => layer.pubkey = reader.bytes()?.unwrap_or_default(),
                Some(3) => layer.key_id = reader.bytes()?.unwrap_or_default(),
                Some(4) => layer.signature = reader.bytes()?.unwrap_or_default(),
                Some(5) => {
                    if let Some(pairs) = reader.map()? {
                        let inner = Entries::new(pairs, FIELDS);
                        outer.push((std::mem::take(&mut layer), std::mem::replace(&mut entries, inner)));
                    }
                }
                Some(_) => layer.wrapping_pubkey = reader.bytes()?.unwrap_or_default(),
                None => {
                    let Some((around, its_entries)) = outer.pop() else { return Ok(layer) };
                    let inside = std::mem::replace(&mut layer, around);
                    layer.nested = Some(Box::new(inside));
                    entries = its_entries;
                }
            }
        }
    }

    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoded = None;
        for layer in self.layers_inside_out() {
            encoded = Some(layer.encode_layer(encoded.as_deref(), true));
        }
        encoded.unwrap_or_default()
    }

    pub(super) fn encode_without_signature(&self) -> Vec<u8> {
        self.encode_layer(self.nested.as_deref().map(Self::encode).as_deref(), false)
    }

    pub(super) fn layers_inside_out(&self) -> impl Iterator<Item = &Self> {
        let layers: Vec<&Self> = self.layers().collect();
        layers.into_iter().rev()
    }

    /// One layer around the encoding of what is inside.
    pub(super) fn encode_layer(&self, nested: Option<&[u8]>, with_signature: bool) -> Vec<u8> {
        let strings = [
            (2, Some(&self.pubkey)),
            (3, Some(&self.key_id)),
            (4, with_signature.then_some(&self.signature)),
            (6, Some(&self.wrapping_pubkey)),
        ]
        .map(|(field, bytes)| (field, bytes.filter(|bytes| !bytes.is_empty())));
        let present = strings.iter().filter(|(_, bytes)| bytes.is_some()).count();
        let mut out = Writer::new();
        out.map(1 + present + usize::from(nested.is_some()));
        out.unsigned(1);
        out.unsigned(u64::from(self.kind.0));
        for (field, bytes) in strings {
            if field == 6
                && let Some(nested) = nested
            {
                out.unsigned(5);
                out.raw(nested);
            }
            if let Some(bytes) = bytes {
                out.unsigned(field);
                out.bytes(bytes);
            }
        }
        out.into_bytes()
    }
}

const FIELDS: &[u64] = &[1, 2, 3, 4, 5, 6];
