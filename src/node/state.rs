//! The node's state, and what every turn of the loop asks of it.

use crate::cluster::Cluster;
use crate::config::Config;
use crate::lsm::{Lsm, Options};
use crate::metrics::NodeStats;
use crate::partition::{
    Assignment, BulkWrites, DiskLog, Partition, PartitionOptions, Roles, Wait, WaitProgress,
};
use crate::storage::{
    CopyId, DiskCommand, DiskEvent, HistoryId, IdGenerator, Lineage, LoadedPartition,
    PartitionMeta, RecoveryProgress, Role, StorageError, StoreEvent,
};

use super::body_budget::BodyBudget;
use super::errors::{DEFAULT_PARTITION, PARTITIONS_MAX, Subject, Unavailable};
use super::loop_stats::LoopStats;
use super::permits::Permits;
use super::removals::Removals;
use super::scan_snapshots::ScanSnapshots;

/// Of the memory that may be in use, one part in this many has to be free again before sets are
/// taken again.
const FULL_SHARE: usize = 64;

/// Where memory is short, time between two tries to free some.
const RECLAIM_MS: u64 = 1_000;

/// What a report of the disk means to the loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskNews {
    /// Nothing that has to be done at once.
    None,
    /// The partitions are loaded.
    Loaded,
    /// The disk takes no more writes, and deferred replies fail. Before the data was loaded: the
    /// node cannot run.
    Failed(StorageError),
    /// Writes of this partition wait for room or descriptors.
    Stalled(u32, StorageError),
    /// This partition could not be made.
    NotOpened(u32, StorageError),
    /// Everything is synced, and the disk thread ends.
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Loading(RecoveryProgress),
    Running,
    /// The same, and keys decide which partition a request is about: they are spread over so many.
    /// None: over how many, etcd has not said yet.
    SpreadByKey(Option<u32>),
}

/// A partition that the disk makes.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) id: u32,
    /// What it is to be.
    pub(super) assignment: Assignment,
    /// The leadership generation that it begins with.
    pub(super) generation: u64,
}

/// Partitions that are being made on disk.
#[derive(Debug)]
pub(super) struct Openings {
    pub(super) pending: Vec<Opening>,
    /// Partitions that the disk was not told to make yet.
    pub(super) untold: Vec<u32>,
    /// How many more can be opened now, for the limit on descriptors.
    pub(super) openable_count: usize,
    /// How many partitions may have files, for the limit on descriptors.
    pub(super) partition_max: usize,
}

impl Default for Openings {
    fn default() -> Self {
        Self {
            pending: Vec::new(),
            untold: Vec::new(),
            openable_count: usize::MAX,
            partition_max: PARTITIONS_MAX,
        }
    }
}

/// Memory in use, as set last, and the maintenance that frees some.
#[derive(Debug, Default)]
struct MemoryState {
    used_bytes: usize,
    /// Whether more is in use than may be.
    is_full: bool,
    /// When merging last freed what it can, in Unix ms.
    reclaimed_at_ms: u64,
    /// The index of the partition that was maintained last.
    maintained: usize,
}

/// What requests share, each bounded.
#[derive(Debug)]
pub struct RequestResources {
    /// Permits of backups and digests.
    pub backups: Permits,
    /// Permits of scans.
    pub scans: Permits,
    /// Permits of answers to `/metrics`.
    pub scrapes: Permits,
    /// Permits of clients that wait for a change of the cluster.
    pub map_polls: Permits,
    /// Memory for request bodies on their way.
    pub bodies: BodyBudget,
    /// Snapshots kept for the next pages of scans.
    pub scan_snapshots: ScanSnapshots,
}

impl RequestResources {
    fn new(max_upload_bytes: usize) -> Self {
        Self {
            backups: Permits::default(),
            scans: Permits::default(),
            scrapes: Permits::default(),
            map_polls: Permits::default(),
            bodies: BodyBudget::new(max_upload_bytes),
            scan_snapshots: ScanSnapshots::default(),
        }
    }
}

