//! The event loop: mio, sockets, clocks and signals, and nothing that could be decided without
//! them.
//!
//! One turn:
//!
//! ```text
//!   1 poll       time-out 0 if anything is ready or owed, else the next deadline
//!   2 accept     a bounded number
//!   3 replicate  take in what leaders send and replicas confirm
//!     release    replies whose writes are on disk and with replicas now; what gathered meanwhile goes to the disk first
//!   4 visit      sessions on the ready list, some at a time, within the budget of the turn: read them, carry out what they ask
//!                for, reply
//!     tell       watchers what was committed
//!   5 hand over  the turn's records to the disk thread, if it rests, and to replicas
//!   6 maintain   one slice, paid by the bytes written this turn; more when there is nothing else to do
//!   7 deadlines  of connections that are too slow
//!     relieve    memory, where it is short, of what slow peers take
//!   8 close      free closed slots; only here, so that a stale event never meets a reused key
//!     report     to the service manager, if there is one
//! ```
//!
//! Invariants:
//! 1. A turn does bounded work: so much time for requests and so many bytes (`limits.rs`), a slice
//!    of maintenance. What is over waits on the ready list, first come first served.
//! 2. Sockets are registered once, for reading and writing, and never again.
//! 3. Nothing else reads a clock, touches a socket or handles a signal.

mod admission;
mod clock;
mod deadlines;
mod descriptors;
mod disk;
mod error;
mod commit_gates;
mod idle_queue;
mod lanes;
mod limits;
mod line_limit;
mod link;
mod listener;
mod measure;
mod progress;
mod promises;
mod ready;
mod relief;
mod replication;
mod resolver;
mod session;
mod slow_log;
mod stderr_log;
mod strangers;
mod supervisor;
mod timers;
mod turn;
mod watching;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use mio::{Events, Interest, Poll, Token, Waker};
use signal_hook_mio::v1_0::Signals;
use slab::Slab;

use crate::api::{AccessPolicy, RequestLabels};
use crate::config::Config;
use crate::http::{HeadLimits, HeadReader, HttpDate, Limits, Waiting};
use crate::node::{DiskNews, Node};
use crate::partition::Wait;
use crate::storage::IdGenerator;

pub use error::RunError;

use clock::Clock;
use commit_gates::CommitGates;
use deadlines::{Situation, TimeOuts};
use descriptors::{Descriptors, Shares, TooFew};
use disk::Disk;
use idle_queue::IdleQueue;
use lanes::{LANES, Lane};
use limits::{
    CLOCK_STEP_LINES, DEADLINES_PER_TURN, DRAIN_MS, EVENTS_PER_POLL, KEPT_BODY_BYTES,
    OUTPUT_HIGH_BYTES, READ_BUFFER_BYTES,
};
use line_limit::LineLimit;
use listener::Listener;
use measure::{Held, Measure};
use ready::{Ready, enqueue};
use relief::Relief;
use replication::Replication;
use session::{Next, Session, Slot};
use supervisor::Supervisor;
use timers::{Millis, Timers};
use watching::Watching;

const LISTENER: Token = Token(usize::MAX - 1);
const SIGNALS: Token = Token(usize::MAX - 2);
/// Another thread has something to tell.
const WAKE: Token = Token(usize::MAX - 3);

/// Runs a node until it is told to stop. `hash_seed` and `ids` are to be random.
pub fn run(config: &Config, hash_seed: u64, ids: IdGenerator) -> Result<(), RunError> {
    stderr_log::install(config.log_level);
    Reactor::new(config, hash_seed, ids)?.run()
}

