//! Configuration: flags and environment into a validated [`Config`], or one line that says the way
//! out.
//!
//! Invariants:
//! 1. One table (`options.rs`) makes flags, environment names, defaults, `--help`, the fields of
//!    [`Config`] and what `/status` shows of them: they cannot drift apart.
//! 2. A flag wins over the environment; a repeated flag over the earlier one, except for lists.
//! 3. A `Config` that exists is valid: no one checks it again.
//!
//! Not here: what each value does. Exit codes are `main.rs`'s.

mod choices;
mod cluster;
mod cluster_check;
mod command_line;
mod etcd_url;
mod given;
mod nearest;
mod options;
mod origin;
mod own_address;
#[cfg(test)]
mod tests;
mod token;
mod values;

pub use choices::{Fsync, ReadConsistency};
pub use cluster::{COPIES_MAX, ClusterInit, EtcdUser, PARTITION_MAX, REPLICA_MAX, WhenAllLost};
pub use command_line::{Invocation, environment_name, help, parse, warnings_about_variables};
pub use given::{ConfigError, OptionSpec};
pub use nearest::nearest;
pub use options::{ACTION_OPTIONS, Config, options};
pub use origin::Origin;
pub use token::Token;
pub use values::{host_name_in, parse_peer, read_token, show_bytes};
