//! Which form of an answer a client prefers: `Accept` (RFC 9110, section 12.5.1).
//!
//! Invariants:
//! 1. A form that is excluded (`q=0`) is never sent.
//! 2. Of the other forms the one with the highest weight is sent. Ties go to the form that Accept
//!    names most exactly, then to the one that the path prefers. A range that matches no form is
//!    ignored: many clients send a list of everything that they can show.

use crate::http::Refusal;

use crate::api::request::values::is_media_type;

/// Thousandths: a weight has three digits at most.
const WEIGHT_MAX: u16 = 1_000;

/// What Accept says of one form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Match {
    weight: u16,
    exactness: Exactness,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Exactness {
    Anything,
    Type,
    Whole,
}

/// The media type to send. `offers` are those of the path, the preferred one first.
#[inline]
pub(crate) fn preferred(
    accept: Option<&[u8]>,
    offers: &[&'static str],
) -> Result<&'static str, Refusal> {
    match accept {
        None | Some(b"*/*") => Ok(offers[0]),
        Some(accept) => negotiate(accept, offers),
    }
}

fn negotiate(accept: &[u8], offers: &[&'static str]) -> Result<&'static str, Refusal> {
    let matches = || offers.iter().map(|offer| (*offer, match_of(accept, offer)));
    // `max_by_key` takes the last of equal ones, and the first offer is to win: hence reversed.
    let wanted = matches()
        .rev()
        .filter_map(|(offer, found)| Some((found.filter(|found| found.weight > 0)?, offer)))
        .max_by_key(|(found, _)| *found);
    if let Some((_, offer)) = wanted {
        return Ok(offer);
    }
    let unnamed = matches().find(|(_, found)| found.is_none());
    unnamed
        .map(|(offer, _)| offer)
        .ok_or_else(|| not_acceptable(offers))
}

/// The most exact range that matches a media type; none if no range does.
fn match_of(accept: &[u8], media_type: &str) -> Option<Match> {
    let main_type = media_type.split('/').next().unwrap_or_default();
    let mut best: Option<Match> = None;
    let mut ranges = ListParts::new(accept, b',');
    while let Some(range) = ranges.next() {
        let exactness = if is_media_type(range, media_type) {
            Exactness::Whole
        } else if is_media_type(range, "*/*") {
            Exactness::Anything
        } else if is_any_of(range, main_type) {
            Exactness::Type
        } else {
            continue;
        };
        let Some(weight) = weight_of(range) else {
            continue;
        };
        let found = Match { weight, exactness };
        if best.is_none_or(|best| (exactness, weight) > (best.exactness, best.weight)) {
            best = Some(found);
        }
    }
    best
}

/// Whether a range is `type/*`.
fn is_any_of(range: &[u8], main_type: &str) -> bool {
    let named = range.split(|byte| *byte == b';').next().unwrap_or_default();
    let behind = named
        .trim_ascii()
        .split_at_checked(main_type.len())
        .filter(|(begin, _)| begin.eq_ignore_ascii_case(main_type.as_bytes()));
    behind.is_some_and(|(_, behind)| behind == b"/*")
}

/// The weight of a range, in thousandths; `None`: it is malformed, and the range is not counted.
fn weight_of(range: &[u8]) -> Option<u16> {
    let mut parameters = ListParts::new(range, b';');
    parameters.next();
    while let Some(parameter) = parameters.next() {
        if let [b'q' | b'Q', b'=', value @ ..] = parameter.trim_ascii() {
            return parse_weight(value);
        }
    }
    Some(WEIGHT_MAX)
}

/// `0`, `0.5`, `1.000`: three digits behind the point at most.
fn parse_weight(value: &[u8]) -> Option<u16> {
    let (whole, fraction) = match value {
        [whole] => (whole, &[][..]),
        [whole, b'.', fraction @ ..] => (whole, fraction),
        _ => return None,
    };
    let is_valid = matches!(whole, b'0' | b'1')
        && fraction.len() <= 3
        && fraction.iter().all(u8::is_ascii_digit);
    if !is_valid {
        return None;
    }
    let digits = fraction.iter().chain(b"000").take(3);
    let weight = digits.fold(u16::from(whole - b'0'), |weight, digit| {
        weight * 10 + u16::from(digit - b'0')
    });
    (weight <= WEIGHT_MAX).then_some(weight)
}

/// The parts of a list, cut at a separator that does not stand in quotes.
struct ListParts<'v> {
    rest: Option<&'v [u8]>,
    separator: u8,
}

impl<'v> ListParts<'v> {
    fn new(value: &'v [u8], separator: u8) -> Self {
        Self {
            rest: Some(value),
            separator,
        }
    }

    fn next(&mut self) -> Option<&'v [u8]> {
        let rest = self.rest?;
        let (mut is_quoted, mut is_escaped) = (false, false);
        let end = rest.iter().position(|&byte| {
            let is_end = byte == self.separator && !is_quoted;
            if is_quoted && !is_escaped && byte == b'\\' {
                is_escaped = true;
                return false;
            }
            is_quoted ^= byte == b'"' && !is_escaped;
            is_escaped = false;
            is_end
        });
        let part = &rest[..end.unwrap_or(rest.len())];
        self.rest = end.map(|end| &rest[end + 1..]);
        Some(part)
    }
}

