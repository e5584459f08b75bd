//! Fetching ahead, for requests that name no partition; see `lsm/prefetch.rs`.

use super::Node;

impl Node {
    /// Fetches into the processor's cache what reads of these keys will touch, or if none is read what writes will, in the partition
    /// that is meant if none is named.
    pub fn prefetch(&mut self, keys: &[&[u8]], is_read: bool) {
        let Ok(partition) = self.unnamed_partition() else { return };
        let lsm = partition.lsm_mut();
        if is_read { lsm.prefetch(keys) } else { lsm.prefetch_for_writes(keys) }
    }

    /// Whether there is so much data that fetching ahead is worth anything.
    pub fn is_prefetch_worth(&self) -> bool {
        self.unnamed_index().is_ok_and(|index| self.partitions[index].lsm().is_prefetch_worth())
    }
}
