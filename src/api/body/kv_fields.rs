//! The fields of a body, from JSON or a form: key, value and others, each at most once and within
//! its limit.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

use crate::config::show_bytes;
use crate::http::Refusal;
use crate::partition::Conditions;

use crate::api::request::conditions::token_set;
use crate::api::request::query::{check_key, key_too_long};
use crate::api::request::ttl::parse_ttl;

/// Base64 text decoded in one step; a multiple of four.
const DECODE_STEP_BYTES: usize = 64 * 1024;

/// The decoder for all of a base64 text but its end.
const INNER: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::RequireNone),
);
/// The decoder for the end, where padding is optional.
const LAST: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Longest field name; the known ones are shorter.
const NAME_MAX_BYTES: usize = 32;
/// Longest value of a field that is a word or a number.
const WORD_MAX_BYTES: usize = 32;

/// Limits of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KvLimits {
    pub(crate) key_bytes: usize,
    pub(crate) value_bytes: usize,
}

impl KvLimits {
    /// The most text that is kept of a body: a key, and a value in base64.
    pub(crate) fn body_max_bytes(self) -> usize {
        let text_bytes = self.value_bytes.saturating_add(self.value_bytes / 3);
        text_bytes.saturating_add(self.key_bytes)
    }
}

/// Which fields a body may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AllowedFields {
    /// The key. A value is skipped, since some clients send the same message to all paths.
    Key,
    KeyAndValue,
    /// The fields of an operation of a batch.
    Operation,
}

/// A field that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyField {
    Key,
    Value,
    Encoding,
    Ttl,
    Op,
    IfMatch,
    IfNoneMatch,
}

const FIELD_COUNT: usize = 7;

impl BodyField {
    /// Its name, if it is allowed.
    fn of(name: &[u8], allowed: AllowedFields) -> Option<Self> {
        Some(match (name, allowed) {
            (b"key", _) => Self::Key,
            (b"value", _) => Self::Value,
            (_, AllowedFields::Key) => return None,
            (b"encoding", _) => Self::Encoding,
            (b"ttl", _) => Self::Ttl,
            (b"op", AllowedFields::Operation) => Self::Op,
            (b"ifMatch", AllowedFields::Operation) => Self::IfMatch,
            (b"ifNoneMatch", AllowedFields::Operation) => Self::IfNoneMatch,
            _ => return None,
        })
    }

    /// Whether it may be a JSON number.
    pub(crate) fn is_number(self) -> bool {
        matches!(self, Self::Ttl | Self::IfMatch | Self::IfNoneMatch)
    }
}

/// The fields of a body, each none if it is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KvParts {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) ttl_ms: Option<u64>,
    /// `op`, in a batch.
    pub(crate) op: Option<Vec<u8>>,
    pub(crate) conditions: Conditions,
}

/// Collects fields as their text arrives.
#[derive(Debug)]
pub(crate) struct KvFields {
    limits: KvLimits,
    allowed: AllowedFields,
    pub(crate) name: Vec<u8>,
    /// The text of each field so far.
    texts: [Option<Vec<u8>>; FIELD_COUNT],
    /// Of a value in base64, which is decoded in place: the text decoded, and the bytes it made.
    decoded_text_bytes: usize,
    decoded_bytes: usize,
}

impl KvFields {
    pub(crate) fn new(limits: KvLimits, allowed: AllowedFields) -> Self {
        Self {
            limits,
            allowed,
            name: Vec::new(),
            texts: [const { None }; FIELD_COUNT],
            decoded_text_bytes: 0,
            decoded_bytes: 0,
        }
    }

