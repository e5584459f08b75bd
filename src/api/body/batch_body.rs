//! The body of `/batch`, decoded as it arrives: `{"ops":[{"op":"set",…},…]}`.
//!
//! Invariants:
//! 1. Any cut of the text into pieces gives the same operations or the same refusal.
//! 2. A batch has at most [`BATCH_MAX_BYTES`] of text and [`OPERATIONS_MAX`] operations: what one
//!    turn of the loop can execute.
//!
//! Not here: one operation's text (`json_body.rs`), what operations do (`endpoint/batch.rs`).

use std::collections::VecDeque;

use crate::config::show_bytes;
use crate::http::Refusal;
use crate::partition::Conditions;

use crate::api::body::json_body::JsonBody;
use crate::api::body::kv_fields::{AllowedFields, KvFields, KvLimits, KvParts};
use crate::api::body::ready_value::{ReadyValue, STEP_BYTES, ready};

/// Longest text of a batch, which is executed without another request in between.
pub(crate) const BATCH_MAX_BYTES: usize = 1024 * 1024;

/// Most operations of a batch.
pub(crate) const OPERATIONS_MAX: usize = 1_000;

/// Operations finished in one step, if no value has to be decoded.
const STEP_OPERATIONS: usize = 100;

/// One operation, ready to be executed.
#[derive(Debug)]
pub(crate) struct BatchOperation {
    pub(crate) key: Vec<u8>,
    pub(crate) action: BatchAction,
    pub(crate) conditions: Conditions,
}

/// What it does.
#[derive(Debug)]
pub(crate) enum BatchAction {
    Set {
        value: ReadyValue,
        ttl_ms: Option<u64>,
    },
    Delete,
    Get,
}

/// What is expected next, outside of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BatchState {
    Object,
    /// The opening quote of the name.
    Quote,
    /// This many bytes of the name were read.
    Name(usize),
    Colon,
    Array,
    /// The first operation, or the end of an empty list.
    First,
    Next,
    InOperation,
    AfterOperation,
    EndOfObject,
    /// White space only.
    End,
}

const NAME: &[u8] = b"ops";

/// The decoder.
#[derive(Debug)]
pub(crate) struct BatchBody {
    limits: KvLimits,
    state: BatchState,
    current: Option<Box<JsonBody>>,
    /// Operations with their whole text.
    texts: VecDeque<Box<KvFields>>,
    operations: Vec<BatchOperation>,
    received_bytes: usize,
}

impl BatchBody {
    pub(crate) fn new(limits: KvLimits) -> Self {
        let (texts, operations) = (VecDeque::new(), Vec::new());
        Self {
            limits,
            state: BatchState::Object,
            current: None,
            texts,
            operations,
            received_bytes: 0,
        }
    }

