//! The event loop: what one turn does, in order.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mio::{Events, Interest, Poll, Token, Waker};
use signal_hook_mio::v1_0::Signals;

use crate::api::{AccessPolicy, RequestLabels};
use crate::cluster::{Cluster, ClusterOptions};
use crate::config::Config;
use crate::http::{HeadLimits, HeadReader, Limits};
use crate::node::{DiskNews, Node};
use crate::partition::Wait;
use crate::storage::IdGenerator;

use super::acceptor::{self, Acceptor};
use super::clock::{self, Clock};
use super::core::Core;
use super::deadlines::TimeOuts;
use super::deferred_replies::{self, DeferredReplies};
use super::descriptors::{Descriptors, Shares};
use super::disk::DiskHandle;
use super::error::RunError;
use super::etcd::EtcdConnections;
use super::greeting;
use super::housekeeping::{Housekeeping, maintain};
use super::limits::{
    DEADLINES_PER_TURN, DRAIN_MS, EVENTS_PER_POLL, KEPT_BODY_BYTES, LEAVE_MS, LEAVE_SETS_MS,
    LINGER_MS, LINGER_SETS_MS, OUTPUT_HIGH_BYTES,
};
use super::listener::{Listener, RETRY_MS};
use super::measure;
use super::pending_metrics::PendingMetrics;
use super::relief::Relief;
use super::replication::{LinkTurn, Replication};
use super::sd_notify::SdNotify;
use super::session::{Admission, Next};
use super::sessions::Sessions;
use super::slow_log::SlowLog;
use super::timers::Millis;
use super::visit_batch::{VisitBatch, VisitParts};
use super::watching::Watching;

const LISTENER: Token = Token(usize::MAX - 1);
const SIGNALS: Token = Token(usize::MAX - 2);
/// Another thread has results for the loop.
const WAKE: Token = Token(usize::MAX - 3);

/// The loop and all it owns.
pub(super) struct EventLoop {
    poll: Poll,
    signals: Signals,
    /// Kept open here: closed by the thread that woke the loop last, it would take the event along.
    _waker: Arc<Waker>,
    core: Core,
    acceptor: Acceptor,
    visits: VisitBatch,
    deferred: DeferredReplies,
    watching: Watching,
    relief: Relief,
    slow_log: SlowLog,
    disk: DiskHandle,
    replication: Replication,
    etcd: Option<Box<EtcdConnections>>,
    housekeeping: Housekeeping,
    sd_notify: SdNotify,
    stopping: Stopping,
}

/// How far the end of the node has come.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_field_names,
    reason = "each is a time until which something lasts"
)]
struct Stopping {
    /// The node hands its partitions over, until then at the latest.
    leave_until: Option<Millis>,
    /// It does not stop before.
    linger_until: Millis,
    /// The node stops; from then on connections are cut off.
    drain_until: Option<Millis>,
}

