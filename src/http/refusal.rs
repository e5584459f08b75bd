//! Why a request is turned down: a status, a word for machines and a sentence for people.
//!
//! Invariants:
//! 1. `code` is a lower-case word that stays the same when the wording of `message` changes.
//! 2. `message` says what is wrong and what to do about it.
//! 3. A refusal never repeats peer bytes unescaped: [`Refusal::to_json`] is the only way out, and
//!    it escapes.
//!
//! Not here: which refusals close the connection (`connection.rs`: those of the head and of the
//! framing do, those of a handler or a sink do not), and headers that follow from the status,
//! such as `Allow` or `Retry-After` (the api layer).

use std::borrow::Cow;
use std::ops::Deref;

/// A request turned down. As large as a pointer: what may be refused is returned in registers, and
/// that nothing is costs little.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(Box<RefusalParts>);

/// What a refusal says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusalParts {
    /// The status of the response.
    pub status: u16,
    /// A word for machines, e.g. `bad_request`.
    pub code: &'static str,
    /// What is wrong and what to do, e.g. "Content-Length given more than once: send it once".
    pub message: Cow<'static, str>,
    /// Headers that go with it, names and values.
    pub headers: Vec<(&'static str, Box<str>)>,
}

impl Refusal {
    /// A refusal with this status, code and message.
    #[cold]
    pub fn new(status: u16, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(RefusalParts {
            status,
            code,
            message: message.into(),
            headers: Vec::new(),
        }))
    }

    /// The same with one more header.
    #[cold]
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: &str) -> Self {
        self.0.headers.push((name, value.into()));
        self
    }

    /// The same in other words.
    #[cold]
    #[must_use]
    pub fn with_message(self, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(RefusalParts {
            message: message.into(),
            ..*self.0
        }))
    }

    /// `400 bad_request`.
    #[cold]
    pub fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(400, "bad_request", message)
    }

    /// The body of the response: `{"success":false,"error":"the message","code":"the_code"}`, and a
    /// newline.
    #[cold]
    pub fn to_json(&self) -> Vec<u8> {
        #[derive(serde::Serialize)]
        struct RefusalJson<'r> {
            success: bool,
            error: &'r str,
            code: &'r str,
        }
        json_line(&RefusalJson {
            success: false,
            error: &self.message,
            code: self.code,
        })
    }
}

/// A JSON body. It ends with a newline, as all of them do: on a terminal the prompt then begins a
/// line of its own.
pub fn json_line<T: serde::Serialize>(fields: &T) -> Vec<u8> {
    // Plain fields always serialize into memory; an empty body would still leave the status.
    let mut body = serde_json::to_vec(fields).unwrap_or_default();
    body.push(b'\n');
    body
}

impl Deref for Refusal {
    type Target = RefusalParts;

    fn deref(&self) -> &RefusalParts {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_escaped() {
        let refusal = Refusal::new(404, "not_found", "no \"such\"\nthing");
        let body = refusal.to_json();
        let golden =
            b"{\"success\":false,\"error\":\"no \\\"such\\\"\\nthing\",\"code\":\"not_found\"}\n";
        assert_eq!(
            String::from_utf8_lossy(&body),
            String::from_utf8_lossy(golden)
        );
    }
}
