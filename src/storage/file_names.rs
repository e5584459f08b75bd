//! The names of log files and checkpoints, and the versions in them. The only home of these names.
//!
//! ```text
//! wal-00000000000000000259.log          the log from the record of version 259 on
//! checkpoint-00000000000000000258.dbn   all data as of version 258
//! ```
//!
//! Not here: the prefixes of generations (`generation.rs`).

const LOG: (&str, &str) = ("wal-", ".log");

const CHECKPOINT: (&str, &str) = ("checkpoint-", ".dbn");

/// The name of the log file that is begun behind a version.
pub(super) fn log_name_behind(version: u64) -> String {
    log_name(version + 1)
}

/// The name of the log file that begins with the record of this version.
pub(super) fn log_name(first_version: u64) -> String {
    name_of(LOG, first_version)
}

/// The version of the first record that a log file of this name can hold.
pub(super) fn log_first_version(name: &str) -> Option<u64> {
    version_in(LOG, name)
}

/// The name of the checkpoint of a version.
pub(super) fn checkpoint_name(version: u64) -> String {
    name_of(CHECKPOINT, version)
}

/// The version of the checkpoint with this name.
pub(super) fn checkpoint_version(name: &str) -> Option<u64> {
    version_in(CHECKPOINT, name)
}

/// Adds what a name tells to a sorted list. Folders are read at the start and have few files, and
/// the code of a sort is large.
pub(super) fn insert_sorted<T: Ord>(list: &mut Vec<T>, item: T) {
    let at = list.partition_point(|before| *before < item);
    list.insert(at, item);
}

fn name_of((prefix, suffix): (&str, &str), version: u64) -> String {
    format!("{prefix}{version:020}{suffix}")
}

fn version_in((prefix, suffix): (&str, &str), name: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_names() {
        let log = "wal-00000000000000000259.log";
        assert_eq!(
            (log_name_behind(258), log_name(259)),
            (log.into(), log.into())
        );
        assert_eq!(log_first_version(log), Some(259));
        let checkpoint = "checkpoint-00000000000000000258.dbn";
        assert_eq!(checkpoint_name(258), checkpoint);
        assert_eq!(checkpoint_version(checkpoint), Some(258));
        for other in ["wal-259.log", "wal-0000000000000000025x.log", checkpoint] {
            assert_eq!(log_first_version(other), None, "{other}");
        }
    }
}
