//! The node: the partitions of this process, and what it tells about itself.
//!
//! Invariants:
//! 1. Everything is owned here, by one thread; nothing is shared.
//! 2. The node has no clock and touches no file: `now_ms` (milliseconds since it started) and what the disk tells come in,
//!    commands for the disk go out.
//! 3. Until its data is loaded it has no partition, and says how far it is.

use crate::config::Config;
use crate::lsm::{Lsm, Options};
use crate::partition::{DiskLog, Partition};
use crate::storage::{Command, Event, HistoryId, Loaded, Progress, StorageError};

/// The partition that a request means when it names none.
pub const DEFAULT_PARTITION: u32 = 0;

/// A turn longer than this shows in the tail of latencies.
pub const SLOW_TURN_US: u64 = 2_000;

/// What the reactor saw of itself; shown by `/status`.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoopStats {
    /// Connections open now.
    pub connection_count: usize,
    /// Connections accepted since the start.
    pub accepted_count: u64,
    /// Connections turned away because there were too many.
    pub refused_count: u64,
    /// Requests answered since the start.
    pub request_count: u64,
    /// Turns of the loop since the start.
    pub turn_count: u64,
    /// Processor time of the longest turn, in microseconds, its poll included. Where a hypervisor takes the processor away,
    /// that time counts too.
    pub longest_turn_us: u64,
    /// Turns that took more than [`SLOW_TURN_US`].
    pub slow_turn_count: u64,
    /// Processor time of the longest slice of maintenance, in microseconds.
    pub longest_slice_us: u64,
}

/// A partition cannot be had: refuse the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// It is not on this node.
    Unknown(u32),
    /// The node is reading its data.
    Loading(Progress),
}

/// What the disk told that concerns the loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskNews {
    /// Nothing that has to be done at once.
    None,
    /// The partition is there.
    Loaded,
    /// More replies may go.
    Released,
    /// No more writes; replies that wait will never be true. Before the data was loaded: the node cannot run.
    Failed(StorageError),
    /// Everything is synced, and the disk thread ends.
    Closed,
}

#[derive(Debug)]
enum Stage {
    Loading(Progress),
    Running(Box<Partition>),
}

/// The node.
#[derive(Debug)]
pub struct Node {
    config: Config,
    stage: Stage,
    is_draining: bool,
    /// Figures of the loop that runs it.
    pub loop_stats: LoopStats,
}

