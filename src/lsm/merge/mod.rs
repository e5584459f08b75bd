//! Merging layers into one: in the order of keys, a bounded piece at a time.

pub(crate) mod cursor;
pub(crate) mod job;
#[cfg(test)]
mod job_tests;
pub(crate) mod policy;
