//! The body of an order to the node: a short JSON object.

use serde::de::DeserializeOwned;
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

/// Reads the body; `form` is what it may look like, for the refusal.
pub(crate) fn order_in<T: DeserializeOwned>(intake: RequestBody, form: &str) -> Result<T, Refusal> {
    let bytes = bytes_in(intake)?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Refusal::bad_request(format!("send {form}: {error}")))
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
    /// Reads a body. None is as one without fields.
    pub(crate) fn read(intake: RequestBody, form: &'static str) -> Result<Self, Refusal> {
        let bytes = bytes_in(intake)?;
        let fields = match serde_json::from_slice(&bytes) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) => return Err(unlike(form, "it is no object")),
            Err(_) if bytes.is_empty() => Map::new(),
            Err(error) => return Err(unlike(form, &error.to_string())),
        };
        Ok(Self { fields, form })
    }

    /// A number that has to be there.
    pub(crate) fn number(&mut self, name: &str) -> Result<u32, Refusal> {
        let number = self.fields.remove(name).and_then(|value| value.as_u64());
        number
            .and_then(|number| u32::try_from(number).ok())
            .ok_or_else(|| unlike(self.form, &format!("\"{name}\" is no number")))
    }

    /// A text that may be missing.
    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, Refusal> {
        match self.fields.remove(name) {
            Some(Value::String(text)) => Ok(Some(text)),
            None | Some(Value::Null) => Ok(None),
            Some(_) => Err(unlike(self.form, &format!("\"{name}\" is no text"))),
        }
    }

    /// A truth value that may be missing.
    pub(crate) fn flag(&mut self, name: &str) -> Result<Option<bool>, Refusal> {
        match self.fields.remove(name) {
            Some(Value::Bool(value)) => Ok(Some(value)),
            None => Ok(None),
            Some(_) => Err(unlike(
                self.form,
                &format!("\"{name}\" is not true or false"),
            )),
        }
    }

    /// Refuses what was not read.
    pub(crate) fn end(self) -> Result<(), Refusal> {
        match self.fields.keys().next() {
            Some(name) => Err(unlike(self.form, &format!("unknown field \"{name}\""))),
            None => Ok(()),
        }
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
