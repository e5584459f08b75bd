//! Merging layers into one: in the order of keys, a bounded piece at a time.

pub(in crate::lsm) mod cursor;
pub(in crate::lsm) mod job;
#[cfg(test)]
mod job_tests;
pub(in crate::lsm) mod policy;