    /// Roughly the heap in use: buffers of text double as they grow, and each operation has a few
    /// fields.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.received_bytes * 2 + (self.texts.len() + self.operations.len()) * size_of::<KvFields>()
    }

    /// `bytes` more bytes are declared.
    pub(crate) fn expect(&self, bytes: u64) -> Result<(), Refusal> {
        if bytes > (BATCH_MAX_BYTES - self.received_bytes) as u64 {
            return Err(too_large());
        }
        Ok(())
    }

    /// Takes in the next piece.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        self.received_bytes += piece.len();
        if self.received_bytes > BATCH_MAX_BYTES {
            return Err(too_large());
        }
        let mut rest = piece;
        while let Some(&byte) = rest.first() {
            if let Some(current) = &mut self.current {
                let index = self.texts.len();
                let used = current
                    .push_object(rest)
                    .map_err(|refusal| about_operation(index, refusal))?;
                rest = &rest[used..];
                self.end_operation()?;
                continue;
            }
            if !byte.is_ascii_whitespace() || matches!(self.state, BatchState::Name(_)) {
                self.read_structure(byte)?;
            }
            // The opening brace is part of the operation's text.
            if self.state == BatchState::InOperation {
                self.current = Some(Box::new(JsonBody::new(
                    self.limits,
                    AllowedFields::Operation,
                )));
            } else {
                rest = &rest[1..];
            }
        }
        Ok(())
    }

    fn end_operation(&mut self) -> Result<(), Refusal> {
        let Some(current) = self.current.take_if(|current| current.is_whole()) else {
            return Ok(());
        };
        self.state = BatchState::AfterOperation;
        if self.texts.len() == OPERATIONS_MAX {
            return Err(too_large());
        }
        self.texts.push_back(current.end()?);
        Ok(())
    }

    fn read_structure(&mut self, byte: u8) -> Result<(), Refusal> {
        self.state = match (self.state, byte) {
            (BatchState::Object, b'{') => BatchState::Quote,
            (BatchState::Quote, b'"') => BatchState::Name(0),
            (BatchState::Name(read), b'"') if read == NAME.len() => BatchState::Colon,
            (BatchState::Name(read), byte) if NAME.get(read) == Some(&byte) => {
                BatchState::Name(read + 1)
            }
            (BatchState::Colon, b':') => BatchState::Array,
            (BatchState::Array, b'[') => BatchState::First,
            (BatchState::First | BatchState::Next, b'{') => BatchState::InOperation,
            (BatchState::AfterOperation, b',') => BatchState::Next,
            (BatchState::First | BatchState::AfterOperation, b']') => BatchState::EndOfObject,
            (BatchState::EndOfObject, b'}') => BatchState::End,
            _ => return Err(malformed()),
        };
        Ok(())
    }

    /// One step of the work after the last byte; true when there is none left.
    pub(crate) fn step(&mut self) -> Result<bool, Refusal> {
        if self.state != BatchState::End {
            return Err(malformed());
        }
        for _ in 0..STEP_OPERATIONS {
            if let Some(BatchOperation {
                action:
                    BatchAction::Set {
                        value: ReadyValue::Large(large),
                        ..
                    },
                ..
            }) = self.operations.last_mut()
                && !large.step(STEP_BYTES)
            {
                return Ok(false);
            }
            let Some(fields) = self.texts.front_mut() else {
                return Ok(true);
            };
            let about = |refusal| about_operation(self.operations.len(), refusal);
            // A value in base64 is decoded a piece at a time.
            if !fields.step().map_err(about)? {
                return Ok(false);
            }
            let Some(fields) = self.texts.pop_front() else {
                return Ok(true);
            };
            let operation = fields.into_parts().and_then(operation).map_err(about)?;
            self.operations.push(operation);
        }
        Ok(false)
    }

    /// The operations, once `step` has returned true.
    pub(crate) fn into_operations(self) -> Vec<BatchOperation> {
        self.operations
    }
}

fn operation(parts: KvParts) -> Result<BatchOperation, Refusal> {
    let KvParts {
        key,
        value,
        ttl_ms,
        op,
        conditions,
    } = parts;
    let key = key.ok_or_else(|| {
        Refusal::new(
            400,
            "key_missing",
            "no key: an operation needs a field \"key\"",
        )
    })?;
    let action = match (op.as_deref(), value) {
        (Some(b"set"), Some(value)) => BatchAction::Set {
            value: ready(value),
            ttl_ms,
        },
        (Some(b"set"), None) => {
            return Err(Refusal::new(
                400,
                "value_missing",
                "no value: a set needs a field \"value\"",
            ));
        }
        (Some(b"delete"), None) if ttl_ms.is_none() => BatchAction::Delete,
        (Some(b"get"), None) if ttl_ms.is_none() && conditions.is_empty() => BatchAction::Get,
        (Some(b"delete" | b"get"), _) => {
            let message = "only a set has a \"value\" and a \"ttl\", and a get has no conditions";
            return Err(Refusal::bad_request(message));
        }
        _ => {
            return Err(Refusal::bad_request(
                "\"op\" must be \"set\", \"delete\" or \"get\"",
            ));
        }
    };
    Ok(BatchOperation {
        key,
        action,
        conditions,
    })
}

/// The refusal, with the index of the operation that it is about, from 0.
#[cold]
pub(crate) fn about_operation(index: usize, refusal: Refusal) -> Refusal {
    let message = format!("operation {index}: {}", refusal.message);
    refusal.with_message(message)
}

#[cold]
pub(crate) fn malformed() -> Refusal {
    let message = "send \
                   {\"ops\":[{\"op\":\"set\",\"key\":\"k\",\"value\":\"v\"},\
                    {\"op\":\"get\",\"key\":\"k\"}]} \
                   and nothing else, with keys and strings in double quotes";
    Refusal::new(400, "bad_json", message)
}

#[cold]
pub(crate) fn too_large() -> Refusal {
    let text_max = show_bytes(BATCH_MAX_BYTES as u64);
    let message =
        format!("a batch has at most {OPERATIONS_MAX} operations and {text_max}: send several");
    Refusal::new(413, "batch_too_large", message)
}
