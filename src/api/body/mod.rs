//! Bodies: of requests as they come in, and values as they go out.

pub(crate) mod batch_body;
pub(crate) mod change_stream;
pub(crate) mod form_body;
pub(crate) mod json_body;
#[cfg(test)]
pub(crate) mod json_body_tests;
pub(crate) mod json_plain;
pub(crate) mod json_text;
pub(crate) mod json_value;
pub(crate) mod kv_fields;
pub(crate) mod order_body;
pub(crate) mod ready_value;
pub(crate) mod request_body;
