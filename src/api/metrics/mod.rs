//! What `/metrics` tells: the list of families, and the report that their samples are taken from.

pub(crate) mod families;
pub(crate) mod report;