impl EventLoop {
    pub(super) fn new(
        config: &Config,
        hash_seed: u64,
        mut ids: IdGenerator,
    ) -> Result<Self, RunError> {
        let (poll, listener, signals, waker) = open_sources(config)?;
        let address = listener
            .local_addr()
            .map_err(|error| RunError::System("getsockname", error))?;
        let (replication, replication_address) = Replication::start(
            config.replication_listen,
            poll.registry(),
            Arc::clone(&waker),
        )?;
        // Everything is open now that stays open, but for files.
        let (descriptors, shares) = share_descriptors(config)?;
        let disk = DiskHandle::start(config, hash_seed, ids.split(), Arc::clone(&waker))?;
        let config_in_force = Config {
            listen: address,
            ..config.clone()
        };
        greeting::log_greeting(&config_in_force, replication_address);
        let serving = format!(
            "serving on http://{address}, {}",
            greeting::durability(config)
        );
        let sd_notify = SdNotify::from_environment(|name| std::env::var_os(name), serving);
        let cluster = cluster_options(&config_in_force);
        let cluster_init = config_in_force.cluster_init;
        let mut node = Node::new(config_in_force, hash_seed, ids);
        if let Some(options) = cluster {
            node.join_cluster(options);
        }
        if let Some(shape) = cluster_init {
            node.init_cluster_by_itself(shape);
        }
        node.stats.started_unix_ms = clock::unix_ms();
        node.replication_port = replication_address.map(|address| address.port());
        let etcd = EtcdConnections::open(config, hash_seed, &waker);
        Ok(Self {
            poll,
            signals,
            etcd,
            _waker: waker,
            core: Core {
                node,
                sessions: Sessions::new(time_outs(config)),
                clock: Clock::start(),
            },
            acceptor: Acceptor::new(listener, descriptors, shares),
            visits: visit_batch(config),
            deferred: DeferredReplies::default(),
            watching: Watching::default(),
            relief: Relief::default(),
            slow_log: SlowLog::new(config.slow_request_ms),
            disk,
            replication,
            housekeeping: Housekeeping::start(),
            sd_notify,
            stopping: Stopping::default(),
        })
    }

