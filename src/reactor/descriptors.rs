//! Shares of the process' file descriptors: the loop itself, files, replication, HTTP.
//!
//! The soft limit (`RLIMIT_NOFILE`) is raised to the hard one at the start. Under that limit
//! descriptors are reserved in this order; HTTP gets what is left:
//!
//! | for | how many |
//! |---|---|
//! | the process itself | those open once the loop is set up, and [`SPARE`] |
//! | etcd, in a cluster | [`ETCD_DESCRIPTORS`] |
//! | files | [`FILES_AT_ONCE`], and [`FILES_OF_PARTITION`] for each partition on disk |
//! | partitions to come | the same for [`PARTITIONS_AHEAD`], or a sixteenth of the limit |
//! | replication, both ways | a quarter of the rest, at most [`LINKS_MAX`] |
//! | connections above the limit | a sixteenth, at most [`TURNED_AWAY_MAX`] |
//! | HTTP connections | the rest, at most `--max-connections` |
//!
//! Invariant: whatever clients and peers do, descriptors are left for the files of the disk thread.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;
use crate::node::PARTITIONS_MAX;

use super::error::RunError;
use super::limits::{ETCD_DESCRIPTORS, LINKS_MAX, STRANGERS_MAX, TURNED_AWAY_MAX};

/// Open for a moment, or opened later: a connection that is closed as soon as it is accepted, the
/// file that tells resident memory, the socket of the service manager, the lock of the data
/// directory.
const SPARE: usize = 8;

/// Most files that the disk thread has open beside [`FILES_OF_PARTITION`]: a checkpoint and a
/// replacement (its checkpoint, its log, what only this node had), the next log file, the metadata
/// of a partition and the directory that is synced with it. `Node` begins one checkpoint and one
/// replacement at a time.
const FILES_AT_ONCE: usize = 8;

/// Open for as long as a partition is: its newest log file, and `log-end`.
const FILES_OF_PARTITION: usize = 2;

/// Partitions on disk that can be made before connections have to make room for them.
const PARTITIONS_AHEAD: usize = 16;

/// The least for connections of all kinds: below it the node does not start.
const CONNECTIONS_MIN: usize = 16;

/// What a start opens before it counts: three for the log, the poll, the HTTP listener with its
/// spare, two for signals, and the waker.
const OPENED_BY_START: usize = 9;

/// Another listener with its spare.
const OPENED_FOR_REPLICAS: usize = 2;

/// Descriptors open before the first connection, if the system does not tell.
const OPEN_UNKNOWN: usize = 32;

/// The limit, and the part of it that clients cannot use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptors {
    pub(super) limit: usize,
    /// Open once the loop was set up, inherited ones included.
    open_at_start: usize,
}

/// How many descriptors each use may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shares {
    /// HTTP connections that are served.
    pub(super) connections: usize,
    /// HTTP connections above that, which get one answer.
    pub(super) turned_away: usize,
    /// Replication: accepted, dialed, and looked up.
    pub(super) links: usize,
    /// Of these, accepted and without a hello yet.
    pub(super) strangers: usize,
}

impl Descriptors {
    /// Raises the limit as far as possible. To be called when everything is open that stays open.
    pub(super) fn at_start() -> Self {
        let before = getrlimit(Resource::Nofile);
        let raised = Rlimit {
            current: before.maximum,
            ..before
        };
        // If this is refused, the limit stays as it is.
        let _ = setrlimit(Resource::Nofile, raised);
        Self {
            limit: current_limit(),
            open_at_start: crate::storage::open_descriptor_count().unwrap_or(OPEN_UNKNOWN),
        }
    }

    /// As [`Self::at_start`] would find it, in a process that has opened nothing so far.
    pub(super) fn before_start(config: &Config) -> Self {
        let mut descriptors = Self::at_start();
        descriptors.open_at_start += OPENED_BY_START;
        if config.replication_listen.is_some() {
            descriptors.open_at_start += OPENED_FOR_REPLICAS;
        }
        descriptors.reserve_for(config);
        descriptors
    }

    /// Keeps some for etcd, where it is asked.
    pub(super) fn reserve_for(&mut self, config: &Config) {
        if config.etcd.is_some() {
            self.open_at_start += ETCD_DESCRIPTORS;
        }
    }

    /// Reads the limit again: it can be lowered from outside.
    pub(super) fn read_again(&mut self) {
        self.limit = current_limit();
    }

