//! What the server takes meanwhile: processor time of all its processes and threads, and memory.

use std::path::{Path, PathBuf};

/// Processes that answer together.
#[derive(Debug)]
pub struct Server {
    folders: Vec<PathBuf>,
}

/// What they have used.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub cpu_ns: u64,
    pub resident_kib: u64,
}

impl Usage {
    /// What was used since then; memory as it is now.
    pub fn since(self, before: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(before.cpu_ns),
            ..self
        }
    }
}

impl Server {
    pub fn new(pids: &[u32]) -> Self {
        Self {
            folders: pids
                .iter()
                .map(|pid| PathBuf::from(format!("/proc/{pid}")))
                .collect(),
        }
    }

    /// What they have used so far.
    pub fn usage(&self) -> Result<Usage, String> {
        let mut all = Usage {
            cpu_ns: 0,
            resident_kib: 0,
        };
        for folder in &self.folders {
            let one = usage_of(folder)
                .map_err(|error| format!("--pid: {}: {error}", folder.display()))?;
            all = Usage {
                cpu_ns: all.cpu_ns + one.cpu_ns,
                resident_kib: all.resident_kib + one.resident_kib,
            };
        }
        Ok(all)
    }
}

fn usage_of(folder: &Path) -> std::io::Result<Usage> {
    let mut cpu_ns = 0;
    for task in std::fs::read_dir(folder.join("task"))? {
        // One that has just ended is gone.
        let Ok(text) = std::fs::read_to_string(task?.path().join("schedstat")) else {
            continue;
        };
        cpu_ns += text
            .split(' ')
            .next()
            .and_then(|field| field.parse::<u64>().ok())
            .unwrap_or(0);
    }
    let status = std::fs::read_to_string(folder.join("status"))?;
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    Ok(Usage {
        cpu_ns,
        resident_kib: resident.and_then(|text| text.parse().ok()).unwrap_or(0),
    })
}
