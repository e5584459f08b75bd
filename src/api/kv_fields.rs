//! What a body of fields says, whatever it is written in: key, value and encoding, each at most once and within its limit.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

use crate::http::Refusal;

use super::query::{check_key, key_too_long};

/// Base64 text decoded in one step; a multiple of four.
const DECODE_STEP_BYTES: usize = 64 * 1024;

/// For all of a base64 text but its end …
const INNER: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::RequireNone),
);
/// … and for its end, where padding may be or be left out.
const LAST: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Longest field name read; those we know are shorter.
const NAME_MAX_BYTES: usize = 32;
/// Longest value of `encoding` read.
const ENCODING_MAX_BYTES: usize = 16;

/// What a request for an expiry is told.
pub(super) const NO_EXPIRY: &str = "this version has no expiry: send the value without a TTL";

/// How much a body may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KvLimits {
    pub(super) key_bytes: usize,
    pub(super) value_bytes: usize,
}

/// Which fields a body may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allowed {
    KeyOnly,
    KeyAndValue,
}

/// A field that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Key,
    Value,
    Encoding,
}

/// Key and value, each if the body had it.
pub(super) type KvParts = (Option<Vec<u8>>, Option<Vec<u8>>);

/// Collects fields as their text arrives.
#[derive(Debug)]
pub(super) struct KvFields {
    limits: KvLimits,
    allowed: Allowed,
    pub(super) name: Vec<u8>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    encoding: Option<Vec<u8>>,
    /// Of a base64 value: how much of its text is decoded, in place, and into how many bytes.
    decoded_text_bytes: usize,
    decoded_bytes: usize,
}

impl KvFields {
    pub(super) fn new(limits: KvLimits, allowed: Allowed) -> Self {
        Self {
            limits,
            allowed,
            name: Vec::new(),
            key: None,
            value: None,
            encoding: None,
            decoded_text_bytes: 0,
            decoded_bytes: 0,
        }
    }

    /// Checks that a name that is still being read can be one of ours.
    pub(super) fn check_name_len(&self) -> Result<(), Refusal> {
        if self.name.len() > NAME_MAX_BYTES { Err(self.unknown_field()) } else { Ok(()) }
    }

    /// Opens the field whose name was read.
    pub(super) fn open(&mut self) -> Result<Field, Refusal> {
        let (field, slot) = match (&self.name[..], self.allowed) {
            (b"key", _) => (Field::Key, &mut self.key),
            (b"value", Allowed::KeyAndValue) => (Field::Value, &mut self.value),
            (b"encoding", Allowed::KeyAndValue) => (Field::Encoding, &mut self.encoding),
            (b"ttl", Allowed::KeyAndValue) => return Err(Refusal::new(501, "not_implemented", NO_EXPIRY)),
            _ => return Err(self.unknown_field()),
        };
        if slot.is_some() {
            let name = String::from_utf8_lossy(&self.name);
            return Err(Refusal::bad_request(format!("the field \"{name}\" is there twice: send it once")));
        }
        *slot = Some(Vec::new());
        self.name.clear();
        Ok(field)
    }

    /// Where the text of an open field goes.
    pub(super) fn text_of(&mut self, field: Field) -> &mut Vec<u8> {
        match field {
            Field::Key => self.key.get_or_insert_default(),
            Field::Value => self.value.get_or_insert_default(),
            Field::Encoding => self.encoding.get_or_insert_default(),
        }
    }

    /// Checks an open field against its limit.
    pub(super) fn check_len(&self, field: Field) -> Result<(), Refusal> {
        let len = |slot: &Option<Vec<u8>>| slot.as_ref().map_or(0, Vec::len);
        match field {
            Field::Key if len(&self.key) > self.limits.key_bytes => Err(key_too_long()),
            // It may turn out to be base64, whose text is a third longer.
            Field::Value if len(&self.value) > self.text_max_bytes() => Err(value_too_large(self.limits.value_bytes)),
            Field::Encoding if len(&self.encoding) > ENCODING_MAX_BYTES => Err(unknown_encoding()),
            _ => Ok(()),
        }
    }

    fn text_max_bytes(&self) -> usize {
        self.limits.value_bytes.saturating_add(self.limits.value_bytes / 3 + 4)
    }

    /// Decodes a piece of a base64 value; true when nothing is left to do.
    pub(super) fn step(&mut self) -> Result<bool, Refusal> {
        match self.encoding.as_deref() {
            None | Some(b"utf-8") => return Ok(true),
            Some(b"base64") => {}
            Some(_) => return Err(unknown_encoding()),
        }
        let Some(value) = &mut self.value else { return Ok(true) };
        let rest = &value[self.decoded_text_bytes..];
        let (piece, engine, is_last) = match rest.split_at_checked(DECODE_STEP_BYTES) {
            Some((piece, behind)) if !behind.is_empty() => (piece, INNER, false),
            _ => (rest, LAST, true),
        };
        let decoded = engine.decode(piece).map_err(|_| {
            let message = "the value is not base64: use the standard alphabet, or leave \"encoding\" out for text";
            Refusal::new(400, "bad_base64", message)
        })?;
        self.decoded_text_bytes += piece.len();
        // Bytes are fewer than their text: they go where text was that has been decoded.
        value[self.decoded_bytes..][..decoded.len()].copy_from_slice(&decoded);
        self.decoded_bytes += decoded.len();
        if is_last {
            value.truncate(self.decoded_bytes);
            self.encoding = None;
        }
        Ok(is_last)
    }

    /// Key and value, each if it was there. To be stepped to the end before.
    pub(super) fn into_parts(self) -> Result<KvParts, Refusal> {
        if let Some(key) = &self.key {
            check_key(key)?;
        }
        if self.value.as_ref().is_some_and(|value| value.len() > self.limits.value_bytes) {
            return Err(value_too_large(self.limits.value_bytes));
        }
        Ok((self.key, self.value))
    }

    #[cold]
    fn unknown_field(&self) -> Refusal {
        let shown = String::from_utf8_lossy(&self.name[..self.name.len().min(NAME_MAX_BYTES)]);
        let known = match self.allowed {
            Allowed::KeyOnly => "only \"key\" is known here",
            Allowed::KeyAndValue => "known are \"key\", \"value\" and \"encoding\"",
        };
        Refusal::bad_request(format!("unknown field \"{shown}\": {known}"))
    }
}

/// The refusal of a value over the limit.
#[cold]
pub(super) fn value_too_large(limit_bytes: usize) -> Refusal {
    let message = format!(
        "the value is longer than {limit_bytes} bytes: store less, or start the node with a higher --max-value-bytes"
    );
    Refusal::new(413, "value_too_large", message)
}

#[cold]
fn unknown_encoding() -> Refusal {
    Refusal::bad_request("unknown encoding: send \"base64\", or leave it out for text")
}