    /// Most partitions that may lie on disk: half of what is left of the limit.
    pub(super) fn partition_max(&self) -> usize {
        let own = self.open_at_start + SPARE + FILES_AT_ONCE;
        (self.limit.saturating_sub(own) / 2 / FILES_OF_PARTITION).min(PARTITIONS_MAX)
    }

    /// Partitions that can be opened while so many lie on disk and connections of all kinds use
    /// `used`.
    pub(super) fn openable_count(&self, partition_count: usize, used: usize) -> usize {
        let left = self
            .limit
            .saturating_sub(self.reserved(partition_count) + used);
        left / FILES_OF_PARTITION
    }

    /// Refuses a limit under which next to nothing could be served.
    pub(super) fn check(&self) -> Result<(), RunError> {
        let needed = self.reserved(1) + self.ahead() + CONNECTIONS_MIN;
        if self.limit < needed {
            let limit = self.limit;
            return Err(RunError::TooFewDescriptors { limit, needed });
        }
        Ok(())
    }

    /// How many each use may have while so many partitions lie on disk.
    pub(super) fn shares(&self, partition_count: usize, connections_wanted: usize) -> Shares {
        let taken = self.reserved(partition_count) + self.ahead();
        let room = self.limit.saturating_sub(taken);
        let links = (room / 4).clamp(1, LINKS_MAX);
        let turned_away = (room / 16).clamp(1, TURNED_AWAY_MAX);
        let left = room.saturating_sub(links + turned_away).max(1);
        Shares {
            connections: left.min(connections_wanted),
            turned_away,
            links,
            strangers: (links / 2).clamp(1, STRANGERS_MAX),
        }
    }

    fn reserved(&self, partition_count: usize) -> usize {
        self.open_at_start + SPARE + FILES_AT_ONCE + FILES_OF_PARTITION * partition_count
    }

    fn ahead(&self) -> usize {
        (FILES_OF_PARTITION * PARTITIONS_AHEAD).min(self.limit / 16)
    }
}

fn current_limit() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit
        .and_then(|count| usize::try_from(count).ok())
        .unwrap_or(usize::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptors(limit: usize) -> Descriptors {
        Descriptors {
            limit,
            open_at_start: 14,
        }
    }

    /// Whatever the limit and however many partitions there are, all shares together leave to files
    /// what they need.
    #[test]
    fn connections_never_get_what_files_need() {
        for limit in (64..5_000).chain([65_536, 1 << 20, usize::MAX / 2]) {
            let descriptors = descriptors(limit);
            assert!(descriptors.check().is_ok(), "{limit}");
            let partition_max = descriptors.partition_max();
            for partitions in [0, 1, 2, partition_max / 2, partition_max] {
                let shares = descriptors.shares(partitions, 10_240);
                let used = shares.connections + shares.turned_away + shares.links;
                let files = FILES_AT_ONCE + FILES_OF_PARTITION * partitions;
                assert!(14 + SPARE + files + used <= limit, "{limit}: {shares:?}");
                assert!(
                    descriptors.openable_count(partitions, used) > 0,
                    "{limit}: one more partition waits for no connection"
                );
                assert!(shares.strangers <= shares.links && shares.connections > 0);
            }
        }
    }

    #[test]
    fn shares_by_limit() {
        let shares = |limit, partitions| {
            let Shares {
                connections,
                turned_away,
                links,
                strangers,
            } = descriptors(limit).shares(partitions, 10_240);
            [connections, turned_away, links, strangers]
        };
        assert_eq!(shares(64, 1), [20, 1, 7, 3]);
        assert_eq!(shares(256, 1), [143, 13, 52, 26]);
        assert_eq!(shares(1_024, 1), [660, 60, 240, 120]);
        assert_eq!(shares(1_024, 200), [387, 35, 140, 70]);
        assert_eq!(shares(65_536, 1), [10_240, 64, 1_024, 256]);
        let error = descriptors(48).check().expect_err("too few");
        let limits = "the limit on file descriptors is 48, and 51 are needed at least";
        assert!(error.to_string().starts_with(limits), "{error}");
    }

    #[test]
    fn partitions_are_made_only_where_a_descriptor_is_left() {
        let descriptors = descriptors(256);
        assert_eq!(descriptors.partition_max(), 56);
        assert_eq!(descriptors.openable_count(1, 220), 2);
        assert_eq!(descriptors.openable_count(1, 223), 0);
        assert_eq!(descriptors.openable_count(1, 500), 0);
    }
}
