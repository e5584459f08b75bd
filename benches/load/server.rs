//! What the server takes meanwhile: processor time of all its threads, and memory.

use std::path::PathBuf;

/// A process.
#[derive(Debug)]
pub struct Server {
    folder: PathBuf,
}

/// What it has used.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub cpu_ns: u64,
    pub resident_kib: u64,
}

impl Usage {
    /// What was used since then; memory as it is now.
    pub fn since(self, before: Self) -> Self {
        Self { cpu_ns: self.cpu_ns.saturating_sub(before.cpu_ns), ..self }
    }
}

impl Server {
    pub fn new(pid: u32) -> Self {
        Self { folder: PathBuf::from(format!("/proc/{pid}")) }
    }

    /// What it has used so far.
    pub fn usage(&self) -> Result<Usage, String> {
        let problem = |error: std::io::Error| format!("--pid: {}: {error}", self.folder.display());
        let mut cpu_ns = 0;
        for task in std::fs::read_dir(self.folder.join("task")).map_err(problem)? {
            // One that has just ended is gone.
            let Ok(text) = std::fs::read_to_string(task.map_err(problem)?.path().join("schedstat")) else { continue };
            cpu_ns += text.split(' ').next().and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        }
        let status = std::fs::read_to_string(self.folder.join("status")).map_err(problem)?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        Ok(Usage { cpu_ns, resident_kib: resident.and_then(|text| text.parse().ok()).unwrap_or(0) })
    }
}
