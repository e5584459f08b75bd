//! The loop's side of the disk thread: starts it, hands records over, ends it.

use std::path::Path;
use std::sync::Arc;

use mio::Waker;

use crate::config::{Config, Fsync};
use crate::lsm::Options;
use crate::node::{DEFAULT_PARTITION, Node};
use crate::storage::{
    CopyId, DataDir, DiskCommand, DiskEvent, DiskThread, HistoryId, IdGenerator, LOG_FILE_BYTES,
    RecoveryOptions, RecoveryProgress, StartReport, StorageError, StoragePlan, check_restore,
    check_start,
};

use super::error::RunError;
use super::progress::ProgressBar;
use super::timers::Millis;

/// Says what a start would find, or what would prevent it. Nothing is changed.
pub(super) fn check(config: &Config) -> Result<StartReport, RunError> {
    // Nothing is written: neither a seed nor a history has to be random.
    let options = recovery_options(config, 0, HistoryId([0; 16]));
    let (data_dir, restore) = (config.data_dir.as_deref(), config.restore.as_deref());
    check_start(data_dir, restore, options).map_err(RunError::Storage)
}

fn recovery_options(config: &Config, hash_seed: u64, fresh_history: HistoryId) -> RecoveryOptions {
    RecoveryOptions {
        engine: Options {
            memtable_bytes: config.memtable_bytes,
            hash_seed,
        },
        fresh_history,
        // What is drawn in its place is random.
        fresh_copy: CopyId::NONE,
        fsync: config.fsync,
        accept_data_loss: config.accept_data_loss,
        log_file_bytes: LOG_FILE_BYTES,
    }
}

/// Warns of a start without data: the directory may be mistyped, or its disk not mounted.
fn warn_if_fresh(config: &Config, data_dir: &DataDir) -> Result<(), StorageError> {
    if !data_dir.is_fresh()? {
        return Ok(());
    }
    let consequence = match &config.replica_of {
        Some(_) => ", and gets all data from its leader",
        None if config.await_assignment => "",
        None => ", and leads",
    };
    let folder = config.data_dir.as_deref().unwrap_or(Path::new(""));
    log::warn!(
        "data directory {} holds no data: this node starts empty{consequence}",
        folder.display()
    );
    Ok(())
}

/// The state of the thread.
#[derive(Debug)]
enum ThreadState {
    /// There is none.
    None,
    Running(DiskThread),
    /// Told to end.
    Closing(DiskThread),
    /// It failed.
    Failed(StorageError),
}

/// The disk thread, if there is one.
#[derive(Debug)]
pub(super) struct DiskHandle {
    state: ThreadState,
    progress_bar: ProgressBar,
    sync_interval_ms: Option<Millis>,
    pub(super) sync_at: Option<Millis>,
}

impl DiskHandle {
    /// Takes the data directory and starts the thread, if the configuration has something to load.
    pub(super) fn start(
        config: &Config,
        hash_seed: u64,
        mut ids: IdGenerator,
        waker: Arc<Waker>,
    ) -> Result<Self, RunError> {
        let mut disk = Self {
            state: ThreadState::None,
            progress_bar: ProgressBar::new(),
            sync_interval_ms: (config.fsync == Fsync::Interval).then_some(config.fsync_interval_ms),
            sync_at: None,
        };
        if !config.loads_data() {
            return Ok(disk);
        }
        let data_dir = config.data_dir.as_deref().map(DataDir::open);
        let data_dir = data_dir.transpose().map_err(RunError::Storage)?;
        if let Some(path) = &config.restore {
            check_restore(path, data_dir.as_ref()).map_err(RunError::Storage)?;
        } else if let Some(data_dir) = &data_dir {
            warn_if_fresh(config, data_dir).map_err(RunError::Storage)?;
        }
        let plan = StoragePlan {
            data_dir,
            recovery: recovery_options(config, hash_seed, HistoryId(ids.draw())),
            restore: config.restore.clone(),
            fsync: config.fsync,
            first_partition: (!config.await_assignment).then_some(DEFAULT_PARTITION),
            ids,
            clock_us: super::clock::since_boot_us,
        };
        let wake = move || {
            // An eventfd that is full has woken the loop already.
            let _ = waker.wake();
        };
        let thread =
            DiskThread::start(plan, wake).map_err(|error| RunError::System("clone", error))?;
        disk.state = ThreadState::Running(thread);
        Ok(disk)
    }

    /// The next event of the thread.
    pub(super) fn next_event(&self) -> Option<DiskEvent> {
        match &self.state {
            ThreadState::Running(thread) | ThreadState::Closing(thread) => thread.next_event(),
            ThreadState::None | ThreadState::Failed(_) => None,
        }
    }

    pub(super) fn show_progress(&mut self, progress: RecoveryProgress, now: Millis) {
        self.progress_bar.show(progress, now);
    }

    /// Loading is over, successful or not.
    pub(super) fn on_loaded(&mut self) {
        self.progress_bar.finish();
    }

    /// The thread has ended, with everything written.
    pub(super) fn on_closed(&mut self) {
        if let ThreadState::Running(mut thread) | ThreadState::Closing(mut thread) =
            std::mem::replace(&mut self.state, ThreadState::None)
        {
            thread.join();
        }
    }

    /// The thread has ended, and something is not written.
    pub(super) fn on_disk_failed(&mut self, error: StorageError) {
        self.on_closed();
        self.state = ThreadState::Failed(error);
        self.sync_at = None;
    }

    /// Hands over the node's commands, and asks for a sync when it is time.
    pub(super) fn hand_over(&mut self, node: &mut Node, now_us: u64) {
        let ThreadState::Running(thread) = &self.state else {
            return;
        };
        while let Some(command) = node.take_disk_command(now_us) {
            thread.send(command);
        }
        let now = now_us / 1_000;
        let Some(interval_ms) = self.sync_interval_ms else {
            return;
        };
        match self.sync_at {
            Some(at) if at <= now => {
                thread.send(DiskCommand::Sync);
                self.sync_at = None;
            }
            None if node.is_sync_owed() => self.sync_at = Some(now + interval_ms),
            _ => {}
        }
    }

    /// Has the thread write and sync the rest, and end; true when it has ended.
    pub(super) fn finish(&mut self, node: &mut Node, now_us: u64) -> Result<bool, RunError> {
        if node.loading().is_some() {
            // Nothing was written yet: there is nothing to wait for.
            return Ok(true);
        }
        match std::mem::replace(&mut self.state, ThreadState::None) {
            ThreadState::None => Ok(true),
            ThreadState::Failed(error) => Err(RunError::Storage(error)),
            ThreadState::Running(mut thread) => {
                while let Some(command) = node.take_disk_command(now_us) {
                    thread.send(command);
                }
                self.state = if node.is_handed_over() {
                    thread.close();
                    ThreadState::Closing(thread)
                } else {
                    ThreadState::Running(thread)
                };
                Ok(false)
            }
            ThreadState::Closing(thread) => {
                self.state = ThreadState::Closing(thread);
                Ok(false)
            }
        }
    }
}