/// The node.
#[derive(Debug)]
pub struct Node {
    pub(super) config: Config,
    pub(super) stage: Stage,
    /// In the order of their numbers.
    pub(super) partitions: Vec<Partition>,
    pub(super) openings: Openings,
    pub(super) removals: Removals,
    pub(super) bulk_writes: BulkWrites,
    pub(super) options: PartitionOptions,
    pub(super) ids: IdGenerator,
    /// Unix ms, as set last.
    pub(super) time_ms: u64,
    memory: MemoryState,
    pub(super) is_draining: bool,
    /// The cluster that it is one of, if it is.
    pub(super) cluster: Option<Box<Cluster>>,
    /// Where replicas connect, once it is known.
    pub replication_port: Option<u16>,
    /// Statistics of the loop that runs it.
    pub loop_stats: LoopStats,
    /// What requests share.
    pub resources: RequestResources,
    /// Counts, shown by `/metrics`.
    pub stats: NodeStats,
}

impl Node {
    /// A node with one empty partition, in memory; or, if it has data to load, one that waits for
    /// it. The seed and the ids are to be random.
    pub fn new(config: Config, hash_seed: u64, ids: IdGenerator) -> Self {
        let engine = Options {
            memtable_bytes: config.memtable_bytes,
            hash_seed,
        };
        let (fsync, wal_retain_bytes) = (config.fsync, config.wal_retain_bytes);
        let mut node = Self {
            stage: Stage::Loading(RecoveryProgress::default()),
            partitions: Vec::new(),
            openings: Openings::default(),
            removals: Removals::default(),
            bulk_writes: BulkWrites::default(),
            options: PartitionOptions {
                engine,
                fsync,
                wal_retain_bytes,
                address: own_address(&config),
                has_token: config.token.is_some(),
            },
            ids,
            time_ms: 0,
            memory: MemoryState::default(),
            is_draining: false,
            cluster: None,
            replication_port: None,
            loop_stats: LoopStats::default(),
            resources: RequestResources::new(config.max_upload_bytes),
            stats: NodeStats::default(),
            config,
        };
        if !node.config.loads_data() {
            node.stage = Stage::Running;
            if !node.config.await_assignment {
                let meta = node.fresh_meta(Role::Leader);
                node.insert(DEFAULT_PARTITION, Lsm::new(engine), meta, None);
            }
        }
        node
    }

    /// The metadata of a partition that begins in memory: of a history and a copy of its own.
    pub(super) fn fresh_meta(&mut self, role: Role) -> PartitionMeta {
        let lineage = Lineage::new(HistoryId(self.ids.draw()));
        let fixed = CopyId::of_name(&self.options.address);
        PartitionMeta::new(role, lineage, CopyId::draw(&mut self.ids, fixed))
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Sets the time that entries expire by, in Unix ms.
    pub fn set_time_ms(&mut self, time_ms: u64) {
        if time_ms != self.time_ms {
            self.time_ms = time_ms;
            self.partitions
                .iter_mut()
                .for_each(|partition| partition.set_time_ms(time_ms));
        }
    }

    /// Sets how much memory is in use. If it is too much, merging frees what it can, at most every
    /// [`RECLAIM_MS`].
    pub fn set_memory_in_use(&mut self, used_bytes: usize) {
        self.memory.used_bytes = used_bytes;
        if let Some(max_bytes) = self.config.max_memory_bytes {
            self.resources.bodies.set_memory_in_use(
                used_bytes,
                max_bytes,
                self.config.max_upload_bytes,
            );
        }
        let was_full = self.memory.is_full;
        // Not to change from one turn to the next, a little has to be freed.
        let spare_bytes = |max_bytes: usize| if was_full { max_bytes / FULL_SHARE } else { 0 };
        self.memory.is_full = self
            .config
            .max_memory_bytes
            .is_some_and(|max_bytes| used_bytes > max_bytes - spare_bytes(max_bytes));
        if self.memory.is_full != was_full {
            let words = if self.memory.is_full {
                "sets are refused: more than --max-memory is"
            } else {
                "sets are taken again:"
            };
            log::warn!("{words} {} MiB in use", used_bytes >> 20);
        }
        if self.memory.is_full && self.time_ms.abs_diff(self.memory.reclaimed_at_ms) >= RECLAIM_MS {
            self.memory.reclaimed_at_ms = self.time_ms;
            self.partitions.iter_mut().for_each(Partition::reclaim);
        }
    }

    /// Memory in use, as set last.
    pub fn used_bytes(&self) -> usize {
        self.memory.used_bytes
    }

    /// Memory in use above `--max-memory`.
    pub fn over_bytes(&self) -> usize {
        let max_bytes = self.config.max_memory_bytes.unwrap_or(usize::MAX);
        self.memory.used_bytes.saturating_sub(max_bytes)
    }

    /// Whether more memory is in use than may be: nothing is to be added.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.memory.is_full
    }

