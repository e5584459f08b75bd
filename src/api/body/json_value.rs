//! Values as JSON objects, rendered at once, or in slices if the value is large: answers, and parts
//! of answers.
//!
//! `{"success":true,"value":"…","version":N,"etag":"N-hhhhhhhh"}`, and for a value that is not
//! UTF-8 `{"success":true,"value":"…","encoding":"base64","version":N,"etag":"N-hhhhhhhh"}`.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::http::{BodySource, Fill};
use crate::lsm::Blob;
use crate::storage::{TokenText, VersionToken};

use crate::api::body::json_text::{Utf8Validator, escape_into};
use crate::api::request::positions::add_version;

const BEGIN: &[u8] = b"{\"success\":true,\"value\":\"";

/// Bytes validated for each byte of budget: validating is faster than rendering.
const VALIDATED_PER_BUDGET_BYTE: usize = 4;

/// Whether a value is UTF-8, and so can be a JSON string.
#[inline]
pub(crate) fn is_text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok()
}

/// Appends the object with a value; for small values.
#[inline]
pub(crate) fn render_value(out: &mut Vec<u8>, value: &[u8], token: &TokenText) {
    out.extend_from_slice(BEGIN);
    render_rest(out, value, token);
}

/// Appends the object from behind the opening quote of the value.
#[inline]
pub(crate) fn render_rest(out: &mut Vec<u8>, value: &[u8], token: &TokenText) {
    if is_text(value) {
        escape_into(out, value);
        render_end(out, Encoding::Text, token);
    } else {
        encode_base64(out, value);
        render_end(out, Encoding::Base64, token);
    }
}

/// Appends a field as text; or as base64, and the field `encoding_name` that says so.
pub(crate) fn add_bytes(out: &mut Vec<u8>, name: &str, bytes: &[u8], encoding_name: &str) {
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":\"");
    if is_text(bytes) {
        escape_into(out, bytes);
        out.push(b'"');
    } else {
        encode_base64(out, bytes);
        out.extend_from_slice(b"\",\"");
        out.extend_from_slice(encoding_name.as_bytes());
        out.extend_from_slice(b"\":\"base64\"");
    }
}

fn render_end(out: &mut Vec<u8>, encoding: Encoding, token: &TokenText) {
    out.extend_from_slice(match encoding {
        Encoding::Text => b"\",",
        Encoding::Base64 => b"\",\"encoding\":\"base64\",",
    });
    add_version(out, token);
    out.push(b'}');
}

pub(crate) fn encode_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    STANDARD
        .encode_slice(bytes, &mut out[start..])
        .expect("room for four characters for each three bytes");
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Text,
    Base64,
}

#[derive(Debug)]
enum Phase {
    /// Validates the whole value: whether it is UTF-8 decides how it is rendered.
    Validate(Utf8Validator),
    Render(Encoding),
}

/// The object with a large value, rendered in slices.
#[derive(Debug)]
pub(crate) struct JsonValueSource {
    /// The text before the value, up to its opening quote.
    begin: Vec<u8>,
    value: Blob,
    token: VersionToken,
    /// The text behind the object.
    end: &'static [u8],
    phase: Phase,
    /// How far the phase has come.
    done_bytes: usize,
}

impl JsonValueSource {
    /// A whole answer.
    pub(crate) fn answer(value: Blob, token: VersionToken) -> Self {
        let end = b"\n";
        Self {
            end,
            ..Self::part(value, token)
        }
    }

    /// A part of an answer.
    pub(crate) fn part(value: Blob, token: VersionToken) -> Self {
        Self::beginning(BEGIN.to_vec(), value, token)
    }

    /// The same with another text before the value.
    pub(crate) fn beginning(begin: Vec<u8>, value: Blob, token: VersionToken) -> Self {
        Self {
            begin,
            value,
            token,
            end: b"",
            phase: Phase::Validate(Utf8Validator::default()),
            done_bytes: 0,
        }
    }

