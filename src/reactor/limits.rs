//! Limits of the loop: the work of a turn, the memory of a connection. Configured limits are in
//! `config/`, shares of descriptors in `descriptors.rs`.

use super::timers::Millis;

/// Events taken from one poll.
pub(super) const EVENTS_PER_POLL: usize = 256;

/// Time for visits in one turn, in microseconds; the last batch is finished. With tens of millions
/// of entries, most of which are not in the processor's cache, a request takes twice as long as
/// with one million.
pub(super) const VISITS_US: u64 = 120;

/// Work in one turn, in bytes of input and output; a small request costs a thousand. Writes also
/// cost the merge work that they incur, so this is also the most maintenance in one turn while
/// requests wait: some hundred microseconds.
pub(super) const TURN_WORK_BYTES: usize = 320 * 1024;

/// While more merge work is owed than one turn can pay, a turn has this fraction of the budget, so
/// that the debt shrinks.
pub(super) const BEHIND_SHARE: usize = 4;

/// Maintenance in one turn when there is nothing else to do. A request that arrives meanwhile waits
/// for it.
pub(super) const IDLE_SLICE_WORK: usize = 128 * 1024;

/// The one read buffer. An odd number of cache lines for each of 16 sessions: at a distance of some
/// kilobytes their requests would have to share few places in the processor's first cache.
pub(super) const READ_BUFFER_BYTES: usize = 16 * 129 * 64;

/// Most bytes read from one connection in a turn.
pub(super) const READ_MAX_BYTES: usize = 64 * 1024;

/// Memory that each render buffer keeps between visits.
pub(super) const SLOT_RENDER_BYTES: usize = 16 * 1024;

/// No request is begun on a connection while more than this is unsent.
pub(super) const OUTPUT_HIGH_BYTES: usize = 64 * 1024;

/// An unwanted body up to this length, or up to the longest value, is skipped: that costs less than
/// a new connection.
pub(super) const KEPT_BODY_BYTES: u64 = 1024 * 1024;

/// Replies released in one turn: each costs a look at its session.
pub(super) const RELEASES_PER_TURN: usize = 1024;

/// Replication connections at a time, where there are descriptors enough.
pub(super) const LINKS_MAX: usize = 1024;

/// Of these, connections without a hello yet: a new one replaces an older one.
pub(super) const STRANGERS_MAX: usize = 256;

/// Bytes read from all of them together in one turn: some hellos.
pub(super) const STRANGER_BYTES: usize = 64 * 1024;

/// Lines of log about connections without a hello: a burst of so many, then some a second.
pub(super) const STRANGER_LINES: u32 = 100;

/// Names of leaders that are looked up at a time: each takes a thread, and some descriptors.
pub(super) const LOOKUPS_MAX: usize = 4;

/// Descriptors of one look-up: files that list names, and sockets to name servers.
pub(super) const LOOKUP_DESCRIPTORS: usize = 3;

/// Bytes read from, and sent to, all replication connections in one turn while requests wait.
pub(super) const BUSY_LINK_BYTES: usize = 64 * 1024;

/// The same while no request waits. A request that arrives meanwhile waits for it.
pub(super) const QUIET_LINK_BYTES: usize = 256 * 1024;

/// Bytes rendered at a time for one link; about the memory that a peer costs that does not read.
pub(super) const LINK_FILL_BYTES: usize = 128 * 1024;

/// Bytes read from each connection to etcd in one turn.
pub(super) const ETCD_READ_BYTES: usize = 64 * 1024;

/// Descriptors for etcd: two connections, and look-ups of the names in them.
pub(super) const ETCD_DESCRIPTORS: usize = 2 + 2 * LOOKUP_DESCRIPTORS;

/// Bytes rendered for watchers in one turn.
pub(super) const WATCH_WORK_BYTES: usize = 64 * 1024;

/// Deadlines looked at in one turn.
pub(super) const DEADLINES_PER_TURN: usize = 64;

/// At the limit on connections, one that is idle for this long is closed for a new one.
pub(super) const EVICT_IDLE_MS: Millis = 5_000;

/// Connections above the limit that get an answer; further ones are closed at once.
pub(super) const TURNED_AWAY_MAX: usize = 64;

/// Time for handing partitions over before the node stops.
pub(super) const LEAVE_MS: Millis = 1_000;

/// A node that has handed partitions over stays for so long, and refuses requests: proxies find
/// the new leader before connections end.
pub(super) const LINGER_MS: Millis = 1_000;

/// Time for copies to leave the sets of those in sync before the node stops, where it leads
/// nothing; and how long it stays at least: leaders hear of the change from etcd.
pub(super) const LEAVE_SETS_MS: Millis = 500;
pub(super) const LINGER_SETS_MS: Millis = 250;

/// Time for requests in flight once the node is told to stop.
pub(super) const DRAIN_MS: Millis = 10_000;

/// Burst of log lines about a system's clock that was set; something may set it again and again.
pub(super) const CLOCK_STEP_LINES: u32 = 8;