    pub(super) fn run(mut self) -> Result<(), RunError> {
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
            self.on_events(&events)?;
            self.check_leaving();
            self.acceptor.accept(&mut self.core, self.poll.registry());
            self.on_disk_events()?;
            let is_quiet = self.core.sessions.ready.keys.is_empty();
            let mut turn = LinkTurn {
                node: &mut self.core.node,
                registry: self.poll.registry(),
                now: self.core.clock.now,
            };
            self.replication.read(&mut turn, is_quiet);
            if self.etcd.is_some() {
                self.step_cluster()?;
            }
            let now = self.core.clock.now;
            // Records that gathered during the last sync go to the disk first: it works while
            // replies are sent.
            self.hand_over_to_disk();
            self.deferred.release(&mut self.core);
            let visited_all = self.visit_ready();
            self.watching.send_all(&mut self.core);
            self.hand_over_to_disk();
            self.replication.write(&mut self.core.node, is_quiet, now);
            let slice_us = maintain(&mut self.core, visited_all && events.is_empty());
            self.check_deadlines();
            self.relief.relieve(&mut self.core);
            self.free_closed();
            self.sd_notify.report(&self.core.node, now);
            self.end_turn(slice_us);
            if self.is_drained()? {
                log::info!("stopped");
                return Ok(());
            }
        }
    }

    /// How long the poll may wait.
    fn time_out(&self) -> Option<Duration> {
        let Core {
            node,
            sessions,
            clock,
        } = &self.core;
        let is_busy = !sessions.ready.keys.is_empty() || !node.is_idle() || self.watching.is_busy();
        if is_busy || self.deferred.is_due(&self.core) {
            return Some(Duration::ZERO);
        }
        let now = clock.now;
        let link_at = self.replication.wake_at(node);
        let due_at = [link_at, self.acceptor.wake_at(), self.cluster_wake_at()];
        let due_at = due_at.into_iter().flatten().min();
        if due_at.is_some_and(|at| at <= now) {
            return Some(Duration::ZERO);
        }
        let deadlines = [
            sessions.next_deadline(),
            due_at,
            self.stopping.drain_until.or(self.stopping.leave_until),
            self.disk.sync_at,
            node.gathering_until_us().map(|at_us| at_us / 1_000),
            node.maintain_in_ms().map(|in_ms| now + in_ms),
            node.resources.scan_snapshots.next_ms(),
            self.sd_notify.wake_at(),
            self.relief.wake_at(node.is_full(), now),
            node.is_short_of_descriptors().then(|| now + RETRY_MS),
        ];
        let next = deadlines
            .map(|at| at.unwrap_or(Millis::MAX))
            .into_iter()
            .min()
            .filter(|&at| at != Millis::MAX)?;
        // One more: the clock's milliseconds are rounded down, and waking just before the deadline
        // is one turn too many.
        Some(Duration::from_millis(next.saturating_sub(now) + 1))
    }

    fn start_turn(&mut self) {
        self.housekeeping.start_turn(&mut self.core);
        self.slow_log.tick(self.core.clock.now);
        self.acceptor
            .share_descriptors(&mut self.core, &mut self.replication);
    }

    fn end_turn(&mut self, slice_us: u64) {
        let stats = &mut self.core.node.loop_stats;
        stats.connection_count = self.core.sessions.len();
        stats.watcher_count = self.watching.count();
        stats.link_count = self.replication.link_count();
        stats.stranger_count = self.replication.stranger_count();
        let turn_us = self.housekeeping.end_turn(&mut self.core);
        self.slow_log.log_turn(turn_us, slice_us);
    }

    fn visit_ready(&mut self) -> bool {
        let mut visited = VisitParts {
            deferred: &mut self.deferred,
            watching: &mut self.watching,
            slow_log: &mut self.slow_log,
        };
        self.visits.visit_ready(&mut self.core, &mut visited)
    }

    /// Asks etcd, and does what is due for the cluster.
    #[inline(never)]
    fn step_cluster(&mut self) -> Result<(), RunError> {
        let Some(etcd) = &mut self.etcd else {
            return Ok(());
        };
        let (node, registry) = (&mut self.core.node, self.poll.registry());
        etcd.receive(node, registry, self.core.clock.now);
        // Read anew: all that this node has taken in came before.
        let now = self.core.clock.read_us() / 1_000;
        if node.cluster_wake_at_ms().is_some_and(|at| at <= now) {
            node.step_cluster(now);
        }
        etcd.ask(node, registry, now);
        match node.cluster().and_then(Cluster::successor) {
            Some(url) => Err(RunError::Replaced(url.to_owned())),
            None => Ok(()),
        }
    }

    fn cluster_wake_at(&self) -> Option<Millis> {
        let etcd_at = self.etcd.as_ref()?.wake_at(self.core.clock.now);
        let cluster_at = self.core.node.cluster_wake_at_ms();
        Some(etcd_at.min(cluster_at.unwrap_or(Millis::MAX)))
    }

    fn hand_over_to_disk(&mut self) {
        let now_us = self.core.clock.now_us;
        self.disk.hand_over(&mut self.core.node, now_us);
    }

    /// Takes in the results of the disk thread.
    fn on_disk_events(&mut self) -> Result<(), RunError> {
        let core = &mut self.core;
        while let Some(event) = self.disk.next_event() {
            let is_loading = core.node.loading().is_some();
            match core.node.on_disk_event(event) {
                DiskNews::None => {
                    if let Some(progress) = core.node.loading() {
                        self.disk.show_progress(progress, core.clock.now);
                    }
                }
                DiskNews::Loaded => self.disk.on_loaded(),
                DiskNews::Failed(error) if is_loading => {
                    self.disk.on_loaded();
                    return Err(RunError::Storage(error));
                }
                DiskNews::Failed(error) => {
                    self.deferred.fail_all(&error, core);
                    self.sd_notify.on_disk_failed(&error);
                    self.disk.on_disk_failed(error);
                }
                DiskNews::Stalled(id, error) => {
                    self.deferred.fail_where(&error, core, |partition, wait| {
                        partition == id && matches!(wait, Wait::Disk { .. } | Wait::Settled { .. })
                    });
                }
                DiskNews::NotOpened(id, error) => {
                    self.deferred
                        .fail_where(&error, core, |partition, _| partition == id);
                }
                DiskNews::Closed => self.disk.on_closed(),
            }
        }
        Ok(())
    }

    fn on_events(&mut self, events: &Events) -> Result<(), RunError> {
        for event in events {
            match event.token() {
                LISTENER => self.acceptor.on_event(),
                SIGNALS => self.on_signals()?,
                // Only ends the poll: results of other threads are taken in every turn.
                WAKE => {}
                _ if self.etcd.as_mut().is_some_and(|etcd| etcd.note(event)) => {}
                _ if self.replication.note(event) => {}
                Token(key) => self.core.sessions.on_event(key, event),
            }
        }
        Ok(())
    }

    fn on_signals(&mut self) -> Result<(), RunError> {
        for _ in self.signals.pending() {
            if self.stopping.leave_until.is_some() {
                return Err(RunError::Interrupted);
            }
            self.leave();
        }
        Ok(())
    }

    /// Hands over what other nodes can lead, leaves the sets of copies in sync, and stops then.
    fn leave(&mut self) {
        let leaving = self.core.node.begin_leaving();
        let (led, in_sync) = (leaving.handing_over.len(), leaving.in_sync.len());
        if led > 0 {
            log::info!("handing {led} partitions over to other nodes before stopping");
        }
        if in_sync > 0 {
            log::info!("leaving the copies in sync of {in_sync} partitions before stopping");
        }
        let (leave_ms, linger_ms) = match (led, in_sync) {
            (0, 0) => (0, 0),
            (0, _) => (LEAVE_SETS_MS, LINGER_SETS_MS),
            _ => (LEAVE_MS, LINGER_MS),
        };
        let now = self.core.clock.now;
        self.stopping.leave_until = Some(now + leave_ms);
        self.stopping.linger_until = now + linger_ms;
    }

    /// Stops once everything is handed over that can be.
    fn check_leaving(&mut self) {
        if self.core.node.is_leaving() && self.stopping.leave_until.is_none() {
            self.leave();
        }
        let Stopping {
            leave_until: Some(until),
            linger_until,
            drain_until: None,
        } = self.stopping
        else {
            return;
        };
        let has_left = self.core.node.has_left();
        let stays_until = if has_left { linger_until } else { until };
        if self.core.clock.now < stays_until {
            return;
        }
        if !has_left {
            log::warn!(
                "stopping although not everything was handed over in time, or etcd names copies of \
                 this node in sync: leaders wait for them for a moment"
            );
        }
        log::info!("stopping: no new connections, finishing what is in flight");
        self.stopping.drain_until = Some(self.core.clock.now + DRAIN_MS);
        self.core.node.drain();
        self.replication.drain();
        self.watching.end_all(&mut self.core);
        self.acceptor.stop();
        self.core.sessions.drain();
    }

    /// Ends or answers sessions that are past their deadline, a bounded number.
    fn check_deadlines(&mut self) {
        let now = self.core.clock.now;
        let mut left = DEADLINES_PER_TURN;
        while let Some(key) = self.core.sessions.pop_overdue(now, &mut left) {
            self.on_overdue(key);
        }
        let sessions = &mut self.core.sessions;
        if self.stopping.drain_until.is_some_and(|until| until <= now) && sessions.len() > 0 {
            let count = sessions.len();
            log::warn!("stopping with {count} connections cut off: they took too long");
            sessions.close_all();
        }
    }

    fn on_overdue(&mut self, key: usize) {
        let core = &mut self.core;
        let session = &mut core.sessions.table[key];
        if session.admission == Admission::TurnedAway && session.is_resting() {
            acceptor::turn_away(core, key);
        } else if session.output.is_fed() && !session.has_unsent() {
            self.watching.time_out(core, key);
        } else if session.awaits_acks() {
            deferred_replies::time_out_acks(core, key);
        } else if session.time_out(&core.clock.date) == Next::Close {
            core.sessions.close(key);
            return;
        } else {
            let held = PendingMetrics::one(RequestLabels::timed_out(), core.clock.now_us);
            measure::hold(session, held, &mut core.node.stats);
            core.sessions.enqueue(key);
        }
        let watches_until = self.watching.deadline_of(key);
        core.set_deadline(key, true, watches_until);
    }

    fn free_closed(&mut self) {
        for key in self.core.sessions.take_closed() {
            self.watching.forget(key);
            self.acceptor.free(&mut self.core, key);
        }
    }

    /// Whether everything is done, the log on disk included.
    fn is_drained(&mut self) -> Result<bool, RunError> {
        let is_empty = self.core.sessions.len() == 0;
        let Some(until) = self.stopping.drain_until.filter(|_| is_empty) else {
            return Ok(false);
        };
        let now_us = self.core.clock.now_us;
        if self.disk.finish(&mut self.core.node, now_us)? {
            return Ok(true);
        }
        if self.core.clock.now >= until + DRAIN_MS {
            Err(RunError::DiskStalled)
        } else {
            Ok(false)
        }
    }
}

