//! What headers and parameters say: numbers and media types.

use std::str::FromStr;

/// The media type of most bodies.
pub(crate) const JSON: &str = "application/json";

/// A decimal number: digits only, within the range of `N`.
pub(crate) fn number<N: FromStr>(value: &[u8]) -> Option<N> {
    let digits = std::str::from_utf8(value)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits?.parse().ok()
}

/// Whether a Content-Type, or one range of Accept, names a media type, whatever its parameters.
pub(crate) fn is_media_type(value: &[u8], media_type: &str) -> bool {
    let named = value.split(|byte| *byte == b';').next().unwrap_or_default();
    named
        .trim_ascii()
        .eq_ignore_ascii_case(media_type.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_digits_that_fit() {
        for (value, expected) in [
            ("0", Some(0)),
            ("007", Some(7)),
            ("255", Some(255)),
            ("256", None),
        ] {
            assert_eq!(number::<u8>(value.as_bytes()), expected, "{value}");
        }
        for value in [
            "",
            "+1",
            "-1",
            " 1",
            "1 ",
            "1.0",
            "0x1",
            "\u{661}",
            "18446744073709551616",
        ] {
            assert_eq!(number::<u64>(value.as_bytes()), None, "{value}");
        }
        assert_eq!(number::<u64>(&[0xff]), None);
    }

    #[test]
    fn media_types_have_case_and_parameters_that_do_not_count() {
        for value in ["text/event-stream", " Text/Event-Stream ;q=0.5"] {
            assert!(
                is_media_type(value.as_bytes(), "text/event-stream"),
                "{value}"
            );
        }
        for value in [
            "",
            "*/*",
            "text/event-streams",
            "text/plain;text/event-stream",
            "a/b, text/event-stream",
        ] {
            assert!(
                !is_media_type(value.as_bytes(), "text/event-stream"),
                "{value}"
            );
        }
    }
}
