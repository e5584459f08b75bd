//! Lineages: the history that a version belongs to, and the histories before it.
//!
//! A version alone does not identify a write: two nodes can each have written a version 7. So a
//! history goes with it. Every promotion, every restore and every accepted loss begins a history,
//! which remembers the histories before it and where each ended, so that a node with a part of
//! those can go on without a snapshot.

use super::history_id::HistoryId;
use super::version_token::{HistoryPrefix, Position, VersionToken};

/// Past histories that are remembered: version tokens of older ones are not accepted.
pub const PAST_MAX: usize = 128;

/// Past histories that a leader sends to a replica: the newest, and the one that the replica names.
pub const SHARED_PAST_MAX: usize = 16;

/// Past histories that all nodes of a partition know: the histories in tokens.
const COMMON_PAST_MAX: usize = SHARED_PAST_MAX - 1;

const _: () = assert!(SHARED_PAST_MAX <= PAST_MAX);

/// A history before another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PastHistory {
    /// Its id.
    pub history: HistoryId,
    /// The last of its versions that is in the next history, too.
    pub end_version: u64,
}

/// A history, and those before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    history: HistoryId,
    /// Newest first, at most [`PAST_MAX`]; where they ended never rises from one to the next.
    past: Vec<PastHistory>,
    /// The prefix of the present history, which every answer with a value carries.
    prefix: HistoryPrefix,
    /// The version behind which the present history began.
    begun_version: u64,
}

impl Lineage {
    /// A history without a past.
    pub fn new(history: HistoryId) -> Self {
        Self::with_past(history, [])
    }

    /// A history with its past, newest first, of which [`PAST_MAX`] are kept. A history ends at the
    /// latest where a newer one ended.
    pub fn with_past(history: HistoryId, past: impl IntoIterator<Item = PastHistory>) -> Self {
        let mut end_max = u64::MAX;
        let cut = |mut past: PastHistory| {
            end_max = end_max.min(past.end_version);
            past.end_version = end_max;
            past
        };
        let past: Vec<PastHistory> = past.into_iter().take(PAST_MAX).map(cut).collect();
        Self {
            history,
            prefix: HistoryPrefix::of(&history),
            begun_version: past.first().map_or(0, |past| past.end_version),
            past,
        }
    }

    /// The present history.
    pub fn history(&self) -> HistoryId {
        self.history
    }

    /// The histories before it, newest first.
    pub fn past(&self) -> impl ExactSizeIterator<Item = &PastHistory> {
        self.past.iter()
    }

    /// The part of this lineage that a leader sends to a replica of the history `named`.
    #[must_use]
    pub fn shared_with(&self, named: HistoryId) -> Self {
        let Some((newest, older)) = self.past.split_at_checked(COMMON_PAST_MAX) else {
            return self.clone();
        };
        let is_named = |past: &&PastHistory| past.history == named;
        let more = older.iter().find(is_named).or(older.first());
        Self::with_past(self.history, newest.iter().chain(more).copied())
    }

    /// The version behind which the present history began.
    pub fn begun_version(&self) -> u64 {
        self.begun_version
    }

    /// The first digits of the present history.
    #[inline]
    pub fn prefix(&self) -> HistoryPrefix {
        self.prefix
    }

    /// The token of a version of this lineage.
    #[inline]
    pub fn token_of(&self, version: u64) -> VersionToken {
        let history = if version > self.begun_version {
            self.prefix
        } else {
            self.past_prefix_of(version)
        };
        VersionToken { version, history }
    }

    #[inline(never)]
    fn past_prefix_of(&self, version: u64) -> HistoryPrefix {
        let common_past = &self.past[..self.past.len().min(COMMON_PAST_MAX)];
        written_in(common_past, version).map_or(self.prefix, |history| HistoryPrefix::of(&history))
    }

    /// The history in which a version was written, as far as it is remembered. Other nodes may not
    /// know the later histories that have this version, too.
    pub fn history_at(&self, version: u64) -> HistoryId {
        written_in(&self.past, version).unwrap_or(self.history)
    }

    /// A new history that goes on behind `end_version` of this one.
    #[must_use]
    pub fn begin(&self, history: HistoryId, end_version: u64) -> Self {
        let newest = PastHistory {
            history: self.history,
            end_version,
        };
        Self::with_past(
            history,
            std::iter::once(newest).chain(self.past.iter().copied()),
        )
    }

    /// This lineage, followed by the histories that `known` has before the oldest one here: a
    /// leader sends its replicas only the newest.
    #[must_use]
    pub fn with_older_of(self, known: &Self) -> Self {
        let oldest = self.past.last().map_or(self.history, |past| past.history);
        let older = if known.history == oldest {
            &known.past[..]
        } else {
            let at = known.past.iter().position(|past| past.history == oldest);
            at.map_or(&[][..], |at| &known.past[at + 1..])
        };
        let past = self.past.iter().chain(older).copied();
        Self::with_past(self.history, past)
    }

    /// Whether the write that a token names is a part of this lineage, if its version is one yet.
    pub fn holds(&self, token: VersionToken) -> bool {
        token.history == self.prefix()
            || self.past().any(|past| {
                token.version <= past.end_version
                    && HistoryPrefix::of(&past.history) == token.history
            })
    }

