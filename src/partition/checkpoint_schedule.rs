//! When the next checkpoint of a partition is due.

/// A log shorter than this is never worth a checkpoint: it is read again in a fraction of a second.
const CHECKPOINT_MIN_BYTES: usize = 64 * 1024 * 1024;

/// After a checkpoint that could not be written, so long no other is begun, unless it is asked for.
const CHECKPOINT_PAUSE_US: u64 = 60_000_000;

/// How far the checkpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CheckpointState {
    Idle,
    /// Asked for by an operator.
    Requested,
    UnderWay,
}

/// Checkpoints, from the loop's side.
#[derive(Clone, Copy, Debug)]
pub(super) struct CheckpointSchedule {
    state: CheckpointState,
    /// Bytes of log since the last checkpoint began.
    pub(super) logged_bytes: usize,
    /// Checkpoints that could not be written.
    pub(super) given_up_count: u64,
    /// A checkpoint was given up, and the pause after it has not begun.
    is_pause_due: bool,
    not_before_us: u64,
}

impl CheckpointSchedule {
    /// Behind a checkpoint there are so many bytes of log.
    pub(super) fn new(log_bytes: u64) -> Self {
        Self {
            state: CheckpointState::Idle,
            logged_bytes: usize::try_from(log_bytes).unwrap_or(usize::MAX),
            given_up_count: 0,
            is_pause_due: false,
            not_before_us: 0,
        }
    }

    /// The same for data that replaces other data.
    pub(super) fn restarted(&self, log_bytes: u64) -> Self {
        Self {
            given_up_count: self.given_up_count,
            ..Self::new(log_bytes)
        }
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.state == CheckpointState::UnderWay
    }

    /// An operator wants a checkpoint; one that is under way will do.
    pub(super) fn request(&mut self) {
        if self.state == CheckpointState::Idle {
            self.state = CheckpointState::Requested;
        }
    }

    /// Begins a checkpoint of so much data if one is due and possible. On a full disk a short log
    /// is worth one, too, if the checkpoint frees more room than it takes.
    pub(super) fn begin_if_due(
        &mut self,
        data_bytes: usize,
        wanted_bytes: usize,
        is_possible: bool,
        now_us: u64,
    ) -> bool {
        if std::mem::take(&mut self.is_pause_due) {
            self.not_before_us = now_us + CHECKPOINT_PAUSE_US;
        }
        let is_due = match self.state {
            CheckpointState::Idle => {
                (self.logged_bytes >= CHECKPOINT_MIN_BYTES || wanted_bytes > data_bytes)
                    && self.logged_bytes >= data_bytes
                    && now_us >= self.not_before_us
            }
            CheckpointState::Requested => true,
            CheckpointState::UnderWay => false,
        };
        let begins = is_due && is_possible;
        if begins {
            self.state = CheckpointState::UnderWay;
            self.logged_bytes = 0;
        }
        begins
    }

    pub(super) fn on_done(&mut self) {
        self.state = CheckpointState::Idle;
    }

    /// The disk could not hold the checkpoint: the log stays, and the next checkpoint comes after a
    /// pause.
    pub(super) fn on_given_up(&mut self, log_bytes: u64) {
        self.state = CheckpointState::Idle;
        self.logged_bytes = usize::try_from(log_bytes).unwrap_or(usize::MAX);
        self.given_up_count += 1;
        self.is_pause_due = true;
    }
}