/// The loop and all it owns.
struct Reactor {
    poll: Poll,
    listener: Option<Listener>,
    signals: Signals,
    sessions: Slab<Session>,
    /// Those beyond the limit, the oldest first.
    turned_away: VecDeque<usize>,
    idle_queue: IdleQueue,
    /// Sessions to visit, in order.
    ready: Ready,
    /// Sessions to free at the end of the turn.
    closed: Vec<usize>,
    timers: Timers,
    clock: Clock,
    clock_steps: LineLimit,
    date: HttpDate,
    date_seconds: u64,
    node: Node,
    disk: Disk,
    replication: Replication,
    supervisor: Supervisor,
    gates: CommitGates,
    watching: Watching,
    relief: Relief,
    measure: Measure,
    /// Held here too: closed together with a thread that woke the loop by it, it would take the
    /// event along.
    _waker: Arc<Waker>,
    guard: AccessPolicy,
    heads: HeadReader,
    limits: Limits,
    time_outs: TimeOuts,
    descriptors: Descriptors,
    shares: Shares,
    input: Box<[u8]>,
    lanes: [Lane; LANES],
    scratch: Vec<u8>,
    /// Connections may be waiting to be accepted.
    is_accepting: bool,
    /// Out of descriptors until then.
    accept_again_at: Option<Millis>,
    drain_until: Option<Millis>,
    cpu_time: Duration,
}

impl Reactor {
    fn new(config: &Config, hash_seed: u64, mut ids: IdGenerator) -> Result<Self, RunError> {
        let poll = Poll::new().map_err(|error| RunError::System("epoll_create", error))?;
        let mut listener = Listener::bind(config.listen)
            .map_err(|error| RunError::Listen(config.listen, error))?;
        let address = listener
            .local_addr()
            .map_err(|error| RunError::System("getsockname", error))?;
        let register = |error| RunError::System("epoll_ctl", error);
        poll.registry()
            .register(listener.source(), LISTENER, Interest::READABLE)
            .map_err(register)?;
        let mut signals = Signals::new([signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT])
            .map_err(|error| RunError::System("sigaction", error))?;
        poll.registry()
            .register(&mut signals, SIGNALS, Interest::READABLE)
            .map_err(register)?;
        let waker = Waker::new(poll.registry(), WAKE)
            .map_err(|error| RunError::System("eventfd", error))?;
        let waker = Arc::new(waker);
        let (replication, replication_address) = Replication::start(
            config.replication_listen,
            poll.registry(),
            Arc::clone(&waker),
        )?;
        // All is open that stays open, but for files.
        let descriptors = Descriptors::at_start();
        descriptors
            .check()
            .map_err(|TooFew { limit, needed }| RunError::TooFewDescriptors { limit, needed })?;
        let shares = descriptors.shares(1, config.max_connections);
        if shares.connections < config.max_connections {
            log::warn!(
                "at most {} connections instead of {}: the limit on file descriptors is {} (ulimit \
                 -n), and files and replication have their share of it",
                shares.connections,
                config.max_connections,
                descriptors.limit()
            );
        }
        let disk = Disk::start(config, hash_seed, ids.split(), Arc::clone(&waker))?;
        let head = HeadLimits {
            head_bytes: config.max_head_bytes,
            header_count: crate::http::MAX_HEADER_COUNT,
        };
        let for_replicas = replication_address.map_or(String::new(), |address| {
            format!(", for replicas on {address}")
        });
        let (version, durability) = (crate::version::full(), durability(config));
        log::info!("db-node {version} listens on http://{address}{for_replicas}, {durability}");
        let serving = format!("serving on http://{address}, {durability}");
        let supervisor = Supervisor::from_environment(|name| std::env::var_os(name), serving);
        let config_in_force = Config {
            listen: address,
            ..config.clone()
        };
        let mut node = Node::new(config_in_force, hash_seed, ids);
        node.stats.started_unix_ms = clock::unix_ms();
        node.replication_port = replication_address.map(|address| address.port());
        Ok(Self {
            poll,
            listener: Some(listener),
            signals,
            sessions: Slab::new(),
            turned_away: VecDeque::new(),
            idle_queue: IdleQueue::default(),
            ready: Ready::default(),
            closed: Vec::new(),
            timers: Timers::default(),
            clock: Clock::start(),
            clock_steps: LineLimit::new(CLOCK_STEP_LINES),
            date: HttpDate::from_unix_seconds(0),
            date_seconds: 0,
            guard: AccessPolicy::new(config, &machine_name()),
            heads: HeadReader::new(head),
            limits: Limits {
                output_high_bytes: OUTPUT_HIGH_BYTES,
                kept_body_bytes: KEPT_BODY_BYTES.max(config.max_value_bytes as u64),
            },
            time_outs: TimeOuts {
                idle_ms: config.idle_timeout_ms,
                header_ms: config.header_timeout_ms,
                acks_ms: config.ack_timeout_ms,
            },
            descriptors,
            shares,
            node,
            disk,
            replication,
            supervisor,
            gates: CommitGates::default(),
            watching: Watching::default(),
            relief: Relief::default(),
            measure: Measure::new(config.slow_request_ms),
            _waker: waker,
            input: vec![0; READ_BUFFER_BYTES].into(),
            lanes: lanes::lanes(),
            scratch: Vec::new(),
            is_accepting: false,
            accept_again_at: None,
            drain_until: None,
            cpu_time: clock::thread_cpu_time(),
        })
    }

