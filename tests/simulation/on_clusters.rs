//! What the simulations of a fail-over and of a controller ask of a cluster alike.

use db_node::partition::Partition;
use db_node::storage::Role;

use crate::cluster::Cluster;

impl Cluster {
    /// True once in so many draws.
    pub(crate) fn chance(&mut self, one_in: u32) -> bool {
        self.rng.u32(..one_in) == 0
    }

    /// A random host.
    pub(crate) fn any_host(&mut self) -> usize {
        self.rng.usize(..self.hosts.len())
    }

    /// The partition on a host, if its node runs and has loaded it.
    pub(crate) fn partition(&mut self, host: usize) -> Option<&mut Partition> {
        self.node(host)?.partition(0).ok()
    }

    /// Whether a node leads, all others follow it, and all hold the same. `epoch`: in which they
    /// are to be.
    pub(crate) fn is_agreed(&mut self, leader: usize, epoch: Option<u64>) -> bool {
        (0..self.hosts.len()).all(|host| self.is_agreed_by(host, leader, epoch))
    }

    /// Whether a node leads, or follows the one that does and holds the same.
    pub(crate) fn is_agreed_by(&mut self, host: usize, leader: usize, epoch: Option<u64>) -> bool {
        let position = self
            .partition(leader)
            .map(|partition| partition.lsm().position());
        let Some(partition) = self.partition(host) else {
            return false;
        };
        let role = if host == leader {
            Role::Leader
        } else {
            Role::Replica
        };
        let (roles, here) = (partition.roles(), partition.lsm().position());
        roles.is_settled()
            && roles.role() == role
            && epoch.is_none_or(|epoch| roles.meta().epoch == epoch)
            && partition.is_in_sync()
            && partition.is_replaced()
            && position == Some(here)
    }
}
