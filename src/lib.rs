//! db-node: the database node of a distributed key-value system.

pub mod http;
pub mod lsm;
