//! `If-Match` and `If-None-Match` (RFC 9110, section 13.1): entity tags are version tokens in
//! quotes, `"17-1a2b3c4d"`.
//!
//! Invariants:
//! 1. A tag that is not a token is legal and matches nothing. A bare number is refused, since it
//!    would name a version of an unknown history.
//! 2. A list may have empty elements (RFC 9110, section 5.6.1.2), and has at least one tag.

use crate::http::{Head, Refusal};
use crate::partition::{Conditions, TokenSet};
use crate::storage::VersionToken;

/// Most tags in one list: each of them is compared.
const TAG_MAX_COUNT: usize = 64;

/// Which comparison a field asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    /// Weak tags never match.
    Strong,
    /// `W/"N"` matches as `"N"` does.
    Weak,
}

/// The conditions of a request.
#[inline]
pub(crate) fn conditions_of(head: &Head<'_>) -> Result<Conditions, Refusal> {
    if head.if_match.is_none() && head.if_none_match.is_none() {
        return Ok(Conditions::default());
    }
    Ok(Conditions {
        if_match: head
            .if_match
            .map(|value| parse(value, Comparison::Strong))
            .transpose()?,
        if_none_match: head
            .if_none_match
            .map(|value| parse(value, Comparison::Weak))
            .transpose()?,
    })
}

fn parse(value: &[u8], comparison: Comparison) -> Result<TokenSet, Refusal> {
    if value == b"*" {
        return Ok(TokenSet::Any);
    }
    let mut tokens = Vec::new();
    let mut tag_count = 0;
    let mut rest = skip_empty_elements(value);
    while !rest.is_empty() {
        tag_count += 1;
        if tag_count > TAG_MAX_COUNT {
            return Err(Refusal::bad_request(
                "too many entity tags in a condition: send at most 64",
            ));
        }
        let is_weak = rest.starts_with(b"W/");
        let tag = if is_weak { &rest[2..] } else { rest };
        let tag = tag.strip_prefix(b"\"").ok_or_else(malformed)?;
        let end = memchr::memchr(b'"', tag).ok_or_else(malformed)?;
        let (tag, behind) = (&tag[..end], tag[end + 1..].trim_ascii_start());
        if is_bare_number(tag) {
            return Err(bare_number());
        }
        if let Some(token) = VersionToken::parse(tag)
            && !(is_weak && comparison == Comparison::Strong)
        {
            tokens.push(token);
        }
        if !behind.is_empty() && !behind.starts_with(b",") {
            return Err(malformed());
        }
        rest = skip_empty_elements(behind);
    }
    if tag_count == 0 {
        return Err(malformed());
    }
    Ok(TokenSet::Of(tokens))
}

/// The rest of a list after commas and white space.
fn skip_empty_elements(list: &[u8]) -> &[u8] {
    let empty_bytes = list
        .iter()
        .position(|byte| !matches!(byte, b',' | b' ' | b'\t'));
    &list[empty_bytes.unwrap_or(list.len())..]
}

/// The tokens that `ifMatch` or `ifNoneMatch` of a body names: `*`, or one.
pub(crate) fn token_set(text: &[u8]) -> Result<TokenSet, Refusal> {
    if text == b"*" {
        return Ok(TokenSet::Any);
    }
    VersionToken::parse(text)
        .map(|token| TokenSet::Of(vec![token]))
        .ok_or_else(|| {
            Refusal::bad_request(
                "\"ifMatch\" and \"ifNoneMatch\" take \"*\" or a whole \"etag\" of an answer, such \
                 as \"17-1a2b3c4d\": a version alone may be that of another write",
            )
        })
}

fn is_bare_number(tag: &[u8]) -> bool {
    !tag.is_empty() && tag.iter().all(u8::is_ascii_digit)
}

#[cold]
fn bare_number() -> Refusal {
    Refusal::bad_request(
        "a version alone is no condition, since it may be that of another write: send the whole \
         ETag of the answer, such as \"17-1a2b3c4d\", or *",
    )
}

#[cold]
fn malformed() -> Refusal {
    Refusal::bad_request(
        "malformed condition: If-Match and If-None-Match take * or ETags in their quotes, such as \
         \"17-1a2b3c4d\"",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_tags() {
        const A: &str = "17-1a2b3c4d";
        const B: &str = "9-00000000";
        let of = |texts: &[&str]| {
            let tokens = texts
                .iter()
                .map(|text| VersionToken::parse(text.as_bytes()).expect("a token"));
            Ok(TokenSet::Of(tokens.collect()))
        };
        let (strong, weak) = (Comparison::Strong, Comparison::Weak);
        for (value, comparison, expected) in [
            ("*", strong, Ok(TokenSet::Any)),
            ("\"{a}\"", strong, of(&[A])),
            ("\"{a}\", \"{b}\" ,W/\"{a}\"", weak, of(&[A, B, A])),
            ("\"{a}\",\"{b}\"", weak, of(&[A, B])),
            ("\"{a}\", W/\"{b}\"", strong, of(&[A])),
            ("W/\"{a}\"", strong, of(&[])),
            // Empty elements.
            ("\"{a}\",,\"{b}\"", strong, of(&[A, B])),
            ("\"{a}\",", strong, of(&[A])),
            (",\"{a}\"", strong, of(&[A])),
            (" , \t,, \"{a}\" ,\t, \"{b}\" , ", weak, of(&[A, B])),
            // Legal, and none of ours.
            ("\"abc\", \"\", \"a,b\"", weak, of(&[])),
            ("\"017-1a2b3c4d\", \"17-1A2B3C4D\"", weak, of(&[])),
            // Bare numbers, wherever they stand.
            ("\"17\"", strong, Err(400)),
            ("W/\"17\"", weak, Err(400)),
            ("\"{a}\", \"18\"", weak, Err(400)),
            ("\"0\"", strong, Err(400)),
            ("17", strong, Err(400)),
            ("{a}", strong, Err(400)),
            ("\"{a}", strong, Err(400)),
            ("", strong, Err(400)),
            (",", strong, Err(400)),
            (" ,\t, ", weak, Err(400)),
            ("\"{a}\" \"{b}\"", strong, Err(400)),
            ("\"{a}\"\"{b}\"", strong, Err(400)),
            ("*, \"{a}\"", strong, Err(400)),
            ("\"{a}\", *", strong, Err(400)),
            ("w/\"{a}\"", weak, Err(400)),
        ] {
            let value = value.replace("{a}", A).replace("{b}", B);
            assert_eq!(
                parse(value.as_bytes(), comparison).map_err(|refusal| refusal.status),
                expected,
                "{value}"
            );
        }
        let tags = |count| vec!["\"1-00000000\""; count].join(",");
        assert!(parse(tags(TAG_MAX_COUNT).as_bytes(), Comparison::Strong).is_ok());
        assert!(parse(tags(TAG_MAX_COUNT + 1).as_bytes(), Comparison::Strong).is_err());
    }

    #[test]
    fn fields_take_whole_tokens() {
        assert_eq!(token_set(b"*").map_err(|r| r.status), Ok(TokenSet::Any));
        assert!(token_set(b"17-1a2b3c4d").is_ok());
        for text in ["17", "", "x", "\"17-1a2b3c4d\"", "17-1a2b3c4", "-1", "1.0"] {
            assert_eq!(
                token_set(text.as_bytes()).map_err(|refusal| refusal.status),
                Err(400),
                "{text}"
            );
        }
    }
}
