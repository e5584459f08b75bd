//! The contents of `/metrics`: the list of families, and the report with their samples.

pub(crate) mod families;
pub(crate) mod memory_owners;
pub(crate) mod report;