    /// Heap in use.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.name.capacity()
            + self
                .texts
                .iter()
                .flatten()
                .map(Vec::capacity)
                .sum::<usize>()
    }

    /// Refuses a name that is longer than all known ones while it is being read.
    pub(crate) fn check_name_len(&self) -> Result<(), Refusal> {
        if self.name.len() > NAME_MAX_BYTES {
            Err(self.unknown_field())
        } else {
            Ok(())
        }
    }

    /// Opens the field with the name that was read.
    pub(crate) fn open(&mut self) -> Result<BodyField, Refusal> {
        let field = BodyField::of(&self.name, self.allowed).ok_or_else(|| self.unknown_field())?;
        let slot = &mut self.texts[field as usize];
        if slot.is_some() {
            let name = String::from_utf8_lossy(&self.name);
            return Err(Refusal::bad_request(format!(
                "the field \"{name}\" is there twice: send it once"
            )));
        }
        *slot = Some(Vec::new());
        self.name.clear();
        Ok(field)
    }

    /// The text of the open field.
    pub(crate) fn text_of(&mut self, field: BodyField) -> &mut Vec<u8> {
        self.texts[field as usize].get_or_insert_default()
    }

    /// Checks the open field against its limit, and drops text that nothing will read.
    pub(crate) fn check_len(&mut self, field: BodyField) -> Result<(), Refusal> {
        let len = self.text_of(field).len();
        match field {
            BodyField::Value if self.allowed == AllowedFields::Key => {
                *self.text_of(field) = Vec::new();
                Ok(())
            }
            BodyField::Key if len > self.limits.key_bytes => Err(key_too_long()),
            // `encoding` may still say base64, and then the text is a third longer.
            BodyField::Value if len > self.text_max_bytes() => {
                Err(value_too_large(self.limits.value_bytes))
            }
            BodyField::Encoding if len > WORD_MAX_BYTES => Err(unknown_encoding()),
            BodyField::Ttl if len > WORD_MAX_BYTES => parse_ttl(b"").map(drop),
            BodyField::Op | BodyField::IfMatch | BodyField::IfNoneMatch if len > WORD_MAX_BYTES => {
                Err(word_too_long())
            }
            _ => Ok(()),
        }
    }

    fn text_max_bytes(&self) -> usize {
        self.limits
            .value_bytes
            .saturating_add(self.limits.value_bytes / 3 + 4)
    }

    /// Decodes the next piece of a base64 value; true when all is decoded.
    pub(crate) fn step(&mut self) -> Result<bool, Refusal> {
        let [_, value, encoding, ..] = &mut self.texts;
        match encoding.as_deref() {
            None | Some(b"utf-8") => return Ok(true),
            Some(b"base64") => {}
            Some(_) => return Err(unknown_encoding()),
        }
        let Some(value) = value else { return Ok(true) };
        let rest = &value[self.decoded_text_bytes..];
        let (piece, engine, is_last) = match rest.split_at_checked(DECODE_STEP_BYTES) {
            Some((piece, behind)) if !behind.is_empty() => (piece, INNER, false),
            _ => (rest, LAST, true),
        };
        let decoded = engine.decode(piece).map_err(|_| {
            let message = "the value is not base64: use the standard alphabet, or leave \
                           \"encoding\" out for text";
            Refusal::new(400, "bad_base64", message)
        })?;
        self.decoded_text_bytes += piece.len();
        // Decoded bytes are fewer than their text, so they overwrite text already decoded.
        value[self.decoded_bytes..][..decoded.len()].copy_from_slice(&decoded);
        self.decoded_bytes += decoded.len();
        if is_last {
            value.truncate(self.decoded_bytes);
            *encoding = None;
        }
        Ok(is_last)
    }

    /// The fields, once `step` has returned true.
    pub(crate) fn into_parts(self) -> Result<KvParts, Refusal> {
        let [key, value, _, ttl, op, if_match, if_none_match] = self.texts;
        if let Some(key) = &key {
            check_key(key)?;
        }
        if value
            .as_ref()
            .is_some_and(|value| value.len() > self.limits.value_bytes)
        {
            return Err(value_too_large(self.limits.value_bytes));
        }
        let tokens = |text: Option<Vec<u8>>| text.map(|text| token_set(&text)).transpose();
        let conditions = Conditions {
            if_match: tokens(if_match)?,
            if_none_match: tokens(if_none_match)?,
        };
        let ttl_ms = ttl.map(|text| parse_ttl(&text)).transpose()?;
        Ok(KvParts {
            key,
            value: value.filter(|_| self.allowed != AllowedFields::Key),
            ttl_ms,
            op,
            conditions,
        })
    }

    /// Whether no field has been opened.
    pub(crate) fn is_empty(&self) -> bool {
        self.texts.iter().all(Option::is_none)
    }

    /// The refusal of a body without any names.
    #[cold]
    pub(crate) fn neither_json_nor_form(&self) -> Refusal {
        let message = match self.allowed {
            AllowedFields::Key => {
                "the body is neither JSON nor key=…: send key=k, or {\"key\":\"k\"}"
            }
            AllowedFields::KeyAndValue | AllowedFields::Operation => {
                "the body is neither JSON nor key=…&value=…: send key=k&value=v, or \
                 {\"key\":\"k\",\"value\":\"v\"}, or the value alone with ?key=k in the address"
            }
        };
        Refusal::new(400, "bad_form", message)
    }

    #[cold]
    fn unknown_field(&self) -> Refusal {
        let shown = String::from_utf8_lossy(&self.name[..self.name.len().min(NAME_MAX_BYTES)]);
        let known = match self.allowed {
            AllowedFields::Key => "known are \"key\", and \"value\", which says nothing here",
            AllowedFields::KeyAndValue => "known are \"key\", \"value\", \"encoding\" and \"ttl\"",
            AllowedFields::Operation => {
                "known are \"op\", \"key\", \"value\", \"encoding\", \"ttl\", \"ifMatch\" and \
                 \"ifNoneMatch\""
            }
        };
        Refusal::bad_request(format!("unknown field \"{shown}\": {known}"))
    }
}

/// The refusal of a value above the limit.
#[cold]
pub(crate) fn value_too_large(limit_bytes: usize) -> Refusal {
    let limit = show_bytes(limit_bytes as u64);
    let message = format!(
        "the value is longer than {limit}: store less, or start the node with a higher \
         --max-value-bytes"
    );
    Refusal::new(413, "value_too_large", message)
}

#[cold]
fn word_too_long() -> Refusal {
    Refusal::bad_request(format!(
        "the value of a field is longer than {WORD_MAX_BYTES} bytes: it is no word or number"
    ))
}

#[cold]
fn unknown_encoding() -> Refusal {
    Refusal::bad_request("unknown encoding: send \"base64\", or leave it out for text")
}
