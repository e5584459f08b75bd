//! A value that came in whole.

use crate::lsm::{INLINE_VALUE_MAX_BYTES, LargeValue, NewValue, Value};

/// Work of one step after the last byte: some ten microseconds of checksumming.
pub(crate) const STEP_BYTES: usize = 256 * 1024;

/// A value that is whole, and ready to be written.
#[derive(Debug)]
pub(crate) enum ReadyValue {
    Small(Vec<u8>),
    Large(LargeValue),
}

impl ReadyValue {
    /// To be written; a large one is shared.
    #[inline]
    pub(crate) fn as_new_value(&self) -> NewValue<'_> {
        match self {
            Self::Small(bytes) => NewValue::Inline(bytes),
            Self::Large(large) => NewValue::Large(large.clone()),
        }
    }

    /// As it will be read.
    pub(crate) fn as_value(&self) -> Value<'_> {
        match self {
            Self::Small(bytes) => Value::Inline(bytes),
            Self::Large(large) => Value::Large(large.blob()),
        }
    }
}

/// The value that these bytes are.
pub(crate) fn ready(mut bytes: Vec<u8>) -> ReadyValue {
    if bytes.len() <= INLINE_VALUE_MAX_BYTES {
        return ReadyValue::Small(bytes);
    }
    bytes.shrink_to_fit();
    ReadyValue::Large(LargeValue::new(bytes))
}
