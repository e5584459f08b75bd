//! Version tokens: names of versions that hold outside of this node.
//!
//! A version alone does not identify a write: two nodes, or one node before and after a restart
//! without its data, can each have written a version 7. A token adds the history:
//!
//! ```text
//! 66-1a2b3c4d     the version in decimal, the first eight hexadecimal digits of the history's id
//! ```
//!
//! Entity tags, ids of events and positions of scans and watches are tokens. A token from a client
//! is checked against the lineage of the partition (`Lineage::holds`,
//! `Lineage::version_at`), and nowhere else.
//!
//! Invariants:
//! 1. A token has one text: no leading zeros, lower-case digits. Any other text is no token.
//! 2. A lineage holds a token only if the write that the token was given out for is a part of it:
//!    its history is the present one, or a past one that ended at or behind that version.
//! 3. The token of a version stays the same over a promotion: it names the history in which the
//!    version was written. A version older than the histories that all nodes know is named by the
//!    oldest of them.
//!
//! Two random histories share these eight digits in one case of four billion.
//!
//! Not here: the answer to a request with a token that is not held (the api layer).

use std::fmt;

use super::history_id::HistoryId;

const PREFIX_BYTES: usize = 8;

/// The longest version has 20 digits.
const TOKEN_MAX_BYTES: usize = 20 + 1 + PREFIX_BYTES;

/// The first eight hexadecimal digits of a history's id, as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HistoryPrefix([u8; PREFIX_BYTES]);

impl HistoryPrefix {
    /// The prefix of a history's id.
    pub fn of(history: &HistoryId) -> Self {
        let [a, b, c, d, ..] = history.0;
        let mut digits = [0; PREFIX_BYTES];
        for (pair, byte) in digits.as_chunks_mut().0.iter_mut().zip([a, b, c, d]) {
            *pair = [hex_digit(byte >> 4), hex_digit(byte & 15)];
        }
        Self(digits)
    }

    /// The digits.
    #[inline]
    pub fn as_bytes(&self) -> &[u8; PREFIX_BYTES] {
        &self.0
    }
}

fn hex_digit(nibble: u8) -> u8 {
    b"0123456789abcdef"[usize::from(nibble)]
}

/// A version and the history in which it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionToken {
    /// The version.
    pub version: u64,
    /// The history.
    pub history: HistoryPrefix,
}

impl VersionToken {
    /// Reads a token; none if the text is anything else.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (version, history) = text.split_at(text.len().checked_sub(PREFIX_BYTES + 1)?);
        let digits: [u8; PREFIX_BYTES] = history.strip_prefix(b"-")?.try_into().ok()?;
        let is_history = digits
            .iter()
            .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        let is_canonical = version == b"0" || !version.starts_with(b"0");
        (is_history && is_canonical).then_some(())?;
        Some(Self {
            version: decimal(version)?,
            history: HistoryPrefix(digits),
        })
    }

    /// The text: `N-hhhhhhhh`.
    #[inline]
    pub fn text(&self) -> TokenText {
        let mut number = itoa::Buffer::new();
        let number = number.format(self.version).as_bytes();
        let mut bytes = [0; TOKEN_MAX_BYTES];
        bytes[..number.len()].copy_from_slice(number);
        bytes[number.len()] = b'-';
        bytes[number.len() + 1..][..PREFIX_BYTES].copy_from_slice(&self.history.0);
        TokenText {
            bytes,
            version_bytes: number.len(),
        }
    }
}

/// The text of a token, for answers that it stands in more than once.
#[derive(Clone, Copy, Debug)]
pub struct TokenText {
    bytes: [u8; TOKEN_MAX_BYTES],
    version_bytes: usize,
}

impl TokenText {
    /// The whole token.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.version_bytes + 1 + PREFIX_BYTES]
    }

    /// The version alone.
    #[inline]
    pub fn version(&self) -> &[u8] {
        &self.bytes[..self.version_bytes]
    }
}

impl fmt::Display for VersionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let history = str::from_utf8(&self.history.0).unwrap_or_default();
        write!(f, "{}-{history}", self.version)
    }
}

/// A version as a client names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// A whole token.
    Token(VersionToken),
    /// A bare number: that version of the present history.
    Version(u64),
}