    /// The version of this lineage that a client's position names; none if its history has parted
    /// from this lineage before, or is not known.
    pub fn version_at(&self, position: Position) -> Option<u64> {
        match position {
            Position::Version(version) => Some(version),
            Position::Token(token) => self.holds(token).then_some(token.version),
        }
    }

    /// The highest version up to which a node at `version` of `history` has the writes of this
    /// lineage; none if the two share no history.
    pub fn common_version(&self, history: HistoryId, version: u64) -> Option<u64> {
        if history == self.history {
            return Some(version);
        }
        let past = self.past.iter().find(|past| past.history == history)?;
        Some(past.end_version.min(version))
    }

    /// The highest version up to which a node at `version` of another lineage has the writes of
    /// this one, by all histories that both know.
    pub fn common_version_with(&self, other: &Self, version: u64) -> Option<u64> {
        let past = other
            .past
            .iter()
            .map(|past| (past.history, past.end_version.min(version)));
        std::iter::once((other.history, version))
            .chain(past)
            .filter_map(|(history, version)| self.common_version(history, version))
            .max()
    }
}

/// The past history in which a version was written; none if that is the present one.
fn written_in(past: &[PastHistory], version: u64) -> Option<HistoryId> {
    // The oldest that goes so far: later ones have the version from it.
    let count = past.partition_point(|past| past.end_version >= version);
    count.checked_sub(1).map(|at| past[at].history)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> HistoryId {
        HistoryId([byte; 16])
    }

    #[test]
    fn histories_agree_up_to_where_they_parted() {
        let lineage = Lineage::new(id(1)).begin(id(2), 100).begin(id(3), 120);
        assert_eq!(lineage.common_version(id(3), 500), Some(500));
        assert_eq!(lineage.common_version(id(2), 110), Some(110));
        assert_eq!(lineage.common_version(id(2), 130), Some(120));
        assert_eq!(lineage.common_version(id(1), 110), Some(100));
        assert_eq!(lineage.common_version(id(4), 1), None);
        // A leader that lost its tail goes on below where an older history ended.
        let shorter = lineage.begin(id(5), 90);
        assert_eq!(shorter.common_version(id(1), 110), Some(90));
    }

    #[test]
    fn the_past_is_bounded() {
        let mut lineage = Lineage::new(id(0));
        for number in 1..200 {
            lineage = lineage.begin(id(number), u64::from(number));
        }
        assert_eq!(lineage.past().len(), PAST_MAX);
        assert_eq!(
            lineage.past().next(),
            Some(&PastHistory {
                history: id(198),
                end_version: 199
            })
        );
        assert_eq!(lineage.common_version(id(1), 1), None);
        // What is older than what all nodes know is named by the oldest of that.
        let oldest = lineage.past[COMMON_PAST_MAX - 1].history;
        assert_eq!(lineage.token_of(1).history, HistoryPrefix::of(&oldest));
        assert!(lineage.holds(lineage.token_of(1)));
        for (named, more) in [(id(100), id(100)), (id(1), id(183)), (id(190), id(183))] {
            let shared = lineage.shared_with(named);
            assert_eq!(shared.past().len(), SHARED_PAST_MAX);
            assert_eq!(
                shared.past[..COMMON_PAST_MAX],
                lineage.past[..COMMON_PAST_MAX]
            );
            assert_eq!(shared.past[COMMON_PAST_MAX].history, more);
            assert_eq!(shared.token_of(1), lineage.token_of(1));
        }
    }

    #[test]
    fn lineages_agree_by_any_history_that_both_know() {
        let common = Lineage::new(id(1)).begin(id(2), 100);
        // A leader that went on, and one that started again and wrote nothing since.
        let ours = common.begin(id(3), 120);
        let theirs = common.begin(id(4), 110).begin(id(5), 110);
        for (version, expected) in [(50, 50), (110, 110), (130, 110)] {
            assert_eq!(ours.common_version_with(&theirs, version), Some(expected));
        }
        assert_eq!(ours.common_version_with(&Lineage::new(id(9)), 50), None);
        for (version, history) in [(50, 1), (100, 1), (101, 2), (110, 2), (111, 5)] {
            assert_eq!(theirs.history_at(version), id(history), "{version}");
        }
    }

    #[test]
    fn a_past_never_rises() {
        let past = |byte, end_version| PastHistory {
            history: id(byte),
            end_version,
        };
        let lineage = Lineage::with_past(id(9), [past(3, 50), past(2, 70), past(1, 20)]);
        assert_eq!(lineage.common_version(id(2), 60), Some(50));
        assert_eq!(lineage.common_version(id(1), 60), Some(20));
    }

    #[test]
    fn what_a_leader_no_longer_tells_is_kept() {
        let mut leaders = Lineage::new(id(0));
        for number in 1..40 {
            leaders = leaders.begin(id(number), u64::from(number) * 10);
        }
        let told = leaders.shared_with(id(30));
        for known in [
            &leaders,
            &Lineage::with_past(id(30), leaders.past[9..].to_vec()),
        ] {
            assert_eq!(told.clone().with_older_of(known), leaders);
        }
        let strange = Lineage::new(id(250)).begin(id(251), 5);
        assert_eq!(told.clone().with_older_of(&strange), told);
    }
}
