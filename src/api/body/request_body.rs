//! Collects the body of a request: fields as JSON or a form, a batch, or a raw value.
//!
//! Invariants:
//! 1. Memory is bounded by the limits: a body with too long a key or value is refused as soon as
//!    that is known, and all bytes of a body are counted, so that white space cannot go on for
//!    ever.
//! 2. Memory of a body is claimed ([`BodyClaim`]) before it is allocated; where text is decoded,
//!    right after, and then it has at most doubled.
//! 3. The work of a call is proportional to the piece that it gets; work after the last byte
//!    (decoding, the checksum of a large value) is done in steps.

use crate::http::{self, Head, Refusal};
use crate::node::{BodyClaim, ClaimRefusal};

use crate::api::body::batch_body::{BatchBody, BatchOperation};
use crate::api::body::form_body::FormBody;
use crate::api::body::json_body::JsonBody;
use crate::api::body::kv_fields::{AllowedFields, KvFields, KvLimits, KvParts, value_too_large};
use crate::api::body::ready_value::{ReadyValue, STEP_BYTES, ready};
use crate::api::request::values::JSON;
use crate::api::request::values::is_media_type;

/// First allocation for a raw value. More is allocated only as bytes arrive, whatever
/// Content-Length says.
const FIRST_RESERVE_BYTES: usize = 64 * 1024;

/// A byte of a value takes at most six bytes of JSON (`\u00XX`); the overhead is for the rest of
/// the body.
const TEXT_EXPANSION: usize = 6;
const TEXT_OVERHEAD_BYTES: usize = 64 * 1024;

/// The state of a body. Large variants are boxed, since a body is moved several times.
#[derive(Debug)]
enum BodyState {
    /// Nothing has arrived; the first byte decides between JSON and a form.
    Unknown {
        content_type: ContentType,
        allowed: AllowedFields,
    },
    Json(JsonBody),
    Form(FormBody),
    Batch(Box<BatchBody>),
    Raw {
        value: Vec<u8>,
        declared_bytes: Option<usize>,
    },
    /// All text has arrived; a base64 value is being decoded.
    Fields(Box<KvFields>),
    /// Complete, but for the checksum of a large value.
    Whole(BodyFields),
}

/// The contents of a body, each none if it is missing.
#[derive(Debug, Default)]
pub(crate) struct BodyFields {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<ReadyValue>,
    pub(crate) ttl_ms: Option<u64>,
}

impl BodyFields {
    /// Heap of key and value.
    fn heap_bytes(&self) -> usize {
        let value_bytes = match &self.value {
            Some(ReadyValue::Small(bytes)) => bytes.capacity(),
            Some(ReadyValue::Large(large)) => large.blob().capacity(),
            None => 0,
        };
        self.key.as_ref().map_or(0, Vec::capacity) + value_bytes
    }
}

/// The kind of a body by Content-Type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ContentType {
    Json,
    Form,
    Other,
}

/// Collects one body.
#[derive(Debug)]
pub struct RequestBody {
    state: BodyState,
    limits: KvLimits,
    received_bytes: usize,
    /// Its share of the memory for request bodies (`--max-upload-memory`).
    claim: Option<Box<BodyClaim>>,
}

impl RequestBody {
    /// For a body that is the value itself. `declared_bytes` is its length, if the request declares
    /// it.
    pub(crate) fn raw(limits: KvLimits, declared_bytes: Option<usize>) -> Self {
        Self {
            state: BodyState::Raw {
                value: Vec::new(),
                declared_bytes,
            },
            limits,
            received_bytes: 0,
            claim: None,
        }
    }

    /// For a body with fields, as JSON or a form.
    pub(crate) fn fields(limits: KvLimits, allowed: AllowedFields, head: &Head<'_>) -> Self {
        let content_type = content_type_of(head);
        Self {
            state: BodyState::Unknown {
                content_type,
                allowed,
            },
            limits,
            received_bytes: 0,
            claim: None,
        }
    }

    /// For a body with a batch of operations.
    pub(crate) fn batch(limits: KvLimits) -> Self {
        Self {
            state: BodyState::Batch(Box::new(BatchBody::new(limits))),
            limits,
            received_bytes: 0,
            claim: None,
        }
    }

