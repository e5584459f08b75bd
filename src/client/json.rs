//! The JSON of a node: its fields, keys and values as bytes, and the lines that show entries.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;

use super::text::{bytes_text, escape_into};

/// Of a longer value only this much is shown on a terminal.
const SHOWN_VALUE_BYTES: usize = 200;

/// The JSON in a text; null if it is none.
#[inline(never)]
pub(crate) fn parse(text: &[u8]) -> Json {
    serde_json::from_slice(text).unwrap_or_default()
}

/// A field of an object; null if it has none of that name, or is no object.
#[inline(never)]
pub(crate) fn field<'j>(json: &'j Json, name: &str) -> &'j Json {
    &json[name]
}

/// The bytes of a field; `encoding_name` is the field that says that they are base64.
pub(crate) fn bytes_of(json: &Json, name: &str, encoding_name: &str) -> Option<Vec<u8>> {
    let text = field(json, name).as_str()?;
    match field(json, encoding_name).as_str() {
        Some("base64") => STANDARD.decode(text).ok(),
        Some(_) => None,
        None => Some(text.as_bytes().to_vec()),
    }
}

/// Appends the value of an entry, with a tab before it, if it has one.
pub(crate) fn add_value(json: &Json, is_shortened: bool, out: &mut Vec<u8>) {
    let left_out_bytes = field(json, "valueBytes").as_u64();
    let value = bytes_of(json, "value", "encoding").unwrap_or_default();
    if left_out_bytes.is_none() && field(json, "value").is_null() {
        return;
    }
    out.push(b'\t');
    let mut shown = &value[..];
    if is_shortened && value.len() > SHOWN_VALUE_BYTES {
        // Up to the beginning of a character.
        let is_inside = |byte: &&u8| **byte & 0xc0 == 0x80;
        let cut_bytes = value[SHOWN_VALUE_BYTES..]
            .iter()
            .take(3)
            .take_while(is_inside);
        shown = &value[..SHOWN_VALUE_BYTES + cut_bytes.count()];
    }
    escape_into(shown, out);
    let bytes = left_out_bytes.unwrap_or(value.len() as u64);
    if shown.len() as u64 != bytes && is_shortened {
        out.extend_from_slice("… (".as_bytes());
        out.extend_from_slice(bytes_text(bytes).as_bytes());
        out.push(b')');
    }
}
