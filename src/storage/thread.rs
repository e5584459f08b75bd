//! The disk thread: when commands are executed, logs synced, and pieces of checkpoints written.
//!
//! Invariants:
//! 1. Commands are executed in order.
//! 2. The first error is reported once. After it nothing is written, and commands are dropped.
//! 3. Batches and events change hands through mailboxes, with locks that are held for no work, and
//!    each thread has memory of its own (`allocator/arena.rs`).
//!
//! Not here: what a command does (`worker.rs`).

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::allocator::{Regions, take_regions};
use crate::config::Fsync;

use super::copy_id::CopyId;
use super::data_dir::DataDir;
use super::disk::Disks;
use super::error::StorageError;
use super::history_id::HistoryId;
use super::id_generator::IdGenerator;
use super::mailbox::Mailbox;
use super::recovery::{RecoveryOptions, RecoveryProgress};
use super::restore;
use super::worker::{DiskCommand, DiskEvent, DiskWorker, LoadedPartition};

/// Commits between two pieces of a checkpoint while writes go on: the checkpoint takes about a
/// third of the disk's time.
const COMMITS_PER_PIECE: usize = 8;

/// How long a piece of a checkpoint waits for a commit that may come first, and a mark for the
/// batch that would bring it along.
const PAUSE: Duration = Duration::from_millis(1);

/// How long after a sync of the log `log-end` is synced, too.
const LOG_END_DELAY_US: u64 = 1_000_000;

/// How long after a lack of room or descriptors the same is tried again.
const RETRY_DELAY_US: u64 = 200_000;

/// What the thread begins with.
#[derive(Debug)]
pub struct StoragePlan {
    /// Where to keep data. Without a directory the thread ends after `restore`.
    pub data_dir: Option<DataDir>,
    /// How to recover.
    pub recovery: RecoveryOptions,
    /// A backup to start from, which [`check_restore`](super::check_restore) has let pass.
    pub restore: Option<PathBuf>,
    /// When the log is synced.
    pub fsync: Fsync,
    /// The partition that is made in an empty directory.
    pub first_partition: Option<u32>,
    /// Draws the ids of histories that begin here.
    pub ids: IdGenerator,
    /// A clock in microseconds, for timers and for the duration of syncs.
    pub clock_us: fn() -> u64,
}

/// What the loop has the thread do.
#[derive(Debug)]
enum ThreadOrder {
    Execute(DiskCommand),
    /// Everything was sent.
    Close,
    /// The loop has ended early, perhaps with records that were not sent.
    Abandon,
}

/// The loop's end of the thread.
#[derive(Debug)]
pub struct DiskThread {
    orders: Arc<Mailbox<ThreadOrder>>,
    events: Arc<Mailbox<(DiskEvent, Regions)>>,
    handle: Option<JoinHandle<()>>,
}

impl DiskThread {
    /// Starts the thread, which calls `wake` after each event.
    pub fn start(plan: StoragePlan, wake: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let orders = Arc::new(Mailbox::new());
        let events = Arc::new(Mailbox::new());
        let event_sender = EventSender {
            events: Arc::clone(&events),
            wake: Box::new(wake),
        };
        let taken = Arc::clone(&orders);
        let run = move || run(plan, &taken, &event_sender);
        let handle = std::thread::Builder::new()
            .name("disk".to_owned())
            .spawn(run)?;
        Ok(Self {
            orders,
            events,
            handle: Some(handle),
        })
    }

    /// Sends a command, without effect after [`close`](Self::close) or once the thread has ended.
    pub fn send(&self, command: DiskCommand) {
        self.orders.put(ThreadOrder::Execute(command));
    }

    /// The next event, if there is one.
    pub fn next_event(&self) -> Option<DiskEvent> {
        let (event, regions) = self.events.take()?;
        regions.adopt();
        Some(event)
    }

    /// Everything was sent: lets the thread execute the commands that it has, for a clean stop;
    /// [`DiskEvent::Closed`] follows.
    pub fn close(&mut self) {
        self.orders.put(ThreadOrder::Close);
    }