#[cold]
fn not_acceptable(offers: &[&'static str]) -> Refusal {
    let offers = offers.join(" and ");
    let message = format!("Accept excludes all forms of this answer: there are {offers}");
    Refusal::new(406, "not_acceptable", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = "application/json";
    const RAW: &str = "application/octet-stream";

    #[test]
    fn weights_and_exactness_decide() {
        for (accept, expected) in [
            ("", Some(JSON)),
            ("*/*", Some(JSON)),
            ("text/html", Some(JSON)),
            (
                "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
                Some(JSON),
            ),
            ("application/octet-stream", Some(RAW)),
            ("Application/Octet-Stream;Q=0.001", Some(RAW)),
            ("text/html, application/octet-stream;q=0.5", Some(RAW)),
            ("application/octet-stream, application/json", Some(JSON)),
            ("application/octet-stream, */*", Some(RAW)),
            ("application/octet-stream;q=0.9, */*", Some(JSON)),
            (
                "application/json;q=0.4,application/octet-stream;q=0.5",
                Some(RAW),
            ),
            (
                "application/json;q=0.5,application/octet-stream;q=0.4",
                Some(JSON),
            ),
            ("application/json;q=0.1,*/*;q=0.2", Some(RAW)),
            ("application/*;q=0.3, application/json;q=0.2", Some(RAW)),
            ("application/*, application/json;q=0.2", Some(RAW)),
            ("application/*", Some(JSON)),
            // Excluded forms are never sent.
            ("application/octet-stream;q=0", Some(JSON)),
            ("application/octet-stream;q=0.000, */*", Some(JSON)),
            ("application/json;q=0", Some(RAW)),
            ("application/json;q=0, */*;q=0.1", Some(RAW)),
            ("*/*;q=0, application/octet-stream", Some(RAW)),
            ("application/*;q=0, application/json", Some(JSON)),
            ("*/*;q=0", None),
            ("application/*;q=0.0", None),
            ("application/json;q=0,application/octet-stream;q=0", None),
            // Parameters, white space, empty elements.
            (
                ", ,application/octet-stream ; version=1 ; q=1.000,",
                Some(RAW),
            ),
            (
                "a/b;x=\"application/octet-stream,;q=0\", application/octet-stream",
                Some(RAW),
            ),
            ("a/b;x=\", application/octet-stream\\\",\"", Some(JSON)),
            // A malformed weight says nothing.
            ("application/octet-stream;q=2", Some(JSON)),
            ("application/octet-stream;q=", Some(JSON)),
            ("application/octet-stream;q=0.1234", Some(JSON)),
            ("application/octet-stream;q=1.001", Some(JSON)),
            ("application/octet-stream;q=.5", Some(JSON)),
            ("application/octet-streams", Some(JSON)),
        ] {
            let found = preferred(Some(accept.as_bytes()), &[JSON, RAW]);
            assert_eq!(found.ok(), expected, "{accept}");
        }
        assert_eq!(preferred(None, &[JSON, RAW]).ok(), Some(JSON));
    }
}
