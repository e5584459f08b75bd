//! A value that has arrived in full.

use crate::lsm::{INLINE_VALUE_MAX_BYTES, LargeValue, NewValue, Value};

/// Bytes of a large value checksummed in one step: some ten microseconds.
pub(crate) const STEP_BYTES: usize = 256 * 1024;

/// A value that is ready to be written.
#[derive(Debug)]
pub(crate) enum ReadyValue {
    Small(Vec<u8>),
    Large(LargeValue),
}

impl ReadyValue {
    /// For a write; a large value is shared.
    #[inline]
    pub(crate) fn as_new_value(&self) -> NewValue<'_> {
        match self {
            Self::Small(bytes) => NewValue::Inline(bytes),
            Self::Large(large) => NewValue::Large(large.clone()),
        }
    }

    /// As a later read returns it.
    pub(crate) fn as_value(&self) -> Value<'_> {
        match self {
            Self::Small(bytes) => Value::Inline(bytes),
            Self::Large(large) => Value::Large(large.blob()),
        }
    }
}

/// The value made of these bytes.
pub(crate) fn ready(mut bytes: Vec<u8>) -> ReadyValue {
    if bytes.len() <= INLINE_VALUE_MAX_BYTES {
        return ReadyValue::Small(bytes);
    }
    bytes.shrink_to_fit();
    ReadyValue::Large(LargeValue::new(bytes))
}
