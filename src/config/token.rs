//! The secret of `--token-file`.

use std::fmt;

use subtle::ConstantTimeEq;

/// The secret that requests must present. Never printed.
#[derive(Clone)]
pub struct Token(Vec<u8>);

impl Token {
    /// Whether `presented` is the token; takes as long whatever the bytes are.
    pub fn matches(&self, presented: &[u8]) -> bool {
        self.0.ct_eq(presented).into()
    }

    /// The token itself, to present it to another node.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn new(content: &[u8]) -> Result<Self, String> {
        let token = content.trim_ascii_end();
        if !(TOKEN_MIN_BYTES..=TOKEN_MAX_BYTES).contains(&token.len()) {
            return Err(format!(
                "holds {} bytes; a token has {TOKEN_MIN_BYTES} to {TOKEN_MAX_BYTES}",
                token.len()
            ));
        }
        if !token.iter().all(u8::is_ascii_graphic) {
            return Err("holds more than visible ASCII characters".to_owned());
        }
        Ok(Self(token.to_vec()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Shorter tokens can be guessed.
const TOKEN_MIN_BYTES: usize = 16;
/// Longer ones do not fit beside other headers.
const TOKEN_MAX_BYTES: usize = 4096;
