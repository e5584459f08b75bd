//! How long a key is to live: `?ttl=`, `X-TTL`, or the field `ttl` of a body, in seconds.

use crate::http::{Head, Refusal};

use crate::api::request::params::Param;
use crate::api::request::query::Query;

/// A hundred years: more is a mistake in the unit.
const TTL_MAX_SECONDS: f64 = 100.0 * 365.25 * 86_400.0;

/// The milliseconds that a number of seconds stands for, rounded up.
pub(crate) fn parse_ttl(text: &[u8]) -> Result<u64, Refusal> {
    // A JSON number, in headers and parameters too.
    let seconds = serde_json::from_slice::<f64>(text.trim_ascii()).ok();
    match seconds {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the range is checked"
        )]
        Some(seconds) if seconds > 0.0 && seconds <= TTL_MAX_SECONDS => {
            Ok((seconds * 1_000.0).ceil() as u64)
        }
        _ => Err(bad_ttl()),
    }
}

/// The time to live that a request names in a field, a parameter or its body; one of them at most.
#[inline]
pub(crate) fn ttl_of(
    head: &Head<'_>,
    query: Query<'_>,
    body_ttl_ms: Option<u64>,
) -> Result<Option<u64>, Refusal> {
    match (head.ttl, query.get(Param::Ttl)?, body_ttl_ms) {
        (None, None, body_ttl_ms) => Ok(body_ttl_ms),
        (Some(text), None, None) => parse_ttl(text).map(Some),
        (None, Some(text), None) => parse_ttl(&text).map(Some),
        _ => Err(Refusal::new(
            400,
            "bad_ttl",
            "the time to live is there twice: send X-TTL, ?ttl= or the field \"ttl\"",
        )),
    }
}

/// The remaining time to live as `X-TTL` shows it: seconds with three decimals.
pub(crate) fn remaining(expires_at_ms: u64, now_ms: u64) -> String {
    let left_ms = expires_at_ms.saturating_sub(now_ms);
    format!("{}.{:03}", left_ms / 1_000, left_ms % 1_000)
}

#[cold]
fn bad_ttl() -> Refusal {
    let message = "the time to live must be a number of seconds above 0 and up to 100 years, such \
                   as 60 or 0.5";
    Refusal::new(400, "bad_ttl", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_milliseconds() {
        for (text, expected) in [
            ("60", Some(60_000)),
            (" 1.5 ", Some(1_500)),
            ("0.0001", Some(1)),
            ("1e3", Some(1_000_000)),
            ("3155760000", Some(3_155_760_000_000)),
            ("3155760001", None),
            ("0", None),
            ("-1", None),
            ("", None),
            ("+1", None),
            ("1s", None),
            ("NaN", None),
            ("1e999", None),
            ("0x10", None),
        ] {
            assert_eq!(parse_ttl(text.as_bytes()).ok(), expected, "{text:?}");
        }
        assert_eq!(remaining(12_345, 1_000), "11.345");
        assert_eq!(remaining(12_345, 99_000), "0.000");
    }
}
