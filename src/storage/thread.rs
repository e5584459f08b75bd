//! The disk thread: takes what the loop hands over, writes and syncs it, and tells.
//!
//! Each batch is a group commit: it gathered in the loop while the one before was synced (`partition/disk_log.rs`). A checkpoint
//! is written in between, a piece at a time, so that a commit waits for at most one piece.
//!
//! Invariants:
//! 1. Commands are carried out in order; for `Fsync::Always` an append is told as durable only after its sync.
//! 2. After an error nothing more is written. It is told once; commands that follow are dropped.
//! 3. No lock is shared with the loop: batches and events change hands through channels.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::config::Fsync;
use crate::lsm::{LogBatch, Lsm, Snapshot};

use super::data_dir::DataDir;
use super::disk::{Disk, SystemDisk};
use super::recovery::{Progress, Recovered, RecoveryOptions, Torn, recover};
use super::restore;
use super::store::{Store, StoreStats};
use super::{HistoryId, StorageError};

/// Commits between two pieces of a checkpoint while writes go on: the checkpoint takes about a third of the disk's time.
const COMMITS_PER_PIECE: usize = 8;

/// How long a piece of a checkpoint, and a mark that the next batch would bring along, wait for commits that may come.
const PAUSE: Duration = Duration::from_millis(1);

/// What the loop asks for.
#[derive(Debug)]
pub enum Command {
    /// Write records behind the log.
    Append(LogBatch),
    /// Make what is written last.
    Sync,
    /// Write a checkpoint, unless one is being written.
    Checkpoint(Snapshot),
}

/// What the thread tells.
#[derive(Debug)]
pub enum Event {
    /// Recovery goes on.
    Progress(Progress),
    /// Recovery is done; commands are taken.
    Loaded(Box<Loaded>),
    /// Records up to here are written. The batches come back for their allocation.
    Written {
        /// Version of the last one.
        version: u64,
        /// Version up to which they are also synced.
        synced_version: u64,
        /// Batches to fill again.
        batches: Vec<LogBatch>,
        /// Figures.
        stats: StoreStats,
    },
    /// A checkpoint is in place.
    Checkpointed {
        /// Its version.
        version: u64,
        /// Figures.
        stats: StoreStats,
    },
    /// It is over: nothing was or will be written behind what was told before.
    Failed(StorageError),
    /// The thread has synced everything and ends.
    Closed,
}

/// What recovery hands to the loop.
#[derive(Debug)]
pub struct Loaded {
    /// The engine.
    pub lsm: Lsm,
    /// Its lineage.
    pub history: HistoryId,
    /// Version of the checkpoint it was made of; 0: there was none.
    pub checkpoint_version: u64,
    /// Records replayed from the log.
    pub replayed_count: u64,
    /// The tail that was cut off, if any.
    pub torn: Option<Torn>,
    /// What an accepted loss set aside.
    pub set_aside: Vec<String>,
    /// Figures; none where there is no data directory.
    pub stats: Option<StoreStats>,
}

/// What the thread is to do.
#[derive(Debug)]
pub struct Plan {
    /// Where to keep data; without one only `restore` makes sense, and the thread ends after it.
    pub data_dir: Option<DataDir>,
    /// How to recover.
    pub recovery: RecoveryOptions,
    /// A backup to start from; the data directory must be empty.
    pub restore: Option<PathBuf>,
    /// When writes are made to last.
    pub fsync: Fsync,
}

/// The loop's end of the thread.
#[derive(Debug)]
pub struct DiskThread {
    commands: Option<Sender<Command>>,
    events: Receiver<Event>,
    handle: Option<JoinHandle<()>>,
}

impl DiskThread {
    /// Starts it; `wake` is called on the thread after each event.
    pub fn start(plan: Plan, wake: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let (command_sender, commands) = channel();
        let (sender, events) = channel();
        let teller = Teller { sender, wake: Box::new(wake) };
        let run = move || run(plan, &commands, &teller);
        let handle = std::thread::Builder::new().name("disk".to_owned()).spawn(run)?;
        Ok(Self { commands: Some(command_sender), events, handle: Some(handle) })
    }

    /// Hands a command over. After [`close`](Self::close), or when the thread has ended, it is dropped.
    pub fn send(&self, command: Command) {
        if let Some(commands) = &self.commands {
            let _ = commands.send(command);
        }
    }