    /// When maintenance is due next although nothing happens, in ms from the time that was set
    /// last.
    pub fn maintain_in_ms(&self) -> Option<u64> {
        let due_in_ms = |partition: &Partition| {
            let lsm = partition.lsm();
            lsm.sweep_at_ms()
                .map(|at_ms| at_ms.saturating_sub(lsm.time_ms()))
        };
        let sweep_in_ms = self.partitions().iter().filter_map(due_in_ms).min();
        let is_reclaiming =
            self.memory.is_full && self.partitions().iter().any(Partition::has_to_reclaim);
        let reclaim_in_ms =
            RECLAIM_MS.saturating_sub(self.time_ms.abs_diff(self.memory.reclaimed_at_ms));
        sweep_in_ms
            .into_iter()
            .chain(is_reclaiming.then_some(reclaim_in_ms))
            .min()
    }

    /// How far loading has come, until it is done.
    pub fn loading(&self) -> Option<RecoveryProgress> {
        match self.stage {
            Stage::Loading(progress) => Some(progress),
            Stage::Running | Stage::SpreadByKey(_) => None,
        }
    }

    #[inline]
    pub(super) fn index_of(&self, id: u32) -> Option<usize> {
        let partitions = &self.partitions[..];
        if partitions.first().is_some_and(|first| first.id() == id) {
            return Some(0);
        }
        partitions.binary_search_by_key(&id, Partition::id).ok()
    }

    /// Whether requests that name no partition are about the first: it is number 0, or alone.
    #[inline]
    fn is_first_meant(&self) -> bool {
        match &self.partitions[..] {
            [first, rest @ ..] => first.id() == DEFAULT_PARTITION || rest.is_empty(),
            [] => false,
        }
    }

    /// The index of the partition that most requests are about: those that name none, where keys
    /// decide nothing.
    #[inline]
    pub fn default_index(&self) -> Option<usize> {
        (self.stage == Stage::Running && self.is_first_meant()).then_some(0)
    }

    /// The index of the partition for requests that name none.
    #[inline]
    pub(super) fn unnamed_index(&self) -> Result<usize, Unavailable> {
        match (&self.partitions[..], self.stage) {
            (_, Stage::Loading(progress)) => Err(Unavailable::Loading(progress)),
            _ if self.is_first_meant() => Ok(0),
            ([], _) if self.cluster.is_some() => Err(Unavailable::NoCopy(self.only_partition())),
            ([], _) => Err(Unavailable::Unassigned),
            _ => Err(Unavailable::Unnamed),
        }
    }

    /// The partition for requests that name none.
    #[inline]
    pub fn unnamed_partition(&mut self) -> Result<&mut Partition, Unavailable> {
        let index = self.unnamed_index()?;
        Ok(&mut self.partitions[index])
    }

    /// The partition with a number, if it is here.
    #[inline]
    pub fn partition(&mut self, id: u32) -> Result<&mut Partition, Unavailable> {
        let index = self.named_index(id)?;
        Ok(&mut self.partitions[index])
    }

    #[inline]
    pub(super) fn named_index(&self, id: u32) -> Result<usize, Unavailable> {
        match (self.index_of(id), self.stage) {
            (_, Stage::Loading(progress)) => Err(Unavailable::Loading(progress)),
            (Some(index), _) => Ok(index),
            (None, _) if self.cluster.is_some() => Err(Unavailable::NoCopy(Some(id))),
            (None, _) if self.partitions.is_empty() => Err(Unavailable::Unassigned),
            (None, _) => Err(Unavailable::Unknown(id)),
        }
    }

    /// The index of the partition that a request is about, given the number that it names: for
    /// [`partition_at`](Self::partition_at), before anything else changes.
    pub fn index_of_subject(
        &self,
        named: Option<u32>,
        subject: Subject<'_>,
    ) -> Result<usize, Unavailable> {
        match (self.stage, named) {
            (Stage::SpreadByKey(count), _) => self.index_by_key(count, named, subject),
            (_, Some(id)) => self.named_index(id),
            (_, None) => self.unnamed_index(),
        }
    }

