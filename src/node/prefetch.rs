//! Fetching ahead, for requests that name no partition; see `lsm/lookup_cache.rs`.

use super::Node;

impl Node {
    /// Fetches into the processor's cache what reads of these keys will touch, in the partition
    /// that is meant if none is named.
    pub fn prefetch(&mut self, keys: &[&[u8]]) {
        if let Ok(partition) = self.unnamed_partition() {
            partition.lsm_mut().prefetch(keys);
        }
    }

    /// The same of writes, if nothing is looked up before.
    pub fn prefetch_for_writes(&mut self, keys: &[&[u8]]) {
        if let Ok(partition) = self.unnamed_partition() {
            partition.lsm_mut().prefetch_for_writes(keys);
        }
    }

    /// Whether there is so much data that fetching ahead is worth anything.
    pub fn is_prefetch_worth(&self) -> bool {
        self.unnamed_index()
            .is_ok_and(|index| self.partitions[index].lsm().is_prefetch_worth())
    }
}