    /// The next event, if there is one.
    pub fn next_event(&self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// Lets it finish what it was handed; [`Event::Closed`] follows.
    pub fn close(&mut self) {
        self.commands = None;
    }

    /// Waits for its end, after [`Event::Closed`] or [`Event::Failed`].
    pub fn join(&mut self) {
        self.close();
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}

struct Teller {
    sender: Sender<Event>,
    wake: Box<dyn Fn() + Send>,
}

impl Teller {
    fn tell(&self, event: Event) {
        let _ = self.sender.send(event);
        (self.wake)();
    }
}

fn run(plan: Plan, commands: &Receiver<Command>, teller: &Teller) {
    let fsync = plan.fsync;
    let outcome = load(plan, teller).and_then(|store| match store {
        Some((store, _lock)) => Writer { store, fsync, commits: 0, told: (0, 0) }.run(commands, teller),
        None => Ok(()),
    });
    teller.tell(match outcome {
        Ok(()) => Event::Closed,
        Err(error) => Event::Failed(error),
    });
}

/// Recovers or restores, and hands the engine over. The lock lasts as long as what is returned.
fn load(plan: Plan, teller: &Teller) -> Result<Option<(Store<SystemDisk>, DataDir)>, StorageError> {
    // The loop is told of each percent, not of each chunk.
    let mut told_percent = 0;
    let mut on_progress = |progress: Progress| {
        if progress.percent() != told_percent {
            told_percent = progress.percent();
            teller.tell(Event::Progress(progress));
        }
    };
    let recovered = match (&plan.data_dir, &plan.restore) {
        (Some(data_dir), None) => recover(data_dir.partition(0)?, plan.recovery, &mut on_progress)?,
        (Some(data_dir), Some(path)) => {
            if !data_dir.is_empty()? {
                return Err(StorageError::Unusable(
                    "--restore: the data directory already holds data; name an empty --data-dir, \
                     or leave --restore out to start from what is there"
                        .to_owned(),
                ));
            }
            let lsm = restore::read_backup(path, &plan.recovery, &mut on_progress)?;
            restore::settle(data_dir.partition(0)?, lsm, &plan.recovery)?
        }
        (None, Some(path)) => {
            let lsm = restore::read_backup(path, &plan.recovery, &mut on_progress)?;
            let checkpoint_version = lsm.last_version();
            let history = plan.recovery.fresh_history;
            let (torn, set_aside, stats) = (None, Vec::new(), None);
            let loaded = Loaded { lsm, history, checkpoint_version, replayed_count: 0, torn, set_aside, stats };
            teller.tell(Event::Loaded(Box::new(loaded)));
            return Ok(None);
        }
        (None, None) => return Ok(None),
    };
    let Recovered { lsm, store, history, checkpoint_version, replayed_count, torn, set_aside } = recovered;
    let stats = Some(store.stats());
    let loaded = Loaded { lsm, history, checkpoint_version, replayed_count, torn, set_aside, stats };
    teller.tell(Event::Loaded(Box::new(loaded)));
    Ok(plan.data_dir.map(|data_dir| (store, data_dir)))
}

struct Writer<D: Disk> {
    store: Store<D>,
    fsync: Fsync,
    /// Commits since the last piece of a checkpoint.
    commits: usize,
    /// Versions told last.
    told: (u64, u64),
}

/// What waits in the channel.
enum Waiting {
    Command(Command),
    Nothing,
    /// The loop has closed it.
    End,
}

impl<D: Disk> Writer<D> {
    fn run(mut self, commands: &Receiver<Command>, teller: &Teller) -> Result<(), StorageError> {
        let mut batches = Vec::new();
        let mut is_sync_due = false;
        loop {
            match self.wait(commands) {
                Waiting::Command(command) => {
                    let mut next = Some(command);
                    while let Some(command) = next {
                        match command {
                            Command::Append(batch) => {
                                self.store.append(&batch)?;
                                batches.push(batch);
                            }
                            Command::Sync => is_sync_due = true,
                            Command::Checkpoint(snapshot) => self.store.begin_checkpoint(snapshot)?,
                        }
                        next = commands.try_recv().ok();
                    }
                    self.commit(std::mem::take(&mut batches), std::mem::take(&mut is_sync_due), teller)?;
                    self.commits += 1;
                }
                Waiting::Nothing => {
                    self.store.rest()?;
                    self.checkpoint_piece(teller)?;
                }
                Waiting::End => {
                    self.store.sync()?;
                    return self.store.rest();
                }
            }
            if self.commits >= COMMITS_PER_PIECE {
                self.checkpoint_piece(teller)?;
            }
        }
    }

    /// Waits for the next command; not for long if there is something else to do.
    fn wait(&mut self, commands: &Receiver<Command>) -> Waiting {
        match commands.try_recv() {
            Ok(command) => return Waiting::Command(command),
            Err(TryRecvError::Disconnected) => return Waiting::End,
            Err(TryRecvError::Empty) => {}
        }
        if self.store.is_mark_due() || self.store.has_checkpoint_work() {
            return match commands.recv_timeout(PAUSE) {
                Ok(command) => Waiting::Command(command),
                Err(RecvTimeoutError::Timeout) => Waiting::Nothing,
                Err(RecvTimeoutError::Disconnected) => Waiting::End,
            };
        }
        commands.recv().map_or(Waiting::End, Waiting::Command)
    }

    fn commit(&mut self, batches: Vec<LogBatch>, is_sync_due: bool, teller: &Teller) -> Result<(), StorageError> {
        if self.fsync == Fsync::Always || is_sync_due {
            self.store.sync()?;
        }
        let versions = (self.store.written_version(), self.store.synced_version());
        if versions != self.told {
            self.told = versions;
            let (version, synced_version) = versions;
            teller.tell(Event::Written { version, synced_version, batches, stats: self.store.stats() });
        }
        Ok(())
    }

    fn checkpoint_piece(&mut self, teller: &Teller) -> Result<(), StorageError> {
        self.commits = 0;
        if let Some(version) = self.store.checkpoint_step()? {
            teller.tell(Event::Checkpointed { version, stats: self.store.stats() });
        }
        Ok(())
    }
}
