//! The fast path for JSON bodies that have arrived in full and have no escapes, as most do: key and
//! value are borrowed, not copied.
//!
//! Invariant: [`JsonBody`](crate::api::body::json_body::JsonBody) gives the same key and value.
//! Texts that are cut, have escapes or other fields, or are wrong, are left to it.

use crate::api::body::json_text::plain_text;

/// The key, and the value if there is one; none if the body is not of this simple form.
#[inline]
pub(crate) fn plain_fields(body: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let (mut key, mut value) = (None, None);
    let mut rest = skip_space(skip_space(body).strip_prefix(b"{")?);
    loop {
        let field = if let Some(behind) = rest.strip_prefix(b"\"key\"") {
            rest = behind;
            &mut key
        } else {
            rest = rest.strip_prefix(b"\"value\"")?;
            &mut value
        };
        let text = skip_space(skip_space(rest).strip_prefix(b":")?).strip_prefix(b"\"")?;
        let (text, behind) = plain_text(text)?;
        if field.replace(text).is_some() {
            return None;
        }
        rest = skip_space(behind.strip_prefix(b"\"")?);
        match rest.strip_prefix(b",") {
            Some(behind) => rest = skip_space(behind),
            None => break,
        }
    }
    let behind = rest.strip_prefix(b"}")?;
    if skip_space(behind).is_empty() {
        Some((key?, value))
    } else {
        None
    }
}

#[inline]
fn skip_space(mut text: &[u8]) -> &[u8] {
    if text.first().is_some_and(|byte| *byte > b' ') {
        return text;
    }
    while let [b' ' | b'\t' | b'\n' | b'\r', behind @ ..] = text {
        text = behind;
    }
    text
}