impl Position {
    /// Reads a token or a number; none if the text is neither.
    pub fn parse(text: &[u8]) -> Option<Self> {
        decimal(text)
            .map(Self::Version)
            .or_else(|| VersionToken::parse(text).map(Self::Token))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(token) => token.fmt(f),
            Self::Version(version) => version.fmt(f),
        }
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let text = str::from_utf8(digits).ok()?;
    // Parsing takes a sign, too.
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::super::lineage::Lineage;
    use super::*;

    fn id(byte: u8) -> HistoryId {
        HistoryId([byte; 16])
    }

    fn token(text: &str) -> VersionToken {
        VersionToken::parse(text.as_bytes()).expect("a token")
    }

    #[test]
    fn a_token_has_one_text() {
        let history = HistoryId([0x1a, 0x2b, 0x3c, 0x4d, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]);
        let made = Lineage::new(history).token_of(66);
        assert_eq!(made.to_string(), "66-1a2b3c4d");
        for text in [
            "0-00000000",
            "66-1a2b3c4d",
            "18446744073709551615-ffffffff",
            "7-12345678",
        ] {
            let mut rendered = Vec::new();
            rendered.extend_from_slice(token(text).text().as_bytes());
            assert_eq!(rendered, text.as_bytes());
            assert_eq!(token(text).to_string(), text);
        }
        assert_eq!(token("66-1a2b3c4d"), made);
        for text in [
            "",
            "-",
            "66",
            "66-",
            "-1a2b3c4d",
            "66-1a2b3c4",
            "66-1a2b3c4dd",
            "66-1A2B3C4D",
            "66-1a2b3c4g",
            "066-1a2b3c4d",
            "00-1a2b3c4d",
            "+66-1a2b3c4d",
            " 66-1a2b3c4d",
            "66-1a2b3c4d ",
            "66_1a2b3c4d",
            "18446744073709551616-1a2b3c4d",
            "6\u{e9}-1a2b3c4d",
        ] {
            assert_eq!(VersionToken::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn positions_are_tokens_or_numbers() {
        let parse = |text: &str| Position::parse(text.as_bytes());
        assert_eq!(parse("17"), Some(Position::Version(17)));
        assert_eq!(
            parse("17-1a2b3c4d"),
            Some(Position::Token(token("17-1a2b3c4d")))
        );
        for text in ["", "-1", "+1", "1.0", "x", "17-", "18446744073709551616"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn tokens_name_the_history_of_the_write_and_are_held_up_to_its_end() {
        let lineage = Lineage::new(id(1))
            .begin(id(2), 100)
            .begin(id(3), 120)
            // Nothing was written in history 4.
            .begin(id(4), 150)
            .begin(id(5), 150);
        for (version, history) in [
            (0, 1),
            (1, 1),
            (100, 1),
            (101, 2),
            (120, 2),
            (121, 3),
            (150, 3),
            (151, 5),
            (u64::MAX, 5),
        ] {
            let token = lineage.token_of(version);
            assert_eq!(token.history, HistoryPrefix::of(&id(history)), "{version}");
            assert!(lineage.holds(token), "{token}");
        }
        for (text, is_held) in [
            ("100-01010101", true),
            ("101-01010101", false),
            ("120-02020202", true),
            ("121-02020202", false),
            // The same write by the name of a later history that has it, too.
            ("7-02020202", true),
            ("150-04040404", true),
            ("151-04040404", false),
            ("151-05050505", true),
            ("1-06060606", false),
        ] {
            assert_eq!(lineage.holds(token(text)), is_held, "{text}");
            let version_at = lineage.version_at(Position::Token(token(text)));
            assert_eq!(version_at, is_held.then_some(token(text).version), "{text}");
        }
        assert_eq!(lineage.version_at(Position::Version(7)), Some(7));
        // A leader that lost its tail went on below where an older history ended.
        let shorter = lineage.begin(id(7), 110);
        assert!(!shorter.holds(token("111-05050505")) && !shorter.holds(token("111-02020202")));
        assert_eq!(
            shorter.token_of(110).history,
            lineage.token_of(110).history,
            "the token of a write that stays does not change"
        );
    }
}