/// Opens what the loop polls.
fn open_sources(config: &Config) -> Result<(Poll, Listener, Signals, Arc<Waker>), RunError> {
    let poll = Poll::new().map_err(|error| RunError::System("epoll_create", error))?;
    let mut listener =
        Listener::bind(config.listen).map_err(|error| RunError::Listen(config.listen, error))?;
    let register = |error| RunError::System("epoll_ctl", error);
    poll.registry()
        .register(&mut listener.socket, LISTENER, Interest::READABLE)
        .map_err(register)?;
    let mut signals = Signals::new([signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT])
        .map_err(|error| RunError::System("sigaction", error))?;
    poll.registry()
        .register(&mut signals, SIGNALS, Interest::READABLE)
        .map_err(register)?;
    let waker =
        Waker::new(poll.registry(), WAKE).map_err(|error| RunError::System("eventfd", error))?;
    Ok((poll, listener, signals, Arc::new(waker)))
}

/// What the node has to know of its cluster, if it is of one.
fn cluster_options(config: &Config) -> Option<ClusterOptions> {
    let node = config.node.clone().filter(|_| config.etcd.is_some())?;
    Some(ClusterOptions {
        cluster: config.cluster.clone(),
        node,
        url: config.own_url(),
        zone: config.zone.clone().unwrap_or_default(),
        lease_ms: config.lease_ms,
        min_in_sync: usize::from(config.min_in_sync),
    })
}

