//! What a node says when it has started: where it listens, what to do next, and what may come as a
//! surprise later: that data is in memory only, that any client may write.

use std::net::SocketAddr;

use crate::config::Config;

/// At most four lines, of which the first names the address.
pub(super) fn log_greeting(config: &Config, replication_address: Option<SocketAddr>) {
    let for_replicas = replication_address.map_or(String::new(), |address| {
        format!(", for replicas on {address}")
    });
    let (version, address) = (crate::version::full(), config.listen);
    let durability = durability(config);
    log::info!("db-node {version} listens on http://{address}{for_replicas}, {durability}");
    let url = config.own_url();
    let example = format!("{url}/set -d 'key=a&value=1'");
    let token = match &config.token {
        Some(_) => "-H 'Authorization: Bearer TOKEN' ",
        None => "",
    };
    if config.replica_of.is_some() || config.await_assignment {
        log::info!("try: curl {token}{url}/status; or open {url}/ in a browser");
    } else {
        let read = format!("'{url}/get?key=a'");
        log::info!("try: curl {token}{example}; curl {token}{read}; or open {url}/ in a browser");
    }
    if config.data_dir.is_none() {
        log::info!("data is gone when this node ends: start it with --data-dir DIR to keep it");
    }
    let is_reachable = |address: SocketAddr| !address.ip().is_loopback();
    let listeners = [Some(address), replication_address];
    if config.token.is_none() && listeners.into_iter().flatten().any(is_reachable) {
        log::warn!(
            "this node is open: any client that reaches it can read, write and delete; it asks for \
             a token with --token-file FILE"
        );
    }
}

/// Where data is kept.
pub(super) fn durability(config: &Config) -> String {
    match &config.data_dir {
        Some(path) => format!("data in {}, fsync {}", path.display(), config.fsync.name()),
        None => "in memory only".to_owned(),
    }
}
