//! Histories: which lineage of writes a version belongs to, and which it grew out of.
//!
//! A version alone says nothing: two nodes can each have written a version 7 of their own. So a place is a history and a version.
//! A history is begun by every promotion, every restore and every accepted loss; it remembers the ones before it and where each
//! ended, so that whoever holds a part of those can go on without starting over.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

use siphasher::sip128::SipHasher24;

/// Histories remembered: a replica that missed more promotions than this gets a snapshot.
pub const PAST_MAX: usize = 16;

/// One lineage of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HistoryId(pub [u8; 16]);

impl fmt::Display for HistoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// The text is not what [`HistoryId`] displays as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoHistoryId;

impl FromStr for HistoryId {
    type Err = NoHistoryId;

    fn from_str(text: &str) -> Result<Self, NoHistoryId> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NoHistoryId);
        }
        u128::from_str_radix(text, 16)
            .map(|number| Self(number.to_be_bytes()))
            .map_err(|_| NoHistoryId)
    }
}

/// Makes identities that nobody else makes: a sequence out of one random seed.
#[derive(Clone, Debug)]
pub struct Mint {
    seed: [u8; 16],
    count: u64,
}

impl Mint {
    /// A mint; the seed is to be random.
    pub fn new(seed: [u8; 16]) -> Self {
        Self { seed, count: 0 }
    }

    /// The next sixteen bytes.
    pub fn draw(&mut self) -> [u8; 16] {
        self.count += 1;
        SipHasher24::new_with_key(&self.seed)
            .hash(&self.count.to_le_bytes())
            .as_bytes()
    }

    /// A mint of its own, for another thread.
    #[must_use]
    pub fn split(&mut self) -> Self {
        Self::new(self.draw())
    }
}

/// A history that another grew out of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PastHistory {
    /// Its id.
    pub history: HistoryId,
    /// Its last version that the next history has too.
    pub end_version: u64,
}

/// A history and those it grew out of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    history: HistoryId,
    /// Newest first, at most [`PAST_MAX`].
    past: VecDeque<PastHistory>,
}

impl Lineage {
    /// A history that grew out of none.
    pub fn new(history: HistoryId) -> Self {
        Self {
            history,
            past: VecDeque::new(),
        }
    }

    /// A history with its past, newest first; what is over [`PAST_MAX`] is left out.
    pub fn with_past(history: HistoryId, past: impl IntoIterator<Item = PastHistory>) -> Self {
        Self {
            history,
            past: past.into_iter().take(PAST_MAX).collect(),
        }
    }

    /// The history that goes on.
    pub fn history(&self) -> HistoryId {
        self.history
    }

    /// Those before it, newest first.
    pub fn past(&self) -> impl ExactSizeIterator<Item = &PastHistory> {
        self.past.iter()
    }

    /// The version that this history was begun behind.
    pub fn begun_version(&self) -> u64 {
        self.past.front().map_or(0, |past| past.end_version)
    }

    /// A new history that goes on behind `end_version` of this one.
    #[must_use]
    pub fn begin(&self, history: HistoryId, end_version: u64) -> Self {
        // What was to come in an older history can no longer come.
        let older = self.past.iter().map(|past| PastHistory {
            end_version: past.end_version.min(end_version),
            ..*past
        });
        let newest = PastHistory {
            history: self.history,
            end_version,
        };
        Self::with_past(history, std::iter::once(newest).chain(older))
    }

    /// The highest version up to which somebody at `version` of `history` has what this lineage has; none if the two have
    /// nothing to do with each other.
    pub fn common_version(&self, history: HistoryId, version: u64) -> Option<u64> {
        if history == self.history {
            return Some(version);
        }
        let past = self.past.iter().find(|past| past.history == history)?;
        Some(past.end_version.min(version))
    }
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
        for number in 1..40 {
            lineage = lineage.begin(id(number), u64::from(number));
        }
        assert_eq!(lineage.past().len(), PAST_MAX);
        assert_eq!(
            lineage.past().next(),
            Some(&PastHistory {
                history: id(38),
                end_version: 39
            })
        );
        assert_eq!(lineage.common_version(id(1), 1), None);
    }

    #[test]
    fn ids_are_read_back() {
        let id = HistoryId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
        assert_eq!(id.to_string(), "000102030405060708090a0b0c0d0eff");
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in [
            "",
            "0",
            "+00102030405060708090a0b0c0d0eff",
            "000102030405060708090a0b0c0d0ef",
            "é",
        ] {
            assert_eq!(text.parse::<HistoryId>(), Err(NoHistoryId), "{text}");
        }
    }

    #[test]
    fn a_mint_repeats_nothing() {
        let mut mint = Mint::new([7; 16]);
        let mut child = mint.split();
        let made = [
            mint.draw(),
            mint.draw(),
            child.draw(),
            child.draw(),
            Mint::new([8; 16]).draw(),
        ];
        assert!((1..made.len()).all(|at| !made[..at].contains(&made[at])));
    }
}