    fn take(&mut self, max_bytes: usize) -> std::ops::Range<usize> {
        let start = self.done_bytes;
        self.done_bytes = self.value.len().min(start.saturating_add(max_bytes));
        start..self.done_bytes
    }
}

impl BodySource for JsonValueSource {
    fn fill(&mut self, out: &mut Vec<u8>, budget_bytes: usize) -> Fill {
        // Three bytes make four characters: each slice but the last is a multiple of three.
        let slice_bytes = budget_bytes.max(3) / 3 * 3;
        let value = Arc::clone(&self.value);
        let encoding = match &self.phase {
            Phase::Render(encoding) => *encoding,
            Phase::Validate(_) => {
                let range = self.take(slice_bytes * VALIDATED_PER_BUDGET_BYTE);
                let is_last = range.end == value.len();
                let Phase::Validate(validator) = &mut self.phase else {
                    return Fill::More;
                };
                let is_text =
                    validator.push(&value[range]) && (!is_last || validator.is_complete());
                if is_last || !is_text {
                    self.phase = Phase::Render(if is_text {
                        Encoding::Text
                    } else {
                        Encoding::Base64
                    });
                    self.done_bytes = 0;
                    out.append(&mut self.begin);
                }
                return Fill::More;
            }
        };
        let range = self.take(slice_bytes);
        match encoding {
            Encoding::Text => escape_into(out, &value[range]),
            Encoding::Base64 => encode_base64(out, &value[range]),
        }
        if self.done_bytes < value.len() {
            return Fill::More;
        }
        render_end(out, encoding, &self.token.text());
        out.extend_from_slice(self.end);
        Fill::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{HistoryId, Lineage};

    /// Values with what JSON has to escape, with characters of all lengths, and now and then not
    /// UTF-8.
    fn random_value(rng: &mut fastrand::Rng) -> Vec<u8> {
        let mut text = String::new();
        for _ in 0..rng.usize(1..400) {
            match rng.u8(..8) {
                0 => text.push(char::from(rng.u8(..0x20))),
                1 => text.push(['"', '\\', '/', '\u{7f}'][rng.usize(..4)]),
                2 => text.push(rng.char(..)),
                _ => text.push(char::from(rng.u8(b' '..b'~'))),
            }
        }
        let mut value = text.into_bytes();
        if rng.u8(..4) == 0 {
            let at = rng.usize(..value.len());
            value[at] = 0xff;
        }
        if rng.u8(..8) == 0 {
            value.push(0xe2);
        }
        value
    }

    #[test]
    fn slices_make_the_same_answer_and_it_parses_back() {
        let seed = 11;
        let mut rng = fastrand::Rng::with_seed(seed);
        let lineage = Lineage::new(HistoryId([0xab; 16]));
        for round in 0..3_000 {
            let value = random_value(&mut rng);
            let token = lineage.token_of(round);
            let mut whole = Vec::new();
            render_value(&mut whole, &value, &token.text());
            let mut sliced = Vec::new();
            let mut source = JsonValueSource::part(Arc::new(value.clone()), token);
            let budget = rng.usize(1..200);
            loop {
                let before = sliced.len();
                let fill = source.fill(&mut sliced, budget);
                assert!(
                    sliced.len() - before <= 6 * budget + 100,
                    "a slice of {budget} rendered too much"
                );
                if fill == Fill::Done {
                    break;
                }
            }
            assert_eq!(
                String::from_utf8_lossy(&sliced),
                String::from_utf8_lossy(&whole),
                "seed {seed}, round {round}"
            );
            let parsed: serde_json::Value = serde_json::from_slice(&whole).expect("JSON");
            let text = parsed["value"].as_str().expect("a string");
            let back = match parsed["encoding"].as_str() {
                Some(encoding) => {
                    assert_eq!(encoding, "base64");
                    assert!(std::str::from_utf8(&value).is_err(), "text as base64");
                    STANDARD.decode(text).expect("base64")
                }
                None => text.as_bytes().to_vec(),
            };
            assert_eq!(back, value);
            assert_eq!(parsed["version"], round);
            assert_eq!(parsed["etag"], format!("{round}-abababab"));
        }
    }
}