    /// The same with a claim on memory.
    pub(crate) fn claiming(self, claim: BodyClaim) -> Self {
        Self {
            claim: Some(Box::new(claim)),
            ..self
        }
    }

    /// Memory that it claims of `--max-upload-memory`.
    pub fn claimed_bytes(&self) -> usize {
        self.claim.as_ref().map_or(0, |claim| claim.bytes())
    }

    /// The operations of a batch.
    pub(crate) fn into_operations(self) -> Vec<BatchOperation> {
        match self.state {
            BodyState::Batch(body) => body.into_operations(),
            _ => Vec::new(),
        }
    }

    /// The contents, once the body is complete.
    pub(crate) fn into_received(self) -> Result<BodyFields, Refusal> {
        match self.state {
            BodyState::Whole(received) => Ok(received),
            _ => Err(empty_body()),
        }
    }

    fn push_unknown(
        &mut self,
        data: &[u8],
        content_type: ContentType,
        allowed: AllowedFields,
    ) -> Result<(), Refusal> {
        let Some(at) = data.iter().position(|byte| !byte.is_ascii_whitespace()) else {
            return Ok(());
        };
        // `curl -d` declares a form whatever it sends.
        self.state = match content_type {
            _ if data[at] == b'{' => BodyState::Json(JsonBody::new(self.limits, allowed)),
            ContentType::Json => BodyState::Json(JsonBody::new(self.limits, allowed)),
            ContentType::Form => BodyState::Form(FormBody::new(self.limits, allowed)),
            ContentType::Other => return Err(unsupported()),
        };
        self.push_text(&data[at..])
    }

    fn push_text(&mut self, data: &[u8]) -> Result<(), Refusal> {
        match &mut self.state {
            BodyState::Json(body) => body.push(data),
            BodyState::Form(body) => body.push(data),
            _ => Ok(()),
        }
    }

    fn push_raw(&mut self, data: &[u8]) -> Result<(), Refusal> {
        let BodyState::Raw {
            value,
            declared_bytes,
        } = &mut self.state
        else {
            return Ok(());
        };
        if data.len() > self.limits.value_bytes - value.len() {
            return Err(value_too_large(self.limits.value_bytes));
        }
        let free_bytes = value.capacity() - value.len();
        if free_bytes < data.len() {
            // Doubling, up to the declared length or the longest value, so that a value ends up in
            // a buffer of its length.
            let wanted = (value.capacity() * 2).max(FIRST_RESERVE_BYTES);
            let most = declared_bytes.unwrap_or(self.limits.value_bytes);
            let wanted = wanted.min(most).max(value.len() + data.len());
            if let Some(claim) = &mut self.claim {
                claim.hold(wanted).map_err(claim_refused)?;
            }
            value.reserve_exact(wanted - value.len());
        }
        value.extend_from_slice(data);
        Ok(())
    }

    /// Adds to the claim what the text has allocated.
    fn hold(&mut self) -> Result<(), Refusal> {
        let bytes = http::BodySink::heap_bytes(self);
        match &mut self.claim {
            Some(claim) => claim.hold(bytes).map_err(claim_refused),
            None => Ok(()),
        }
    }

    /// The longest text that can hold the longest value.
    fn text_max_bytes(&self) -> usize {
        self.limits.value_bytes.saturating_mul(TEXT_EXPANSION) + TEXT_OVERHEAD_BYTES
    }

    fn take_state(&mut self) -> BodyState {
        std::mem::replace(&mut self.state, BodyState::Whole(BodyFields::default()))
    }
}

impl http::BodySink for RequestBody {
    fn expect(&mut self, bytes: u64) -> Result<(), Refusal> {
        let fits = |room_bytes: usize| bytes <= room_bytes as u64;
        match &self.state {
            BodyState::Raw { value, .. } if fits(self.limits.value_bytes - value.len()) => Ok(()),
            BodyState::Raw { .. } => Err(value_too_large(self.limits.value_bytes)),
            BodyState::Batch(body) => body.expect(bytes),
            _ if fits(self.text_max_bytes().saturating_sub(self.received_bytes)) => Ok(()),
            _ => Err(value_too_large(self.limits.value_bytes)),
        }
    }

