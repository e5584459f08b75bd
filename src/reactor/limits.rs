//! The limits of the loop: what a turn may do, what a connection may hold. Configured ones are in
//! `config/`; how many descriptors there are for what is in `descriptors.rs`.

use super::timers::Millis;

/// Events taken from one poll.
pub(super) const EVENTS_PER_POLL: usize = 256;

/// Sessions are visited for so long in one turn, in microseconds; those that are visited together
/// are finished. With tens of millions of entries, most of which lie in no cache, a request takes
/// twice as long as with one million.
pub(super) const VISITS_US: u64 = 120;

/// Work in one turn, in bytes of input and output; a small request costs as much as a thousand.
/// Writes cost what they owe, too: it is also the most maintenance in one turn while requests wait,
/// in units of work, some hundred microseconds.
pub(super) const TURN_WORK_BYTES: usize = 320 * 1024;

/// A turn that begins with more owed than one pays has this part of the budget: what is owed gets
/// less.
pub(super) const BEHIND_SHARE: usize = 4;

/// Maintenance in one turn when there is nothing else to do: what a request that comes in meanwhile
/// waits for.
pub(super) const IDLE_SLICE_WORK: usize = 128 * 1024;

/// The one read buffer. An odd number of cache lines for each of 16 sessions: at a distance of some
/// kilobytes their requests would have to share few places in the processor's first cache.
pub(super) const READ_BUFFER_BYTES: usize = 16 * 129 * 64;

/// Most bytes read from one connection in a turn.
pub(super) const READ_MAX_BYTES: usize = 64 * 1024;

/// What each of the render buffers keeps between visits.
pub(super) const SLOT_RENDER_BYTES: usize = 16 * 1024;

/// No request is begun on a connection while more than this is unsent.
pub(super) const OUTPUT_HIGH_BYTES: usize = 64 * 1024;

/// A body up to this length, or up to that of the longest value, is read to its end where it is not
/// wanted: that costs less than a new connection.
pub(super) const KEPT_BODY_BYTES: u64 = 1024 * 1024;

/// Replies released in one turn: each costs a look at its session.
pub(super) const RELEASES_PER_TURN: usize = 1024;

/// Replication connections at a time, where there are descriptors enough.
pub(super) const LINKS_MAX: usize = 1024;

/// Of these, connections that have not said hello: a newcomer takes the place of an older one.
pub(super) const STRANGERS_MAX: usize = 256;

/// Read from all of them together in one turn: some hellos.
pub(super) const STRANGER_BYTES: usize = 64 * 1024;

/// Lines of the log about strangers that come at once; then some a second.
pub(super) const STRANGER_LINES: u32 = 100;

/// Names of leaders that are looked up at a time: each takes a thread, and some descriptors.
pub(super) const LOOKUPS_MAX: usize = 4;

/// Descriptors of one look-up: files that list names, and sockets to name servers.
pub(super) const LOOKUP_DESCRIPTORS: usize = 3;

/// Read from, and sent to, all replication connections in one turn while requests wait …
pub(super) const BUSY_LINK_BYTES: usize = 64 * 1024;

/// … and while no other connection does: what a request that comes in meanwhile waits for.
pub(super) const QUIET_LINK_BYTES: usize = 256 * 1024;

/// Asked of the node at a time for one link: what a peer that does not read costs, about.
pub(super) const LINK_FILL_BYTES: usize = 128 * 1024;

/// Work on telling watchers in one turn, in bytes that are rendered.
pub(super) const TOLD_WORK_BYTES: usize = 64 * 1024;

/// Deadlines looked at in one turn.
pub(super) const DEADLINES_PER_TURN: usize = 64;

/// Where there are as many connections as may be, one that has been idle for so long makes room for
/// a new one.
pub(super) const EVICT_IDLE_MS: Millis = 5_000;

/// Connections beyond the limit that get an answer; more are closed at once.
pub(super) const TURNED_AWAY_MAX: usize = 64;

/// How long what is in flight may take once the node is told to stop.
pub(super) const DRAIN_MS: Millis = 10_000;

/// Lines at once that tell of a system's clock that was set: something may set it without end.
pub(super) const CLOCK_STEP_LINES: u32 = 8;