    /// The partition with an index.
    #[inline]
    pub fn partition_at(&mut self, index: usize) -> &mut Partition {
        &mut self.partitions[index]
    }

    /// The only partition that the cluster has.
    fn only_partition(&self) -> Option<u32> {
        let mut ids = self.cluster.as_ref()?.members().keys();
        ids.next().copied().filter(|_| ids.next().is_none())
    }

    /// The partition with a number, read-only.
    pub fn look_at(&self, id: u32) -> Option<&Partition> {
        self.index_of(id).map(|index| &self.partitions[index])
    }

    /// The partition for requests that name none, read-only.
    pub fn look_at_unnamed(&self) -> Option<&Partition> {
        self.unnamed_index()
            .ok()
            .map(|index| &self.partitions[index])
    }

    /// Fetches into the processor's cache what reads of these keys will touch, for requests that
    /// name no partition (`lsm/lookup_cache.rs`).
    pub fn prefetch(&mut self, keys: &[&[u8]]) {
        if let Ok(partition) = self.unnamed_partition() {
            partition.lsm_mut().prefetch(keys);
        }
    }

    /// Does the same for writes that look nothing up first.
    pub fn prefetch_for_writes(&mut self, keys: &[&[u8]]) {
        if let Ok(partition) = self.unnamed_partition() {
            partition.lsm_mut().prefetch_for_writes(keys);
        }
    }

    /// Whether there is so much data that prefetching pays. Where keys are spread over partitions
    /// it does not: few of the keys that come together belong to the same one.
    pub fn is_prefetch_worth(&self) -> bool {
        let index = self.default_index();
        index.is_some_and(|index| self.partitions[index].lsm().is_prefetch_worth())
    }

    /// All partitions.
    pub fn partitions(&self) -> &[Partition] {
        if self.loading().is_some() {
            &[]
        } else {
            &self.partitions
        }
    }

    /// Why no writes are taken, if so.
    pub fn write_obstacle(&self) -> Option<&StorageError> {
        self.disks().find_map(DiskLog::failure)
    }

    /// Takes no new work from now on: not ready, and connections end after what is in flight.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Whether the node is stopping.
    pub fn is_draining(&self) -> bool {
        self.is_draining
    }

    /// Maintenance owed for the writes so far, in units of work.
    pub fn owed_work(&self) -> usize {
        let removals = self.removals.engines.owed_work();
        let partitions = self.partitions().iter().map(Partition::owed_work);
        removals + partitions.sum::<usize>()
    }

    /// Whether maintenance has nothing to do.
    pub fn is_idle(&self) -> bool {
        self.removals.engines.is_idle() && self.partitions().iter().all(Partition::is_idle)
    }

    /// Does maintenance, at most about `budget` units of work; returns the units spent.
    pub fn maintain(&mut self, budget: usize) -> usize {
        let mut spent = self.removals.engines.maintain(budget);
        // In turns: a long merge in one partition must not keep the others from theirs.
        for _ in 0..self.partitions.len() {
            if spent >= budget {
                break;
            }
            let memory = &mut self.memory;
            memory.maintained = (memory.maintained + 1) % self.partitions.len();
            let partition = &mut self.partitions[memory.maintained];
            if !partition.is_idle() {
                spent += partition.maintain(budget - spent);
            }
        }
        spent
    }

    /// The next command for the disk, if there is one. `now_us`: microseconds since the node
    /// started.
    pub fn take_disk_command(&mut self, now_us: u64) -> Option<DiskCommand> {
        if self.loading().is_some() {
            return None;
        }
        // A new partition of the same number is opened behind it.
        if let Some(command) = self.removals.take_command() {
            return Some(command);
        }
        let can_open = self.openings.openable_count > 0;
        if let Some(id) = self.openings.untold.pop_if(|_| can_open) {
            self.openings.openable_count -= 1;
            return Some(DiskCommand::Open(id));
        }
        let still = |id: Option<u32>, is_open: fn(&Partition) -> bool| {
            id.filter(|id| self.look_at(*id).is_some_and(is_open))
        };
        let mut bulk = BulkWrites {
            checkpoint_of: still(
                self.bulk_writes.checkpoint_of,
                Partition::has_checkpoint_open,
            ),
            replacement_of: still(
                self.bulk_writes.replacement_of,
                Partition::has_replacement_open,
            ),
        };
        let mut partitions = self.partitions.iter_mut();
        let command = partitions.find_map(|own| own.take_disk_command(now_us, &mut bulk));
        self.bulk_writes = bulk;
        command
    }

