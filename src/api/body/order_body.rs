//! The body of an order to the node: a short JSON object.

use serde::de::DeserializeOwned;

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

/// The same where the body may be left out.
pub(crate) fn optional_order_in<T: DeserializeOwned + Default>(
    intake: RequestBody,
    form: &str,
) -> Result<T, Refusal> {
    let bytes = bytes_in(intake)?;
    if bytes.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| Refusal::bad_request(format!("send {form}, or no body: {error}")))
}

fn bytes_in(intake: RequestBody) -> Result<Vec<u8>, Refusal> {
    Ok(match intake.into_received()?.value {
        Some(ReadyValue::Small(bytes)) => bytes,
        _ => Vec::new(),
    })
}