    fn run(mut self) -> Result<(), RunError> {
        let mut events = Events::with_capacity(EVENTS_PER_POLL);
        loop {
            let time_out = self.time_out();
            match self.poll.poll(&mut events, time_out) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return Err(RunError::System("epoll_wait", error));
                }
                // After an interruption there are no events; the turn goes on.
                Err(_) => events.clear(),
                Ok(()) => {}
            }
            self.start_turn();
            self.note_events(&events)?;
            self.accept();
            self.on_disk_event()?;
            let is_quiet = self.ready.is_empty();
            let (registry, now) = (self.poll.registry(), self.clock.now());
            self.replication
                .read(&mut self.node, registry, is_quiet, now);
            // What gathered during the last sync goes before its replies do: the disk works while
            // they are sent.
            self.disk.hand_over(&mut self.node, self.clock.now_us());
            self.release();
            let visited_all = self.visit_ready();
            self.tell_watchers();
            self.disk.hand_over(&mut self.node, self.clock.now_us());
            self.replication.write(&mut self.node, is_quiet, now);
            self.maintain(visited_all && events.is_empty());
            self.look_at_deadlines();
            self.relieve();
            self.free_closed();
            self.supervisor.report(&self.node, now);
            self.end_turn();
            if self.is_drained()? {
                return Ok(());
            }
        }
    }

    /// Takes in what the disk thread has told.
    fn on_disk_event(&mut self) -> Result<(), RunError> {
        while let Some(event) = self.disk.next_event() {
            let is_loading = self.node.loading().is_some();
            match self.node.on_disk_event(event) {
                DiskNews::None => {
                    if let Some(progress) = self.node.loading() {
                        self.disk.show_progress(progress, self.clock.now());
                    }
                }
                DiskNews::Loaded => self.disk.note_loaded(),
                DiskNews::Failed(error) if is_loading => {
                    self.disk.note_loaded();
                    return Err(RunError::Storage(error));
                }
                DiskNews::Failed(error) => {
                    self.break_promises(&error);
                    self.supervisor.on_disk_failed(&error);
                    self.disk.on_disk_failed(error);
                }
                DiskNews::Stalled(id, error) => {
                    self.break_stalled(&error, |partition, wait| {
                        partition == id && matches!(wait, Wait::Disk { .. } | Wait::Settled { .. })
                    });
                }
                DiskNews::NotOpened(id, error) => {
                    self.break_stalled(&error, |partition, _| partition == id);
                }
                DiskNews::Closed => self.disk.note_closed(),
            }
        }
        Ok(())
    }

    fn note_events(&mut self, events: &Events) -> Result<(), RunError> {
        for event in events {
            match event.token() {
                LISTENER => self.is_accepting = self.accept_again_at.is_none(),
                SIGNALS => self.note_signals()?,
                // What was told is looked for in every turn.
                WAKE => {}
                _ if self.replication.note(event) => {}
                Token(key) => {
                    if let Some(session) = self.sessions.get_mut(key) {
                        session.note(event);
                        enqueue(&mut self.ready, session, key);
                    }
                }
            }
        }
        Ok(())
    }

    fn note_signals(&mut self) -> Result<(), RunError> {
        for _ in self.signals.pending() {
            if self.drain_until.is_some() {
                return Err(RunError::Interrupted);
            }
            log::info!("stopping: no new connections, finishing what is in flight");
            self.drain_until = Some(self.clock.now() + DRAIN_MS);
            self.node.drain();
            self.replication.drain();
            self.end_watches();
            // Dropped, it leaves the poll, and connections that wait in its backlog are refused.
            self.listener = None;
            self.is_accepting = false;
            self.accept_again_at = None;
            for (key, session) in &mut self.sessions {
                match session.drain() {
                    Next::Close => self.closed.push(key),
                    _ => enqueue(&mut self.ready, session, key),
                }
            }
        }
        Ok(())
    }

    fn set_deadline(&mut self, key: usize, has_progressed: bool) {
        let session = &mut self.sessions[key];
        // While an answer is on its way the peer is to read, whatever comes after: another request
        // or the end.
        let situation = Situation {
            waiting: if session.has_unsent() {
                Waiting::Reply
            } else {
                session.http.waiting()
            },
            ending_bytes: session.ending_bytes().filter(|_| !session.has_unsent()),
            is_stopping: self.drain_until.is_some(),
            has_progressed,
            sent_bytes: session.sent_bytes,
            streamed_bytes: session.is_streaming().then_some(session.sent_bytes),
            awaits_acks: session.awaits_acks(),
            watches_until: if session.has_unsent() {
                None
            } else {
                self.watching.deadline_of(key)
            },
        };
        let time_outs = match session.slot {
            Slot::Served => self.time_outs,
            Slot::TurnedAway => self.time_outs.of_turned_away(),
        };
        let at = session
            .patience
            .until(situation, self.clock.now(), time_outs);
        self.timers.set(key, &mut session.patience.deadline, at);
    }

    fn look_at_deadlines(&mut self) {
        let now = self.clock.now();
        for _ in 0..DEADLINES_PER_TURN {
            let Some(entry) = self.timers.pop(now) else {
                break;
            };
            let (_, key) = entry;
            let Some(session) = self.sessions.get_mut(key) else {
                continue;
            };
            if !self
                .timers
                .is_due(entry, &mut session.patience.deadline, now)
            {
                continue;
            }
            if session.slot == Slot::TurnedAway && session.is_resting() {
                self.turn_away(key);
            } else if session.is_fed() && !session.has_unsent() {
                self.time_watch_out(key);
            } else if session.awaits_acks() {
                self.time_out_acks(key);
            } else if session.time_out(&self.date) == Next::Close {
                self.closed.push(key);
                continue;
            } else {
                let held = Held::one(RequestLabels::timed_out(), self.clock.now_us());
                measure::hold(session, held, &mut self.node.stats);
                enqueue(&mut self.ready, session, key);
            }
            self.set_deadline(key, true);
        }
        if self.drain_until.is_some_and(|until| until <= now) && !self.sessions.is_empty() {
            log::warn!(
                "stopping with {} connections cut off: they took too long",
                self.sessions.len()
            );
            self.closed.extend(self.sessions.iter().map(|(key, _)| key));
        }
    }

    fn free_closed(&mut self) {
        for key in std::mem::take(&mut self.closed) {
            self.free(key);
        }
    }

    /// Frees a session, unless it was closed for two reasons and is gone.
    fn free(&mut self, key: usize) {
        if let Some(session) = self.sessions.try_remove(key) {
            self.watching.forget(key);
            match session.slot {
                Slot::Served => self.idle_queue.leave(key, session.idle_entry_at),
                Slot::TurnedAway => self.turned_away.retain(|other| *other != key),
            }
            Self::forget_session(&session, &mut self.node.stats);
        }
    }

    /// Whether all is said and done, the log on disk included.
    fn is_drained(&mut self) -> Result<bool, RunError> {
        let Some(until) = self.drain_until.filter(|_| self.sessions.is_empty()) else {
            return Ok(false);
        };
        if self.disk.finish(&mut self.node, self.clock.now_us())? {
            return Ok(true);
        }
        if self.clock.now() >= until + DRAIN_MS {
            Err(RunError::DiskStalled)
        } else {
            Ok(false)
        }
    }
}

/// What the machine calls itself; empty if that is no text.
fn machine_name() -> String {
    let names = rustix::system::uname();
    names.nodename().to_str().unwrap_or_default().to_owned()
}

/// Where data is kept, in words.
fn durability(config: &Config) -> String {
    match &config.data_dir {
        Some(path) => format!("data in {}, fsync {}", path.display(), config.fsync.name()),
        None => "in memory only".to_owned(),
    }
}
