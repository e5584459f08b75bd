//! cluster: how this node takes part in a cluster that etcd configures.
//!
//! `etcd/` is the client of etcd.

pub mod etcd;
