//! Progress of a long recovery: a bar on a terminal, else a line of log a second. A short recovery
//! shows nothing.

use std::io::{IsTerminal, Write};

use crate::storage::RecoveryProgress;

use super::timers::Millis;

/// A recovery shorter than this shows no progress. Also the time between two lines of log.
const INTERVAL_MS: Millis = 1_000;

/// Time between two updates of the bar.
const BAR_INTERVAL_MS: Millis = 100;

const BAR_CELLS: usize = 40;

/// The state of the display.
#[derive(Debug)]
pub(super) struct ProgressBar {
    is_terminal: bool,
    next_at: Millis,
    is_shown: bool,
}

impl ProgressBar {
    pub(super) fn new() -> Self {
        Self {
            is_terminal: std::io::stderr().is_terminal(),
            next_at: INTERVAL_MS,
            is_shown: false,
        }
    }

    /// Shows the progress, if it is time to.
    pub(super) fn show(&mut self, progress: RecoveryProgress, now: Millis) {
        if now < self.next_at {
            return;
        }
        self.is_shown = true;
        if !self.is_terminal {
            self.next_at = now + INTERVAL_MS;
            log::info!("loading: {progress}");
            return;
        }
        self.next_at = now + BAR_INTERVAL_MS;
        let filled = usize::try_from(progress.percent()).unwrap_or(0) * BAR_CELLS / 100;
        let bar = format!("{}{}", "#".repeat(filled), ".".repeat(BAR_CELLS - filled));
        let _ = write!(std::io::stderr(), "\rloading [{bar}] {progress}");
    }

    /// Ends the line of a bar.
    pub(super) fn finish(&mut self) {
        if std::mem::take(&mut self.is_shown) && self.is_terminal {
            let _ = writeln!(std::io::stderr());
        }
    }
}