    fn push(&mut self, data: &[u8]) -> Result<(), Refusal> {
        match &mut self.state {
            BodyState::Raw { .. } => return self.push_raw(data),
            BodyState::Batch(body) => {
                body.push(data)?;
                return self.hold();
            }
            _ => {}
        }
        self.received_bytes = self.received_bytes.saturating_add(data.len());
        if self.received_bytes > self.text_max_bytes() {
            return Err(value_too_large(self.limits.value_bytes));
        }
        match self.state {
            BodyState::Unknown {
                content_type,
                allowed,
            } => self.push_unknown(data, content_type, allowed),
            _ => self.push_text(data),
        }?;
        self.hold()
    }

    fn heap_bytes(&self) -> usize {
        match &self.state {
            BodyState::Unknown { .. } => 0,
            BodyState::Json(body) => size_of::<KvFields>() + body.heap_bytes(),
            BodyState::Form(body) => size_of::<KvFields>() + body.heap_bytes(),
            BodyState::Batch(body) => size_of::<BatchBody>() + body.heap_bytes(),
            BodyState::Raw { value, .. } => value.capacity(),
            BodyState::Fields(fields) => size_of::<KvFields>() + fields.heap_bytes(),
            BodyState::Whole(received) => received.heap_bytes(),
        }
    }

    fn step(&mut self) -> Result<bool, Refusal> {
        match &mut self.state {
            BodyState::Unknown { .. } => Err(empty_body()),
            BodyState::Batch(body) => body.step(),
            BodyState::Fields(fields) => {
                if !fields.step()? {
                    return Ok(false);
                }
                let BodyState::Fields(fields) = self.take_state() else {
                    return Ok(true);
                };
                let KvParts {
                    key, value, ttl_ms, ..
                } = fields.into_parts()?;
                self.state = BodyState::Whole(BodyFields {
                    key,
                    value: value.map(ready),
                    ttl_ms,
                });
                self.step()
            }
            BodyState::Json(_) | BodyState::Form(_) => {
                self.state = BodyState::Fields(match self.take_state() {
                    BodyState::Json(body) => body.end()?,
                    BodyState::Form(body) => body.end()?,
                    _ => return Ok(true),
                });
                self.step()
            }
            BodyState::Raw { value, .. } => {
                let value = ready(std::mem::take(value));
                self.state = BodyState::Whole(BodyFields {
                    value: Some(value),
                    ..BodyFields::default()
                });
                self.step()
            }
            BodyState::Whole(BodyFields {
                value: Some(ReadyValue::Large(large)),
                ..
            }) => Ok(large.step(STEP_BYTES)),
            BodyState::Whole(_) => Ok(true),
        }
    }
}

fn content_type_of(head: &Head<'_>) -> ContentType {
    match head.content_type {
        Some(value) if is_media_type(value, JSON) => ContentType::Json,
        Some(value) if is_media_type(value, "application/x-www-form-urlencoded") => {
            ContentType::Form
        }
        _ => ContentType::Other,
    }
}

/// The refusal of a body for which there is no memory.
#[cold]
pub(crate) fn claim_refused(refusal: ClaimRefusal) -> Refusal {
    let refusal = match refusal {
        ClaimRefusal::Memory => crate::api::errors::memory_limit(),
        ClaimRefusal::Share => {
            let message = "other requests on their way take the memory that there is for their \
                           bodies: try again, or start the node with a higher --max-upload-memory";
            Refusal::new(507, "upload_limit", message)
        }
    };
    refusal.with_header("Retry-After", "1")
}

/// The answer to an upload that was ended because memory was short.
#[cold]
pub fn upload_too_slow() -> Refusal {
    let message =
        "memory is short, and this upload was among the slowest: send it again without pauses";
    Refusal::new(507, "upload_too_slow", message)
}

#[cold]
fn empty_body() -> Refusal {
    Refusal::bad_request(
        "the body is empty: send JSON such as {\"key\":\"k\",\"value\":\"v\"}, or name the key \
         with ?key=",
    )
}

#[cold]
fn unsupported() -> Refusal {
    let message = "send a JSON object, a form, or the raw value with ?key= in the address";
    Refusal::new(415, "unsupported_media_type", message)
}
