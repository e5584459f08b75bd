//! Memory and file descriptors of this process, as Linux reports them in `/proc`.

/// Resident memory of the process, in bytes; none where there is no `/proc`.
pub fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let page_count: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    page_count.checked_mul(u64::try_from(rustix::param::page_size()).ok()?)
}

/// File descriptors that are open; none where there is no `/proc`. Takes time for each of them, and
/// is for the start.
pub fn open_descriptor_count() -> Option<usize> {
    let entries = std::fs::read_dir("/proc/self/fd").ok()?;
    // One of them is that of the listing itself.
    Some(entries.count().saturating_sub(1))
}
