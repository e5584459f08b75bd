//! Strings in JSON: escaping, finding what is escaped, and validating UTF-8.

use crate::swar;

/// Appends `text`, which is UTF-8, as the inside of a JSON string.
#[inline]
pub(crate) fn escape_into(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    loop {
        let end = plain_bytes(rest);
        out.extend_from_slice(&rest[..end]);
        let Some(&byte) = rest.get(end) else { return };
        escape_byte(out, byte);
        rest = &rest[end + 1..];
    }
}

/// The number of bytes before the first that needs an escape.
#[inline]
pub(crate) fn plain_bytes(text: &[u8]) -> usize {
    plain_start(text).0
}

/// The number of bytes before the first that needs an escape; and the OR of all words that were
/// looked at, from which the caller sees whether they are ASCII.
#[inline]
fn plain_start(text: &[u8]) -> (usize, u64) {
    let (eights, rest) = text.as_chunks();
    let mut bits = 0;
    for (index, eight) in eights.iter().enumerate() {
        let word = u64::from_le_bytes(*eight);
        bits |= word;
        let found = swar::below(word, 0x20) | swar::equal(word, b'"') | swar::equal(word, b'\\');
        if found != 0 {
            return (8 * index + swar::first(found), bits);
        }
    }
    for (index, byte) in rest.iter().enumerate() {
        bits |= u64::from(*byte);
        if needs_escape(*byte) {
            return (text.len() - rest.len() + index, bits);
        }
    }
    (text.len(), bits)
}

/// The text before the first byte that needs an escape, and the rest; none if the text is not
/// UTF-8.
#[inline]
pub(crate) fn plain_text(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (plain_bytes, bits) = plain_start(text);
    let (plain, behind) = text.split_at(plain_bytes);
    let is_text = swar::is_ascii(bits) || std::str::from_utf8(plain).is_ok();
    is_text.then_some((plain, behind))
}

#[inline]
fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

fn escape_byte(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => {
            let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Validates UTF-8 that comes in pieces.
#[derive(Clone, Debug, Default)]
pub(crate) struct Utf8Validator {
    /// The first bytes of a character that was cut.
    cut: [u8; 4],
    cut_len: usize,
}

impl Utf8Validator {
    /// Adds a piece; false once the bytes so far are no beginning of UTF-8.
    pub(crate) fn push(&mut self, piece: &[u8]) -> bool {
        let mut rest = piece;
        while self.cut_len > 0 {
            let Some((&byte, behind)) = rest.split_first() else {
                return true;
            };
            self.cut[self.cut_len] = byte;
            self.cut_len += 1;
            rest = behind;
            match std::str::from_utf8(&self.cut[..self.cut_len]) {
                Ok(_) => self.cut_len = 0,
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return false,
            }
        }
        match std::str::from_utf8(rest) {
            Ok(_) => true,
            Err(error) if error.error_len().is_none() => {
                let cut = &rest[error.valid_up_to()..];
                self.cut[..cut.len()].copy_from_slice(cut);
                self.cut_len = cut.len();
                true
            }
            Err(_) => false,
        }
    }

    /// Whether the bytes so far end with a complete character.
    pub(crate) fn is_complete(&self) -> bool {
        self.cut_len == 0
    }
}
