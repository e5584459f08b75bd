//! The body of an order to the node: a short JSON object.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::config::show_bytes;
use crate::http::{Begin, Framing, Head, Refusal, Reply};

use super::kv_fields::KvLimits;
use super::ready_value::ReadyValue;
use super::request_body::RequestBody;

/// Longest body.
const BODY_MAX_BYTES: usize = 16 * 1024;

/// Begins a request with such a body.
pub(crate) fn begin_order(head: &Head<'_>, reply: Reply<'_>) -> Begin<RequestBody> {
    let declared_bytes = match head.framing {
        Framing::Length(bytes) => usize::try_from(bytes).ok(),
        Framing::None => Some(0),
        Framing::Chunked => None,
    };
    if declared_bytes.is_some_and(|bytes| bytes > BODY_MAX_BYTES) {
        let message = format!(
            "the body is longer than {}",
            show_bytes(BODY_MAX_BYTES as u64)
        );
        reply.error(&Refusal::new(413, "body_too_large", message));
        return Begin::Answered;
    }
    let limits = KvLimits {
        key_bytes: 0,
        value_bytes: BODY_MAX_BYTES,
    };
    Begin::Receive(RequestBody::raw(limits, declared_bytes))
}

/// The fields of a body that are not read yet.
///
/// Read by name rather than by derived code, which is several times as large.
pub(crate) struct OrderFields {
    fields: Map<String, Value>,
    /// What the body may look like, for refusals.
    form: &'static str,
}

impl OrderFields {
    /// Reads a body.
    pub(crate) fn read(intake: RequestBody, form: &'static str) -> Result<Self, Refusal> {
        Self::parse(&bytes_in(intake)?, form)
    }

    /// The same where the body may be left out, which is as one without fields.
    pub(crate) fn read_optional(intake: RequestBody, form: &'static str) -> Result<Self, Refusal> {
        match &bytes_in(intake)?[..] {
            [] => Self::parse(b"{}", form),
            bytes => Self::parse(bytes, form),
        }
    }

    fn parse(bytes: &[u8], form: &'static str) -> Result<Self, Refusal> {
        match serde_json::from_slice(bytes) {
            Ok(UniqueFields(fields)) => Ok(Self { fields, form }),
            Err(error) => Err(unlike(form, &error.to_string())),
        }
    }

    /// A field of any kind. Null is as a field that is missing.
    pub(crate) fn value(&mut self, name: &str) -> Option<Value> {
        self.fields.remove(name).filter(|value| !value.is_null())
    }

    /// A number that has to be there.
    pub(crate) fn number(&mut self, name: &str) -> Result<u32, Refusal> {
        let number = self.large_number(name)?;
        number
            .and_then(|number| u32::try_from(number).ok())
            .ok_or_else(|| self.wrong(name, "a number"))
    }

    /// A number of 64 bits that may be missing.
    pub(crate) fn large_number(&mut self, name: &str) -> Result<Option<u64>, Refusal> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        let number = value.as_u64();
        number.map(Some).ok_or_else(|| self.wrong(name, "a number"))
    }

    /// A text that may be missing.
    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, Refusal> {
        match self.value(name) {
            Some(Value::String(text)) => Ok(Some(text)),
            None => Ok(None),
            Some(_) => Err(self.wrong(name, "a text")),
        }
    }

    /// A list of texts. One that is missing is empty.
    pub(crate) fn texts(&mut self, name: &str) -> Result<Vec<String>, Refusal> {
        let list = match self.fields.remove(name) {
            Some(Value::Array(list)) => list,
            None => Vec::new(),
            Some(_) => return Err(self.wrong(name, "a list of texts")),
        };
        let mut texts = Vec::with_capacity(list.len());
        for value in list {
            match value {
                Value::String(text) => texts.push(text),
                _ => return Err(self.wrong(name, "a list of texts")),
            }
        }
        Ok(texts)
    }

    /// A truth value that may be missing.
    pub(crate) fn flag(&mut self, name: &str) -> Result<Option<bool>, Refusal> {
        match self.fields.remove(name) {
            Some(Value::Bool(value)) => Ok(Some(value)),
            None => Ok(None),
            Some(_) => Err(self.wrong(name, "true or false")),
        }
    }

    /// The names of the fields that were not read.
    pub(crate) fn names_left(&self) -> Vec<String> {
        self.fields.keys().cloned().collect()
    }

    /// Refuses what was not read.
    pub(crate) fn end(self) -> Result<(), Refusal> {
        match self.fields.keys().next() {
            Some(name) => Err(unlike(self.form, &format!("unknown field \"{name}\""))),
            None => Ok(()),
        }
    }

    /// The refusal of a field that is missing, or is not what it has to be.
    #[cold]
    pub(crate) fn wrong(&self, name: &str, expected: &str) -> Refusal {
        unlike(self.form, &format!("\"{name}\" has to be {expected}"))
    }
}

