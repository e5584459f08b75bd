//! What etcd answers: JSON bodies of ranges, transactions and errors.
//!
//! Numbers of 64 bits come as strings, or as numbers. Fields that are zero, empty or false are left
//! out, so a missing field says just that; the revision in the header is never zero, so a body
//! without one is not etcd's.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;

use super::failure::Failure;

/// Longest answer.
pub const ANSWER_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Most objects of a JSON body. One of seven bytes takes a hundred times as much memory.
const OBJECTS_MAX: usize = 64 * 1024;

/// Most elements of a JSON body, all together: eight for each of 32,768 keys.
const ELEMENTS_MAX: usize = 256 * 1024;

/// Longest text of an error that is kept.
const MESSAGE_MAX_CHARS: usize = 200;

/// A key of etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// Its name.
    pub key: String,
    /// The revision of its last change.
    pub mod_revision: u64,
    /// Its value.
    pub value: Vec<u8>,
}

/// What etcd answers to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a range.
    Range {
        /// Which etcd answers: another one where it was made anew. 0: it does not say.
        cluster_id: u64,
        /// The revision of etcd that this shows.
        revision: u64,
        /// The keys in order. Those that are not UTF-8 are left out.
        values: Vec<KeyValue>,
    },
    /// All is written.
    Written {
        /// The revision that each key written has now.
        revision: u64,
    },
    /// Nothing was written: a compared key has another revision.
    Refused {
        /// The revision of etcd that this shows.
        revision: u64,
        /// Those of the compared keys that are there.
        current: Vec<KeyValue>,
    },
}

/// How a request has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The number that came with the request.
    pub ticket: u64,
    /// The answer; or a failure, after which it is unknown what etcd did.
    pub result: Result<Answer, Failure>,
}

/// The JSON in a body, or in a value.
pub fn parse_json(body: &[u8]) -> Result<Json, Failure> {
    let count = |sign: u8| memchr::memchr_iter(sign, body).count();
    if count(b'{') > OBJECTS_MAX || count(b',') > ELEMENTS_MAX {
        return Err(Failure::Malformed("too many elements"));
    }
    serde_json::from_slice(body).map_err(|_| Failure::Malformed("no JSON"))
}

/// The answer to a range in the body of a 200.
pub(super) fn parse_range(body: &Json) -> Result<Answer, Failure> {
    let mut values = Vec::new();
    add_values(body, &mut values)?;
    let revision = revision(body)?;
    let cluster_id = number(field(body, "header"), "cluster_id").unwrap_or(0);
    Ok(Answer::Range {
        cluster_id,
        revision,
        values,
    })
}

/// The answer to a transaction in the body of a 200.
pub(super) fn parse_write(body: &Json) -> Result<Answer, Failure> {
    let revision = revision(body)?;
    if is_true(body, "succeeded") {
        return Ok(Answer::Written { revision });
    }
    let mut current = Vec::new();
    for response in list(body, "responses") {
        add_values(field(response, "response_range"), &mut current)?;
    }
    Ok(Answer::Refused { revision, current })
}

/// The error in the body of another status.
pub(super) fn parse_error(status: u16, body: &[u8]) -> Failure {
    match parse_json(body) {
        Ok(body) => error_in(&body).unwrap_or(Failure::Error {
            code: 0,
            message: format!("status {status}"),
        }),
        Err(_) => Failure::Error {
            code: 0,
            message: format!("status {status}: {}", cut(&String::from_utf8_lossy(body))),
        },
    }
}

/// The error that an object describes: `{"error":"…","code":3}` of etcd 3.4,
/// `{"message":"…","code":3}` of 3.6, and `{"error":{"message":"…","grpc_code":14}}` of
/// streams.
pub(super) fn error_in(body: &Json) -> Option<Failure> {
    let of_stream = field(body, "error");
    let error = if of_stream.is_object() {
        of_stream
    } else {
        body
    };
    let text = |name: &str| field(error, name).as_str();
    let message = cut(text("message").or_else(|| text("error"))?);
    let code = number(error, "code").filter(|code| *code > 0);
    let code = code.or_else(|| number(error, "grpc_code")).unwrap_or(0);
    Some(Failure::Error { code, message })
}

/// The beginning of a text, up to the end of its line.
pub(super) fn cut(text: &str) -> String {
    let is_printable = |c: &char| !c.is_control();
    let printable = text.chars().take_while(is_printable);
    printable.take(MESSAGE_MAX_CHARS).collect()
}

/// A field; null if it is missing.
#[inline(never)]
pub(super) fn field<'j>(object: &'j Json, name: &str) -> &'j Json {
    object.get(name).unwrap_or(&Json::Null)
}

pub(super) fn is_true(object: &Json, name: &str) -> bool {
    *field(object, name) == Json::Bool(true)
}

/// A number, which may be in a string; 0 if it is missing.
pub(super) fn number(object: &Json, name: &str) -> Option<u64> {
    match field(object, name) {
        Json::Null => Some(0),
        Json::String(digits) => digits.parse().ok(),
        number => number.as_u64(),
    }
}

/// The elements of a list; none if it is missing.
pub(super) fn list<'j>(object: &'j Json, name: &str) -> &'j [Json] {
    field(object, name).as_array().map_or(&[], |list| &list[..])
}

fn revision(body: &Json) -> Result<u64, Failure> {
    number(field(body, "header"), "revision")
        .filter(|revision| *revision > 0)
        .ok_or(Failure::Malformed("no revision"))
}

fn add_values(range: &Json, values: &mut Vec<KeyValue>) -> Result<(), Failure> {
    for pair in list(range, "kvs") {
        let mod_revision = number(pair, "mod_revision").filter(|revision| *revision > 0);
        let mod_revision = mod_revision.ok_or(Failure::Malformed("a key without revision"))?;
        let value = bytes(pair, "value")?;
        if let Ok(key) = String::from_utf8(bytes(pair, "key")?) {
            values.push(KeyValue {
                key,
                mod_revision,
                value,
            });
        }
    }
    Ok(())
}

fn bytes(object: &Json, name: &str) -> Result<Vec<u8>, Failure> {
    let text = field(object, name).as_str().unwrap_or_default();
    let decoded = STANDARD.decode(text);
    decoded.map_err(|_| Failure::Malformed("illegal base64"))
}