    /// Partitions that have a file open, or will have.
    pub fn file_count(&self) -> usize {
        match self.config.data_dir {
            Some(_) => self.partition_count(),
            None => 0,
        }
    }

    /// Partitions that are here, are being made, or have files to be removed.
    pub(super) fn partition_count(&self) -> usize {
        self.partitions.len() + self.openings.pending.len() + self.removals.pending_count()
    }

    /// Sets how many partitions may have files, and how many more can be opened now.
    pub fn set_descriptor_limits(&mut self, partition_max: usize, openable_count: usize) {
        self.openings.partition_max = partition_max;
        self.openings.openable_count = openable_count;
    }

    /// Whether a partition waits for a descriptor.
    pub fn is_short_of_descriptors(&self) -> bool {
        !self.openings.untold.is_empty() && self.openings.openable_count == 0
    }

    /// Whether something is written and waits for a sync that was not asked for yet.
    pub fn is_sync_owed(&self) -> bool {
        self.disks().any(DiskLog::is_sync_owed)
    }

    /// Until when writes wait to be handed over for more to come, if they do; in microseconds since
    /// the node started.
    pub fn gathering_until_us(&self) -> Option<u64> {
        self.disks().filter_map(DiskLog::gathering_until_us).min()
    }

    fn disks(&self) -> impl Iterator<Item = &DiskLog> {
        self.partitions().iter().filter_map(Partition::disk)
    }

    /// Whether the disk thread has been given all there is for it.
    pub fn is_handed_over(&self) -> bool {
        !self.removals.has_untold() && !self.partitions().iter().any(Partition::is_ahead_of_disk)
    }

    /// How far a kind of wait in a partition has been satisfied: not at all in a partition that the
    /// disk still makes.
    pub fn wait_progress(&self, id: u32, wait: Wait) -> WaitProgress {
        if wait == Wait::Removed {
            return WaitProgress::UpTo(self.removals.done_count());
        }
        if let Wait::Operation { number } = wait {
            let cluster = self.cluster();
            return cluster.map_or(WaitProgress::Never, |own| own.operation_progress(number));
        }
        match self.index_of(id) {
            Some(index) => self.partitions[index].wait_progress(wait),
            None if self.settled_wait(id) == Some(wait) => WaitProgress::UpTo(0),
            None => WaitProgress::Never,
        }
    }

    /// What the reply to the assignment of a partition waits for.
    pub fn settled_wait(&self, id: u32) -> Option<Wait> {
        let mut pending = self.openings.pending.iter();
        let opening = pending.find(|opening| opening.id == id);
        let made = opening.map(|opening| Wait::Settled {
            first_generation: opening.generation,
        });
        made.or_else(|| self.look_at(id).map(Partition::settled_wait))
    }

    pub(super) fn add(&mut self, mut partition: Partition) {
        partition.set_time_ms(self.time_ms);
        let at = self
            .partitions
            .partition_point(|other| other.id() < partition.id());
        self.partitions.insert(at, partition);
        self.wake_cluster();
    }

    /// A partition that was there at the start, in the role that the command line and what is on
    /// disk give it.
    fn insert(&mut self, id: u32, lsm: Lsm, mut meta: PartitionMeta, disk: Option<DiskLog>) {
        // What a controller has said counts for more than the command line, which it cannot change.
        let is_assigned = meta.epoch > 0;
        let leader = self
            .config
            .replica_of
            .clone()
            .filter(|_| id == DEFAULT_PARTITION && !is_assigned);
        if let Some(leader) = leader {
            (meta.role, meta.leader) = (Role::Replica, Some(leader));
        }
        let awaits = self.config.await_assignment;
        let roles = if awaits {
            Roles::awaiting(meta)
        } else {
            Roles::in_force(meta)
        };
        let ids = self.ids.split();
        let mut partition = Partition::new(id, lsm, roles, disk, self.options.clone(), ids);
        partition.resume_office();
        self.add(partition);
    }

