//! Keys and parameters in the address.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::http::{Refusal, Target};
use crate::lsm::KEY_MAX_BYTES;

use crate::api::request::params::{Param, ParamSet};
use crate::api::request::percent::{BadEscape, Plus, decode};
use crate::api::request::values::number;

/// A raw query string.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query<'b> {
    raw: &'b [u8],
    is_literal: bool,
    /// The parameters that it has; it is not searched for others.
    params: ParamSet,
}

impl<'b> Query<'b> {
    /// The query of a request, without its `?`.
    #[inline]
    pub(crate) fn new(target: Target<'b>) -> Self {
        Self::with(target, ParamSet::ALL)
    }

    /// The query of a request, given the parameters that it has.
    #[inline]
    pub(crate) fn with(target: Target<'b>, params: ParamSet) -> Self {
        Self {
            raw: target.query.unwrap_or_default(),
            is_literal: target.is_literal,
            params,
        }
    }

    /// Decoded names and raw values, in order. A name that cannot be decoded stays as it is.
    #[inline]
    pub(crate) fn pairs(self) -> impl Iterator<Item = (Cow<'b, [u8]>, &'b [u8])> {
        let mut rest = Some(self.raw);
        std::iter::from_fn(move || {
            loop {
                let text = rest?;
                let pair;
                (pair, rest) = match memchr::memchr(b'&', text) {
                    Some(at) => (&text[..at], Some(&text[at + 1..])),
                    None => (text, None),
                };
                let (name, value) = match memchr::memchr(b'=', pair) {
                    Some(at) => (&pair[..at], &pair[at + 1..]),
                    // Nothing stands between two `&`: skip it.
                    None if pair.is_empty() => continue,
                    None => (pair, &[][..]),
                };
                let decoded = decode(name, Plus::Space, self.is_literal);
                return Some((decoded.unwrap_or(Cow::Borrowed(name)), value));
            }
        })
    }

    /// The decoded value of a parameter; none if it is missing. No parameter is there twice
    /// (`takes.rs`).
    #[inline]
    pub(crate) fn get(self, param: Param) -> Result<Option<Cow<'b, [u8]>>, Refusal> {
        // Most requests have no parameters: then nothing is searched.
        if !self.params.has(param) {
            return Ok(None);
        }
        self.find(param)
    }

    #[inline(never)]
    fn find(self, param: Param) -> Result<Option<Cow<'b, [u8]>>, Refusal> {
        let name = param.name();
        let mut pairs = self.pairs();
        let Some((_, raw)) = pairs.find(|(other, _)| **other == *name.as_bytes()) else {
            return Ok(None);
        };
        decode(raw, Plus::Space, self.is_literal).map(Some).map_err(|BadEscape| {
            bad_query(format!(
                "?{name}= has a % that is not followed by two hexadecimal digits: send %25 for a \
                 percent sign"
            ))
        })
    }

    /// The bytes of a parameter, none if it is missing. `encoding` is the parameter that says that
    /// they are base64.
    pub(crate) fn bytes(
        self,
        param: Param,
        encoding_param: Param,
    ) -> Result<Option<Vec<u8>>, Refusal> {
        let value = self.get(param)?;
        match (value, self.get(encoding_param)?.as_deref()) {
            (value, None | Some(b"utf-8")) => Ok(value.map(Cow::into_owned)),
            (None, Some(b"base64")) => Ok(None),
            (Some(value), Some(b"base64")) => STANDARD.decode(&value[..]).map(Some).map_err(|_| {
                bad_query(format!(
                    "?{}= is not base64: percent-encode it, + as %2B",
                    param.name()
                ))
            }),
            _ => Err(bad_query(format!(
                "?{}= must be base64, or left out",
                encoding_param.name()
            ))),
        }
    }

    /// A parameter that is `true` or `false`; none if it is missing.
    pub(crate) fn flag(self, param: Param) -> Result<Option<bool>, Refusal> {
        match self.get(param)?.as_deref() {
            None => Ok(None),
            Some(b"true" | b"1") => Ok(Some(true)),
            Some(b"false" | b"0") => Ok(Some(false)),
            Some(_) => Err(bad_query(format!(
                "?{}= must be true or false",
                param.name()
            ))),
        }
    }

    /// A parameter that is a number; none if it is missing. `meaning` is for the refusal.
    pub(crate) fn number(self, param: Param, meaning: &str) -> Result<Option<u64>, Refusal> {
        let Some(value) = self.get(param)? else {
            return Ok(None);
        };
        number(&value)
            .map(Some)
            .ok_or_else(|| bad_query(format!("?{}= must be {meaning}: a number", param.name())))
    }
}

/// The key of a `/kv/{key}` path, given the part behind `/kv/`.
#[inline]
pub(crate) fn decode_path_key(raw: &[u8], is_literal: bool) -> Result<Cow<'_, [u8]>, Refusal> {
    decode(raw, Plus::Plus, is_literal).map_err(|BadEscape| {
        let message = "the path has a % that is not followed by two hexadecimal digits: send %25 \
                       for a percent sign";
        Refusal::new(400, "bad_path", message)
    })
}

/// Refuses keys that are empty or too long. Keys from paths, queries and bodies all pass here.
#[inline]
pub(crate) fn check_key(key: &[u8]) -> Result<(), Refusal> {
    match key.len() {
        0 => Err(Refusal::new(
            400,
            "key_empty",
            "the key is empty: a key has 1 to 4096 bytes",
        )),
        1..=KEY_MAX_BYTES => Ok(()),
        _ => Err(key_too_long()),
    }
}

/// The refusal of a key that is too long, also before all of it has arrived.
#[cold]
pub(crate) fn key_too_long() -> Refusal {
    Refusal::new(
        414,
        "key_too_long",
        "the key is too long: a key has 1 to 4096 bytes",
    )
}

#[cold]
fn bad_query(message: String) -> Refusal {
    Refusal::new(400, "bad_query", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_and_decoded() {
        for (query, expected) in [
            ("key=a", Ok(Some("a"))),
            ("other=1&key=a+b%20c&keys=2", Ok(Some("a b c"))),
            ("key=a=b", Ok(Some("a=b"))),
            ("key=", Ok(Some(""))),
            ("key", Ok(Some(""))),
            ("akey=1&keyb=2", Ok(None)),
            ("k%65y=a", Ok(Some("a"))),
            ("", Ok(None)),
            ("key=%f", Err(400)),
        ] {
            let target = Target {
                path: b"/",
                query: Some(query.as_bytes()),
                is_literal: false,
            };
            let found = Query::new(target).get(Param::Key);
            let found = found
                .map(|value| value.map(Cow::into_owned))
                .map_err(|refusal| refusal.status);
            assert_eq!(
                found,
                expected.map(|value| value.map(|text| text.as_bytes().to_vec())),
                "{query}"
            );
        }
    }

    #[test]
    fn keys_have_one_to_4096_bytes() {
        assert!(check_key(b"k").is_ok() && check_key(&[0; KEY_MAX_BYTES]).is_ok());
        assert_eq!(check_key(b"").map_err(|refusal| refusal.status), Err(400));
        assert_eq!(
            check_key(&[0; KEY_MAX_BYTES + 1]).map_err(|refusal| refusal.status),
            Err(414)
        );
    }
}
