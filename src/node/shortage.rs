//! What the disk thread tells while room or file descriptors are short.

use crate::storage::DiskEvent;

use super::{DiskNews, Node};

impl Node {
    /// Writes wait or go on, a checkpoint is given up, or a partition could not be made.
    pub(super) fn on_shortage(&mut self, event: DiskEvent) -> DiskNews {
        match event {
            DiskEvent::CheckpointGivenUp {
                partition: id,
                error,
                stats,
            } => {
                log::warn!(
                    "partition {id}: a checkpoint is given up, and tried again later; the log goes \
                     on: {error}"
                );
                if let Ok(partition) = self.partition(id) {
                    partition.on_checkpoint_given_up(stats);
                }
            }
            DiskEvent::Stalled {
                partition: id,
                error,
            } => {
                log::error!(
                    "partition {id}: writes wait, and go on by themselves once they can; reads go \
                     on: {error}"
                );
                if let Ok(partition) = self.partition(id) {
                    partition.on_stall(Some(error.clone()));
                }
                return DiskNews::Stalled(id, error);
            }
            DiskEvent::Resumed { partition: id } => {
                log::info!("partition {id}: writes go on");
                if let Ok(partition) = self.partition(id) {
                    partition.on_stall(None);
                }
            }
            DiskEvent::NotOpened {
                partition: id,
                error,
            } => {
                log::error!("partition {id} could not be made: {error}");
                self.opening.retain(|opening| opening.id != id);
                return DiskNews::NotOpened(id, error);
            }
            _ => {}
        }
        DiskNews::None
    }
}
