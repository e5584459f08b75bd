//! Fetching ahead, for requests that name no partition; see `lsm/prefetch.rs`.

use crate::partition::Partition;

use super::Node;

impl Node {
    /// Fetches into the processor's cache what reads of these keys will touch, in the partition that is meant if none is named.
    pub fn prefetch(&mut self, keys: &[&[u8]]) {
        if let Some(index) = self.default_partition().ok().and_then(|id| self.index_of(id)) {
            self.partitions[index].lsm_mut().prefetch(keys);
        }
    }

    /// Whether there is so much data that fetching ahead is worth anything.
    pub fn is_prefetch_worth(&self) -> bool {
        self.unnamed_partition().is_some_and(|partition| partition.lsm().is_prefetch_worth())
    }

    fn unnamed_partition(&self) -> Option<&Partition> {
        self.default_partition().ok().and_then(|id| self.look_at(id))
    }
}
