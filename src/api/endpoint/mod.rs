//! A file for each family of paths: what its requests do, and what they are answered with.

pub(crate) mod admin;
pub(crate) mod batch;
pub(crate) mod digest;
pub(crate) mod health;
pub(crate) mod kv;
pub(crate) mod lookahead;
pub(crate) mod metrics;
pub(crate) mod openapi;
pub(crate) mod partition;
pub(crate) mod scan;
pub(crate) mod snapshot;
pub(crate) mod status;
pub(crate) mod watch;
