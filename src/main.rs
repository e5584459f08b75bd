//! The `db-node` program: arguments to configuration, configuration to a running node.

fn main() {}
