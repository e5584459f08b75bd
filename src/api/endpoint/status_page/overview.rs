//! The text of `/`: what this node is, how it is, and the first commands.
//!
//! Invariant: it is public, so it says nothing that `/health` does not say to all clients.

use std::fmt::{self, Display, Write as _};

use crate::config::Config;
use crate::node::Node;
use crate::partition::Partition;
use crate::storage::Role;

/// Most partitions in the text.
const SHOWN_MAX: usize = 8;

/// Appends the text. `url` is the address under which the client found this node.
pub(super) fn add_overview(node: &Node, url: &str, out: &mut Vec<u8>) {
    let config = node.config();
    let (version, state, data) = (crate::version::full(), State(node), Data(config));
    let curl = match config.token {
        Some(_) => format!("curl -H \"Authorization: Bearer $TOKEN\" {url}"),
        None => format!("curl {url}"),
    };
    let mut text = format!(
        "db-node {version}: a key-value store over HTTP\n\
         state: {state}\n\
         data:  {data}\n\
         \n\
         store a value     {curl}/kv/greeting -X PUT -d hello\n\
         read it           {curl}/kv/greeting\n\
         list keys         {curl}/scan\n\
         follow changes    {curl}/watch -N -H \"Accept: text/event-stream\"\n\
         delete it         {curl}/kv/greeting -X DELETE\n\
         \n"
    );
    if config.token.is_some() {
        text += "This node wants its token: TOKEN=$(cat FILE), with the file of --token-file.\n\n";
    }
    let _ = write!(
        text,
        "status page       {url}/ in a browser\n\
         status as JSON    {curl}/status\n\
         every request     {curl}/openapi.json\n\
         documentation     README.md and docs/ of the source; db-node --help\n"
    );
    out.extend_from_slice(text.as_bytes());
}

/// What the node does now.
struct State<'n>(&'n Node);

impl Display for State<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = self.0;
        if node.is_draining() {
            return f.write_str("stopping");
        }
        if let Some(progress) = node.loading() {
            return write!(f, "loading its data: {progress}");
        }
        let partitions = node.partitions();
        let [partition] = partitions else {
            if partitions.is_empty() {
                return f.write_str("waiting for a role from a controller");
            }
            write!(f, "{} partitions", partitions.len())?;
            for partition in partitions.iter().take(SHOWN_MAX) {
                let before = if partition.id() == partitions[0].id() {
                    ":"
                } else {
                    ","
                };
                write!(f, "{before} {} {}", partition.id(), role_of(partition))?;
            }
            let more = if partitions.len() > SHOWN_MAX {
                ", …"
            } else {
                ""
            };
            return f.write_str(more);
        };
        f.write_str(role_of(partition))?;
        match (partition.roles().role(), partition.state_name()) {
            (Role::Leader, "leading") | (Role::Unassigned, _) => Ok(()),
            (_, state) => write!(f, ", {state}"),
        }
    }
}

fn role_of(partition: &Partition) -> &'static str {
    match partition.roles().role() {
        Role::Unassigned => "without a role",
        role => role.name(),
    }
}

/// Where data is kept.
struct Data<'n>(&'n Config);

impl Display for Data<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.data_dir {
            Some(_) => write!(f, "on disk, fsync {}", self.0.fsync.name()),
            None => {
                f.write_str("in memory only, gone when the node stops (--data-dir DIR keeps it)")
            }
        }
    }
}
