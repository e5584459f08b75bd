//! Percent-decoding, strict and a piece at a time (RFC 3986, section 2.1; `+` as a space in queries
//! and forms).

use std::borrow::Cow;

use crate::swar;

/// A `%` without two hexadecimal digits behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadEscape;

/// What a `+` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plus {
    Space,
    Plus,
}

/// How much of an escape has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PartialEscape {
    None,
    Percent,
    Digit(u8),
}

/// The state between two pieces.
#[derive(Debug)]
pub(crate) struct PercentDecoder {
    plus: Plus,
    escape: PartialEscape,
}

impl PercentDecoder {
    pub(crate) fn new(plus: Plus) -> Self {
        Self {
            plus,
            escape: PartialEscape::None,
        }
    }

    /// Appends the decoded piece.
    pub(crate) fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), BadEscape> {
        let mut rest = piece;
        while let Some((&byte, behind)) = rest.split_first() {
            match self.escape {
                PartialEscape::Percent => {
                    self.escape = PartialEscape::Digit(hex_digit(byte)?);
                    rest = behind;
                }
                PartialEscape::Digit(high) => {
                    out.push(high << 4 | hex_digit(byte)?);
                    self.escape = PartialEscape::None;
                    rest = behind;
                }
                PartialEscape::None => {
                    let end = memchr::memchr2(b'%', b'+', rest).unwrap_or(rest.len());
                    out.extend_from_slice(&rest[..end]);
                    rest = &rest[end..];
                    match (rest.first(), self.plus) {
                        (Some(b'%'), _) => self.escape = PartialEscape::Percent,
                        (Some(_), Plus::Space) => out.push(b' '),
                        (Some(_), Plus::Plus) => out.push(b'+'),
                        (None, _) => break,
                    }
                    rest = &rest[1..];
                }
            }
        }
        Ok(())
    }

    /// Whether the text may end here.
    pub(crate) fn finish(&mut self) -> Result<(), BadEscape> {
        if std::mem::replace(&mut self.escape, PartialEscape::None) == PartialEscape::None {
            Ok(())
        } else {
            Err(BadEscape)
        }
    }
}

/// Decodes a whole text; borrows it where nothing is encoded. `is_literal`: the caller knows that
/// nothing is.
#[inline]
pub(crate) fn decode(
    text: &[u8],
    plus: Plus,
    is_literal: bool,
) -> Result<Cow<'_, [u8]>, BadEscape> {
    if is_literal || !has_escape(text) {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut decoder = PercentDecoder::new(plus);
    decoder.push(text, &mut out)?;
    decoder.finish()?;
    Ok(Cow::Owned(out))
}

#[inline]
fn has_escape(text: &[u8]) -> bool {
    let (eights, rest) = text.as_chunks();
    let is_in = |eight: &[u8; 8]| {
        let word = u64::from_le_bytes(*eight);
        swar::equal(word, b'%') | swar::equal(word, b'+') != 0
    };
    eights.iter().any(is_in) || rest.iter().any(|byte| matches!(byte, b'%' | b'+'))
}

fn hex_digit(byte: u8) -> Result<u8, BadEscape> {
    match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        b'A'..=b'F' => Ok(byte - b'A' + 10),
        _ => Err(BadEscape),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_whatever_the_cut() {
        for (text, plus, expected) in [
            ("plain", Plus::Space, Ok("plain")),
            ("a+b%20c%2Bd", Plus::Space, Ok("a b c+d")),
            ("a+b%20c%2Fd%2f", Plus::Plus, Ok("a+b c/d/")),
            ("%41%4a%4A", Plus::Plus, Ok("AJJ")),
            ("%", Plus::Plus, Err(BadEscape)),
            ("a%4", Plus::Plus, Err(BadEscape)),
            ("%zz", Plus::Plus, Err(BadEscape)),
            ("%+1", Plus::Space, Err(BadEscape)),
        ] {
            let expected = expected.map(|text: &str| text.as_bytes().to_vec());
            assert_eq!(
                decode(text.as_bytes(), plus, false).map(Cow::into_owned),
                expected,
                "{text}"
            );
            for cut in 0..=text.len() {
                let mut out = Vec::new();
                let mut decoder = PercentDecoder::new(plus);
                let (head, tail) = text.as_bytes().split_at(cut);
                let outcome = decoder
                    .push(head, &mut out)
                    .and_then(|()| decoder.push(tail, &mut out))
                    .and_then(|()| decoder.finish());
                assert_eq!(outcome.map(|()| out), expected, "{text} cut at {cut}");
            }
        }
    }
}
