//! `If-Match` and `If-None-Match` (RFC 9110, section 13.1): entity tags are versions, `"N"`.

use crate::http::{Head, Refusal};
use crate::partition::{Conditions, VersionSet};

/// Tags in one list: more are refused, since each is compared.
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
pub(super) fn conditions_of(head: &Head<'_>) -> Result<Conditions, Refusal> {
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

fn parse(value: &[u8], comparison: Comparison) -> Result<VersionSet, Refusal> {
    if value == b"*" {
        return Ok(VersionSet::Any);
    }
    let mut versions = Vec::new();
    let mut rest = value;
    for _ in 0..TAG_MAX_COUNT {
        let is_weak = rest.starts_with(b"W/");
        let tag = if is_weak { &rest[2..] } else { rest };
        let tag = tag.strip_prefix(b"\"").ok_or_else(malformed)?;
        let end = memchr::memchr(b'"', tag).ok_or_else(malformed)?;
        // A tag that is no version of ours is legal, and matches nothing.
        if let Some(version) = parse_version(&tag[..end])
            && !(is_weak && comparison == Comparison::Strong)
        {
            versions.push(version);
        }
        rest = tag[end + 1..].trim_ascii_start();
        if rest.is_empty() {
            return Ok(VersionSet::Of(versions));
        }
        rest = rest
            .strip_prefix(b",")
            .ok_or_else(malformed)?
            .trim_ascii_start();
    }
    Err(Refusal::bad_request(
        "too many entity tags in a condition: send at most 64",
    ))
}

/// The versions that a field of a body names: `*`, or one version.
pub(super) fn version_set(text: &[u8]) -> Result<VersionSet, Refusal> {
    if text == b"*" {
        return Ok(VersionSet::Any);
    }
    parse_version(text)
        .map(|version| VersionSet::Of(vec![version]))
        .ok_or_else(|| {
            Refusal::bad_request(
                "\"ifMatch\" and \"ifNoneMatch\" take \"*\" or a version, such as 17",
            )
        })
}

fn parse_version(digits: &[u8]) -> Option<u64> {
    let is_canonical = digits
        .first()
        .is_some_and(|first| first.is_ascii_digit() && *first != b'0');
    if is_canonical {
        std::str::from_utf8(digits).ok()?.parse().ok()
    } else {
        None
    }
}

#[cold]
fn malformed() -> Refusal {
    Refusal::bad_request(
        "malformed condition: If-Match and If-None-Match take * or quoted versions such as \"17\"",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_tags() {
        let of = |versions: &[u64]| Ok(VersionSet::Of(versions.to_vec()));
        for (value, comparison, expected) in [
            ("*", Comparison::Strong, Ok(VersionSet::Any)),
            ("\"17\"", Comparison::Strong, of(&[17])),
            ("\"1\", \"2\" ,W/\"3\"", Comparison::Weak, of(&[1, 2, 3])),
            ("\"1\", W/\"3\"", Comparison::Strong, of(&[1])),
            ("\"abc\", \"018\", \"+5\", \"\"", Comparison::Weak, of(&[])),
            ("17", Comparison::Strong, Err(400)),
            ("\"17", Comparison::Strong, Err(400)),
            ("", Comparison::Strong, Err(400)),
            ("\"1\" \"2\"", Comparison::Strong, Err(400)),
            ("\"1\",", Comparison::Strong, Err(400)),
        ] {
            assert_eq!(
                parse(value.as_bytes(), comparison).map_err(|refusal| refusal.status),
                expected,
                "{value}"
            );
        }
        let many = vec!["\"1\""; TAG_MAX_COUNT + 1].join(",");
        assert!(parse(many.as_bytes(), Comparison::Strong).is_err());
    }
}