/// Shares descriptors out, and says so if there are fewer connections than configured.
fn share_descriptors(config: &Config) -> Result<(Descriptors, Shares), RunError> {
    let mut descriptors = Descriptors::at_start();
    descriptors.reserve_for(config);
    descriptors.check()?;
    let shares = descriptors.shares(1, config.max_connections);
    if shares.connections < config.max_connections {
        log::warn!(
            "at most {} connections instead of {}: the limit on file descriptors is {} (ulimit \
             -n), and files and replication have their share of it",
            shares.connections,
            config.max_connections,
            descriptors.limit
        );
    }
    Ok((descriptors, shares))
}

fn visit_batch(config: &Config) -> VisitBatch {
    let heads = HeadReader::new(HeadLimits {
        head_bytes: config.max_head_bytes,
        header_count: crate::http::MAX_HEADER_COUNT,
    });
    let limits = Limits {
        output_high_bytes: OUTPUT_HIGH_BYTES,
        kept_body_bytes: KEPT_BODY_BYTES.max(config.max_value_bytes as u64),
    };
    VisitBatch::new(heads, limits, AccessPolicy::new(config, &machine_name()))
}

fn time_outs(config: &Config) -> TimeOuts {
    TimeOuts {
        idle_ms: config.idle_timeout_ms,
        header_ms: config.header_timeout_ms,
        acks_ms: config.ack_timeout_ms,
    }
}

/// The host name of the machine; empty if it is not UTF-8.
fn machine_name() -> String {
    let names = rustix::system::uname();
    names.nodename().to_str().unwrap_or_default().to_owned()
}
