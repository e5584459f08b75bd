//! What the system says of this process, in its file system of processes.

/// Memory of the process that is in the machine's memory, in bytes; none where the system does not
/// tell.
pub fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let page_count: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    page_count.checked_mul(u64::try_from(rustix::param::page_size()).ok()?)
}

/// Descriptors that the process has open; none where the system does not tell. For the start: it
/// takes as long as there are many.
pub fn open_descriptor_count() -> Option<usize> {
    let entries = std::fs::read_dir("/proc/self/fd").ok()?;
    // One of them is that of the listing.
    Some(entries.count().saturating_sub(1))
}
