//! How the data of two nodes relate, by their histories.
//!
//! Not here: which of two nodes may lead (`partition/takeover.rs`), whether data may be dropped
//! (`leader_receiver.rs`).

use crate::storage::Lineage;

/// The data of a peer, compared with this node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The peer holds nothing that this node lacks.
    Covered,
    /// The peer holds all that this node holds, and more.
    Newer,
    /// Each holds something that the other one lacks: their histories have diverged.
    Parted,
}

/// Compares the data of a peer with this node's; each is a lineage and its newest version.
pub fn relation(own: (&Lineage, u64), peer: (&Lineage, u64)) -> Relation {
    if peer.1 == 0 || is_prefix(peer, own) {
        Relation::Covered
    } else if own.1 == 0 || is_prefix(own, peer) {
        Relation::Newer
    } else {
        Relation::Parted
    }
}

/// Whether all of `short` is in `long`.
pub(super) fn is_prefix(short: (&Lineage, u64), long: (&Lineage, u64)) -> bool {
    // Any common history counts: one that was begun and never written to is not missing in `long`.
    let common_version = long.0.common_version_with(short.0, short.1);
    common_version == Some(short.1) && short.1 <= long.1
}

/// Whether a surveyed peer sends its data: it is newer, or a controller has named a higher epoch
/// for it than for this node's. Both sides decide this from the view of the surveying node, so that
/// they agree.
pub fn is_data_sent_to_surveyor(
    relation: Relation,
    own_ordered_epoch: u64,
    peer_ordered_epoch: u64,
) -> bool {
    match relation {
        Relation::Covered => false,
        Relation::Newer => true,
        Relation::Parted => peer_ordered_epoch > own_ordered_epoch,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::HistoryId;

    #[test]
    fn data_is_related_by_histories() {
        let first = Lineage::new(HistoryId([1; 16]));
        let second = first.begin(HistoryId([2; 16]), 10);
        let third = first.begin(HistoryId([3; 16]), 8);
        for (own, peer, expected) in [
            ((&first, 5), (&first, 5), Relation::Covered),
            ((&first, 5), (&first, 4), Relation::Covered),
            ((&first, 5), (&first, 6), Relation::Newer),
            ((&second, 12), (&first, 10), Relation::Covered),
            ((&second, 12), (&first, 11), Relation::Parted),
            ((&first, 10), (&second, 12), Relation::Newer),
            ((&first, 11), (&second, 12), Relation::Parted),
            ((&second, 12), (&third, 9), Relation::Parted),
            ((&second, 0), (&third, 9), Relation::Newer),
            ((&second, 12), (&third, 0), Relation::Covered),
            ((&third, 8), (&first, 8), Relation::Covered),
            // Histories that were begun, and not written in.
            ((&first, 12), (&second, 10), Relation::Covered),
            ((&second, 10), (&first, 12), Relation::Newer),
            ((&third, 8), (&second, 12), Relation::Newer),
            ((&third, 8), (&second, 10), Relation::Newer),
            ((&third, 9), (&second, 10), Relation::Parted),
        ] {
            assert_eq!(relation(own, peer), expected, "{own:?} {peer:?}");
        }
    }
}