    /// Waits for the end of the thread, after [`DiskEvent::Closed`] or [`DiskEvent::Failed`].
    pub fn join(&mut self) {
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}

impl Drop for DiskThread {
    fn drop(&mut self) {
        self.orders.put(ThreadOrder::Abandon);
    }
}

struct EventSender {
    events: Arc<Mailbox<(DiskEvent, Regions)>>,
    wake: Box<dyn Fn() + Send>,
}

impl EventSender {
    fn emit(&self, event: DiskEvent) {
        // A loaded engine goes to the loop with the memory that it lies in.
        let regions = match event {
            DiskEvent::Loaded(_) => take_regions(),
            _ => Regions::default(),
        };
        self.events.put((event, regions));
        (self.wake)();
    }
}

fn run(plan: StoragePlan, orders: &Mailbox<ThreadOrder>, events: &EventSender) {
    let clock_us = plan.clock_us;
    let outcome = load(plan, events).and_then(|worker| match worker {
        Some(worker) => work(worker, orders, events, clock_us),
        None => Ok(()),
    });
    events.emit(match outcome {
        Ok(()) => DiskEvent::Closed,
        Err(error) => DiskEvent::Failed(error.into_final()),
    });
}

/// Recovers or restores all partitions, and sends them to the loop. None without a data directory.
fn load(
    mut plan: StoragePlan,
    events: &EventSender,
) -> Result<Option<DiskWorker<DataDir>>, StorageError> {
    // One event a percent, not one a chunk.
    let mut last_percent = 0;
    let mut on_progress = |progress: RecoveryProgress| {
        if progress.percent() != last_percent {
            last_percent = progress.percent();
            events.emit(DiskEvent::Progress(progress));
        }
    };
    let options = RecoveryOptions {
        fresh_history: HistoryId(plan.ids.draw()),
        fresh_copy: CopyId::draw(&mut plan.ids, plan.recovery.fresh_copy),
        fsync: plan.fsync,
        ..plan.recovery
    };
    let Some(data_dir) = plan.data_dir else {
        if let Some(path) = &plan.restore {
            let lsm = restore::read_backup(path, &options, &mut on_progress)?;
            let loaded = LoadedPartition::in_memory(0, lsm, &options);
            events.emit(DiskEvent::Loaded(Box::new(loaded)));
        }
        events.emit(DiskEvent::Ready);
        return Ok(None);
    };
    let found = data_dir.partitions()?;
    let removed = data_dir.removed_partitions()?;
    let restored = match &plan.restore {
        Some(path) => {
            let lsm = restore::read_backup(path, &options, &mut on_progress)?;
            Some(restore::settle(data_dir.partition(0)?, lsm, &options)?)
        }
        None => None,
    };
    let mut worker = DiskWorker::new(data_dir, plan.recovery, plan.ids, plan.fsync);
    worker.measure(plan.clock_us);
    if let Some(recovered) = restored {
        events.emit(DiskEvent::Loaded(Box::new(worker.adopt(0, recovered)?)));
    } else {
        let is_made = |id: &u32| found.is_empty() && !removed.contains(id);
        let made = plan.first_partition.filter(is_made);
        for id in found.into_iter().chain(made) {
            let loaded = worker.load(id, &mut on_progress)?;
            if loaded.is_half_made() {
                worker.execute(DiskCommand::Remove(id), &mut |_| {})?;
            } else {
                events.emit(DiskEvent::Loaded(Box::new(loaded)));
            }
        }
    }
    events.emit(DiskEvent::Ready);
    Ok(Some(worker))
}

fn work(
    mut worker: DiskWorker<DataDir>,
    orders: &Mailbox<ThreadOrder>,
    events: &EventSender,
    clock_us: fn() -> u64,
) -> Result<(), StorageError> {
    let emit = &mut |event| events.emit(event);
    // Commits since the last piece of a checkpoint.
    let mut commit_count = 0;
    // When `log-end` is to be synced.
    let mut log_end_due_us = None;
    // When stalled commands are tried again.
    let mut retry_due_us = None;
    loop {
        log_end_due_us = match log_end_due_us {
            _ if !worker.is_log_end_behind() => None,
            Some(due_us) if due_us <= clock_us() => {
                worker.sync_log_ends()?;
                None
            }
            due_us => due_us.or_else(|| Some(clock_us() + LOG_END_DELAY_US)),
        };
        retry_due_us = match retry_due_us {
            _ if !worker.is_stalled() => None,
            Some(due_us) if due_us <= clock_us() => {
                worker.try_stalled(emit)?;
                worker.commit(emit)?;
                Some(clock_us() + RETRY_DELAY_US)
            }
            due_us => due_us.or_else(|| Some(clock_us() + RETRY_DELAY_US)),
        };
        let next_due_us = log_end_due_us.into_iter().chain(retry_due_us).min();
        let until_due =
            next_due_us.map(|due_us: u64| Duration::from_micros(due_us.saturating_sub(clock_us())));
        let timeout = if worker.has_more() {
            Some(PAUSE)
        } else {
            until_due
        };
        let mut next = orders.wait(timeout);
        if next.is_none() {
            worker.rest()?;
            commit_count = COMMITS_PER_PIECE;
        } else {
            while let Some(order) = next {
                match order {
                    ThreadOrder::Execute(command) => worker.execute(command, emit)?,
                    ThreadOrder::Close => {
                        worker.commit(emit)?;
                        return worker.close();
                    }
                    ThreadOrder::Abandon => {
                        worker.commit(emit)?;
                        return worker.sync_all();
                    }
                }
                next = orders.take();
            }
            worker.commit(emit)?;
            commit_count += 1;
        }
        if commit_count >= COMMITS_PER_PIECE {
            commit_count = 0;
            worker.write_piece(emit)?;
        }
    }
}