    /// Acts on a report of the disk.
    pub fn on_disk_event(&mut self, event: DiskEvent) -> DiskNews {
        if self.removals.concerns(&event) {
            return DiskNews::None;
        }
        match event {
            DiskEvent::Removed(_) => {}
            DiskEvent::Progress(progress) => self.stage = Stage::Loading(progress),
            DiskEvent::Loaded(loaded) => self.take_over(*loaded),
            DiskEvent::Ready => {
                self.stage = Stage::Running;
                self.follow_spread();
                return DiskNews::Loaded;
            }
            DiskEvent::NotOpened(id, error) => {
                log::error!("partition {id} could not be made: {error}");
                self.openings.pending.retain(|opening| opening.id != id);
                return DiskNews::NotOpened(id, error);
            }
            DiskEvent::Store(id, event, stats) => {
                let stall = self.report(id, &event);
                if matches!(event, StoreEvent::Settled | StoreEvent::Replaced(_)) {
                    // A member may have waited for it.
                    self.wake_cluster();
                }
                if let Ok(partition) = self.partition(id) {
                    partition.on_store_event(event, stats);
                }
                return stall.map_or(DiskNews::None, |error| DiskNews::Stalled(id, error));
            }
            DiskEvent::Failed(error) => {
                self.partitions
                    .iter_mut()
                    .for_each(|partition| partition.on_disk_failed(error.clone()));
                // Another node is to lead.
                self.wake_cluster();
                return DiskNews::Failed(error);
            }
            DiskEvent::Closed => return DiskNews::Closed,
        }
        DiskNews::None
    }

    /// Logs and counts what has become of a partition's files; returns why writes wait from now on.
    fn report(&mut self, id: u32, event: &StoreEvent) -> Option<StorageError> {
        match event {
            StoreEvent::Written { sync_us, .. } => {
                sync_us.map(|us| self.stats.log_syncs.record(us));
            }
            StoreEvent::Checkpointed(version) => {
                log::info!("partition {id}: checkpoint of version {version} is in place");
            }
            StoreEvent::CheckpointGivenUp(error) => log::warn!(
                "partition {id}: a checkpoint is given up, and tried again later; the log goes on: \
                 {error}"
            ),
            StoreEvent::Stalled(error) => {
                log_stall(id, error);
                return Some(error.clone());
            }
            StoreEvent::Resumed => log::info!("partition {id}: writes go on"),
            StoreEvent::Settled | StoreEvent::Replaced(_) => {}
        }
        None
    }

    fn take_over(&mut self, loaded: LoadedPartition) {
        let LoadedPartition {
            partition: id,
            lsm,
            mut meta,
            report,
            stats,
        } = loaded;
        let disk = stats.map(|stats| {
            let mut disk = DiskLog::new(&lsm, self.config.fsync, stats);
            if let Some(error) = report.shortage {
                log_stall(id, &error);
                disk.on_stall(error, stats);
            }
            disk
        });
        let mut pending = self.openings.pending.iter();
        if let Some(at) = pending.position(|opening| opening.id == id) {
            let opening = self.openings.pending.swap_remove(at);
            meta.role = Role::Unassigned;
            let outcome = self.make(&opening, lsm, meta, disk);
            debug_assert!(outcome.is_ok(), "a new partition takes any role");
            return;
        }
        log::info!(
            "partition {id}: loaded version {}: checkpoint of version {}, then {} records of log",
            lsm.last_version(),
            report.checkpoint_version,
            report.replayed_count
        );
        if let Some(torn) = report.torn {
            log::warn!(
                "{} was cut at byte {}: the last {} bytes had not been synced before the node went \
                 down",
                torn.path,
                torn.offset,
                torn.dropped_bytes
            );
        }
        for loss in report.losses {
            log::warn!("data was lost as accepted: {loss}");
        }
        for path in report.set_aside {
            log::warn!("what could not be used is in {path}");
        }
        self.insert(id, lsm, meta, disk);
    }
}

fn log_stall(id: u32, error: &StorageError) {
    log::error!(
        "partition {id}: writes wait, and go on by themselves once they can; reads go on: {error}"
    );
}

/// The HTTP address that this node tells others. Where it listens on all addresses, they see its
/// host themselves.
fn own_address(config: &Config) -> String {
    match &config.advertise {
        Some(address) => address.clone(),
        None if config.listen.ip().is_unspecified() => format!(":{}", config.listen.port()),
        None => format!("http://{}", config.listen),
    }
}