/// The fields of an object, each of which is given once.
struct UniqueFields(Map<String, Value>);

impl<'de> Deserialize<'de> for UniqueFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(UniqueFieldsVisitor)
    }
}

struct UniqueFieldsVisitor;

impl<'de> Visitor<'de> for UniqueFieldsVisitor {
    type Value = UniqueFields;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UniqueFields, A::Error> {
        let mut fields = Map::new();
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            if fields.contains_key(&name) {
                return Err(A::Error::custom(format_args!("duplicate field \"{name}\"")));
            }
            fields.insert(name, value);
        }
        Ok(UniqueFields(fields))
    }
}

#[cold]
fn unlike(form: &str, problem: &str) -> Refusal {
    Refusal::bad_request(format!("send {form}: {problem}"))
}

fn bytes_in(intake: RequestBody) -> Result<Vec<u8>, Refusal> {
    Ok(match intake.into_received()?.value {
        Some(ReadyValue::Small(bytes)) => bytes,
        _ => Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a field `x` and a field `y` that is not read.
    fn read(body: &str) -> Result<(Option<u64>, Vec<String>), String> {
        let read = || {
            let mut fields = OrderFields::parse(body.as_bytes(), "{}")?;
            Ok((fields.large_number("x")?, fields.names_left()))
        };
        read().map_err(|refusal: Refusal| refusal.message.to_string())
    }

    #[test]
    fn fields_are_read_by_name() {
        let left = vec!["y".to_owned()];
        assert_eq!(read(r#"{"y":1,"x":2}"#), Ok((Some(2), left.clone())));
        assert_eq!(read(r#"{"y":1,"x":null}"#), Ok((None, left)));
        assert_eq!(read("{}"), Ok((None, Vec::new())));
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (body, told) in [
            (r#"{"x":1,"x":1}"#, "duplicate field \"x\""),
            (r#"{"x":"1"}"#, "\"x\" has to be a number"),
            (r#"{"x":-1}"#, "\"x\" has to be a number"),
            ("[]", "expected an object"),
            ("{} x", "trailing characters"),
            ("", "EOF"),
        ] {
            let problem = read(body).expect_err(body);
            assert!(problem.contains(told), "{body}: {problem}");
        }
    }

    /// A number or a text may be null where it may be missing; a flag or a list may not.
    #[test]
    fn null_is_no_flag_and_no_list() {
        let fields = || OrderFields::parse(br#"{"x":null}"#, "{}").expect("an object");
        assert_eq!(fields().flag("x").map_err(|wrong| wrong.status), Err(400));
        assert_eq!(fields().texts("x").map_err(|wrong| wrong.status), Err(400));
        assert_eq!(fields().flag("y").map_err(|wrong| wrong.status), Ok(None));
        assert_eq!(fields().text("x").map_err(|wrong| wrong.status), Ok(None));
    }
}
