//! The table of options: flags, environment names, defaults and `--help` all come from it.
//!
//! Not here: what each value may be (`values.rs`, `mod.rs`).

/// An option of the command line.
pub(super) struct OptionSpec {
    /// Its name, without the dashes.
    pub(super) flag: &'static str,
    /// What stands for its value in `--help`; empty for a switch.
    pub(super) value: &'static str,
    /// What it is where it is not given; empty: nothing.
    pub(super) default: &'static str,
    /// What `--help` says about it.
    pub(super) meaning: &'static str,
}

const fn option(
    flag: &'static str,
    value: &'static str,
    default: &'static str,
    meaning: &'static str,
) -> OptionSpec {
    OptionSpec {
        flag,
        value,
        default,
        meaning,
    }
}

/// All of them, in the order of `--help`.
pub(super) const OPTIONS: &[OptionSpec] = &[
    option(
        "listen",
        "ADDR",
        "127.0.0.1:9001",
        "address and port to serve HTTP on",
    ),
    option(
        "data-dir",
        "DIR",
        "",
        "keep data there; else in memory only",
    ),
    option(
        "fsync",
        "WHEN",
        "always",
        "sync to disk: always, interval or never",
    ),
    option(
        "fsync-interval-ms",
        "N",
        "1000",
        "time between syncs with --fsync interval",
    ),
    option(
        "replication-listen",
        "ADDR",
        "",
        "for replicas, or off; default: --listen, port + 1000",
    ),
    option(
        "replica-of",
        "ADDR",
        "",
        "follow the leader with this HTTP address",
    ),
    option(
        "advertise",
        "URL",
        "",
        "the HTTP address that others reach this node at",
    ),
    option(
        "await-assignment",
        "",
        "",
        "take no role until a controller assigns one",
    ),
    option(
        "min-acks",
        "N",
        "0",
        "replicas that must hold a write before the reply",
    ),
    option(
        "read-consistency",
        "WHAT",
        "local",
        "reads show what is local, or acknowledged by replicas",
    ),
    option(
        "ack-timeout-ms",
        "N",
        "1000",
        "wait for them so long, then answer 504",
    ),
    option(
        "wal-retain-bytes",
        "N",
        "16MiB",
        "log kept for replicas that come back",
    ),
    option(
        "restore",
        "FILE",
        "",
        "start from a backup that GET /snapshot gave",
    ),
    option(
        "accept-data-loss",
        "",
        "",
        "start without what is damaged; it is set aside",
    ),
    option(
        "memtable-bytes",
        "N",
        "4MiB",
        "freeze the memtable at this size",
    ),
    option(
        "max-memory",
        "N",
        "",
        "with more memory in use sets get 507, deletes go on",
    ),
    option(
        "max-upload-memory",
        "N",
        "1GiB",
        "for request bodies on their way; more get 507",
    ),
    option("max-value-bytes", "N", "16MiB", "longest value"),
    option("max-head-bytes", "N", "16KiB", "longest request head"),
    option(
        "max-connections",
        "N",
        "10240",
        "connections at a time; more get 503",
    ),
    option(
        "idle-timeout-ms",
        "N",
        "60000",
        "silence allowed between requests",
    ),
    option(
        "header-timeout-ms",
        "N",
        "10000",
        "time for a request head; bodies earn more",
    ),
    option(
        "token-file",
        "FILE",
        "",
        "requests need the token in this file",
    ),
    option(
        "allowed-host",
        "NAME",
        "",
        "a Host name to answer under; may be repeated",
    ),
    option(
        "allowed-origin",
        "ORIGIN",
        "",
        "a web page's origin to answer, or *; may be repeated",
    ),
    option(
        "allow-open",
        "",
        "",
        "listen beyond loopback without a token",
    ),
    option(
        "slow-request-ms",
        "N",
        "100",
        "log requests that take so long; 0: none",
    ),
    option(
        "log",
        "LEVEL",
        "info",
        "off, error, warn, info, debug or trace",
    ),
];