impl Node {
    /// A node with one empty partition, in memory; or, if it has data to load, one that waits for it.
    pub fn new(config: Config, hash_seed: u64, history: HistoryId) -> Self {
        let stage = if config.loads_data() {
            Stage::Loading(Progress { done_bytes: 0, total_bytes: 0 })
        } else {
            let lsm = Lsm::new(Options { memtable_bytes: config.memtable_bytes, hash_seed });
            Stage::Running(Box::new(Partition::new(DEFAULT_PARTITION, lsm, history, None)))
        };
        Self { config, stage, is_draining: false, loop_stats: LoopStats::default() }
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How far loading has come, until it is done.
    pub fn loading(&self) -> Option<Progress> {
        match &self.stage {
            Stage::Loading(progress) => Some(*progress),
            Stage::Running(_) => None,
        }
    }

    /// The partition with a number, if it is here.
    #[inline]
    pub fn partition(&mut self, id: u32) -> Result<&mut Partition, Unavailable> {
        match &mut self.stage {
            Stage::Running(partition) if id == partition.id() => Ok(partition),
            Stage::Running(_) => Err(Unavailable::Unknown(id)),
            Stage::Loading(progress) => Err(Unavailable::Loading(*progress)),
        }
    }

    fn running(&self) -> Option<&Partition> {
        match &self.stage {
            Stage::Loading(_) => None,
            Stage::Running(partition) => Some(partition),
        }
    }

    fn running_mut(&mut self) -> Option<&mut Partition> {
        match &mut self.stage {
            Stage::Loading(_) => None,
            Stage::Running(partition) => Some(partition),
        }
    }

    /// All partitions.
    pub fn partitions(&self) -> impl Iterator<Item = &Partition> {
        self.running().into_iter()
    }

    /// Why no writes are taken, if so.
    pub fn write_obstacle(&self) -> Option<&StorageError> {
        self.running()?.write_obstacle()
    }

    /// Takes no new work from now on: not ready, and connections end after what is in flight.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Whether it is on its way out.
    pub fn is_draining(&self) -> bool {
        self.is_draining
    }

    /// Maintenance owed for the writes so far, in units of work.
    pub fn owed_work(&self) -> usize {
        self.running().map_or(0, |partition| partition.lsm().owed_work())
    }

    /// Whether maintenance has nothing to do.
    pub fn is_idle(&self) -> bool {
        self.running().is_none_or(|partition| partition.lsm().is_idle())
    }

    /// Does maintenance, at most about `budget` units of work; returns the units spent.
    pub fn maintain(&mut self, budget: usize) -> usize {
        self.running_mut().map_or(0, |partition| partition.lsm_mut().maintain(budget))
    }

    /// The next command for the disk, if there is one. `now_us`: microseconds since the node started.
    pub fn take_disk_command(&mut self, now_us: u64) -> Option<Command> {
        let partition = self.running_mut()?;
        match partition.hand_over(now_us) {
            Some(batch) => Some(Command::Append(batch)),
            None => partition.take_checkpoint().map(Command::Checkpoint),
        }
    }

    /// Whether something is written and waits for a sync that nobody asked for yet.
    pub fn is_sync_owed(&self) -> bool {
        self.running().and_then(Partition::disk).is_some_and(DiskLog::is_sync_owed)
    }

    /// Until when writes wait to be handed over for more to come, if they do; in microseconds since the node started.
    pub fn gathering_until_us(&self) -> Option<u64> {
        self.running()?.disk()?.gathering_until_us()
    }

    /// Whether the disk thread has been given all there is for it.
    pub fn is_handed_over(&self) -> bool {
        self.running().is_none_or(|partition| !partition.is_ahead_of_disk())
    }

    /// Replies that wait for this version, or one below, may go.
    pub fn released_version(&self) -> u64 {
        self.running().and_then(Partition::disk).map_or(u64::MAX, DiskLog::released_version)
    }

    /// The disk has told something.
    pub fn note_disk(&mut self, event: Event) -> DiskNews {
        match (event, &mut self.stage) {
            (Event::Progress(progress), stage @ Stage::Loading(_)) => *stage = Stage::Loading(progress),
            (Event::Loaded(loaded), Stage::Loading(_)) => {
                self.take_over(*loaded);
                return DiskNews::Loaded;
            }
            (Event::Written { version, synced_version, batches, stats }, Stage::Running(partition)) => {
                partition.note_written(version, synced_version, batches, stats);
                return DiskNews::Released;
            }
            (Event::Checkpointed { version, stats }, Stage::Running(partition)) => {
                log::info!("checkpoint of version {version} is in place");
                partition.note_checkpointed(stats);
            }
            (Event::Failed(error), stage) => {
                if let Stage::Running(partition) = stage {
                    partition.note_failed(error.clone());
                }
                return DiskNews::Failed(error);
            }
            (Event::Closed, _) => return DiskNews::Closed,
            (event, _) => debug_assert!(false, "{event:?} out of its time"),
        }
        DiskNews::None
    }

    fn take_over(&mut self, loaded: Loaded) {
        let Loaded { mut lsm, history, checkpoint_version, replayed_count, torn, set_aside, stats } = loaded;
        log::info!(
            "loaded version {}: checkpoint of version {checkpoint_version}, then {replayed_count} records of log",
            lsm.last_version()
        );
        if let Some(torn) = torn {
            log::warn!(
                "{} was cut at byte {}: the last {} bytes had not been synced before the node went down",
                torn.path,
                torn.offset,
                torn.dropped_bytes
            );
        }
        for path in set_aside {
            log::warn!("data was lost as accepted: what could not be read is in {path}");
        }
        let disk = stats.map(|stats| DiskLog::new(&mut lsm, self.config.fsync, stats));
        self.stage = Stage::Running(Box::new(Partition::new(DEFAULT_PARTITION, lsm, history, disk)));
    }
}
