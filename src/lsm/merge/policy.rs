//! Which layers to merge next. Pure: the layers go in as plain views, the next merge comes out.
//!
//! The policy is lazy levelling (after Dayan and Idreos 2018):
//! - Once the layers above the bottom add up to a [`BOTTOM_SHARE`]th of it, all of them are merged
//!   into it.
//! - Otherwise [`LEVEL_RUNS`] memtables become a run of level 1, and [`LEVEL_RUNS`] runs of a level
//!   one run of the next.
//! - Memtables that wait for others become a run when there is nothing else to do.
//!
//! So reads look into few layers, memory beyond the live data is bounded by that share, and each
//! entry is rewritten a number of times that grows with the logarithm of the data, plus
//! [`BOTTOM_REWRITES`].

use std::ops::Range;

use crate::lsm::level::Level;

/// Runs of one level that are merged into one of the next: more of them make reads dearer, fewer
/// of them writes.
const LEVEL_RUNS: usize = 4;

/// The bottom is rewritten when the layers above it add up to one part in this many of it.
///
/// Overwriting a million small entries again and again took 1.1 times the memory of a fresh load
/// with 8 and 1.1 to 1.15 with 6, for as much processor time a write. With values of 1 KiB that
/// change their length, so that chunks cannot be updated in place, 8 took 30 % more time for
/// merging.
const BOTTOM_SHARE: usize = 6;

/// How often the bottom rewrites an entry that stays, for each time that all data is written anew:
/// once a share, and the share itself.
pub(crate) const BOTTOM_REWRITES: usize = BOTTOM_SHARE + 1;

/// What the policy knows of a layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LayerView {
    /// Its level.
    pub(crate) level: Level,
    /// No merge reads it or writes it.
    pub(crate) is_idle: bool,
    /// Its size. It counts only while the layer is idle.
    pub(crate) bytes: usize,
}

impl LayerView {
    /// The number of its level, if it can be a source of a merge.
    fn source_number(&self) -> Option<u8> {
        self.level.upper_number().filter(|_| self.is_idle)
    }
}

/// What was asked for beside the rule.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Requests {
    /// All layers are to become one.
    pub(crate) has_compaction: bool,
    /// Memtables are not to wait for others.
    pub(crate) has_flush: bool,
}

/// A merge that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DueMerge {
    /// The layers to merge: they lie side by side.
    pub(crate) sources: Range<usize>,
    /// The level of the run that they become. It lies directly below them.
    pub(crate) into: Level,
}

/// The merge that is due first. `layers`: newest first.
pub(crate) fn next_merge(
    layers: impl Iterator<Item = LayerView> + Clone,
    requests: Requests,
) -> Option<DueMerge> {
    if let Some(sources) = sources_for_bottom(layers.clone(), requests.has_compaction) {
        let into = Level::Bottom;
        return Some(DueMerge { sources, into });
    }
    idle_groups(layers).find_map(|(sources, number)| {
        let is_flush = requests.has_flush && number == 0;
        let into = Level::Upper(number + 1);
        (is_flush || sources.len() >= LEVEL_RUNS).then_some(DueMerge { sources, into })
    })
}

/// The idle layers directly above the bottom, if they are to be merged into it now.
fn sources_for_bottom(
    layers: impl Iterator<Item = LayerView>,
    has_compaction: bool,
) -> Option<Range<usize>> {
    let (mut sources, mut source_bytes, mut bottom_bytes) = (0..0, 0, 0_usize);
    for (at, layer) in layers.enumerate() {
        match (layer.level, layer.is_idle) {
            (Level::Bottom, false) => return None,
            (Level::Bottom, true) => bottom_bytes = layer.bytes,
            (Level::Upper(_), false) => (sources, source_bytes) = (at + 1..at + 1, 0),
            (Level::Upper(_), true) => {
                sources.end = at + 1;
                source_bytes += layer.bytes;
            }
        }
    }
    let is_large = source_bytes.saturating_mul(BOTTOM_SHARE) >= bottom_bytes;
    let is_compaction = has_compaction && sources.start == 0;
    (!sources.is_empty() && (is_large || is_compaction)).then_some(sources)
}

/// Idle layers above the bottom that lie side by side and are of one level, with its number; newest
/// first.
///
/// A layer counts as of the level of those above it, if that is higher: merges of newer layers can
/// end before those of older ones, and what is left of a low level below others would never have
/// enough neighbours.
pub(crate) fn idle_groups(
    layers: impl Iterator<Item = LayerView>,
) -> impl Iterator<Item = (Range<usize>, u8)> {
    let mut layers = layers.enumerate().peekable();
    let mut level = 0;
    std::iter::from_fn(move || {
        let (start, number) = layers.find_map(|(at, layer)| Some((at, layer.source_number()?)))?;
        level = level.max(number);
        let is_alike = |layer: &LayerView| layer.source_number().is_some_and(|n| n <= level);
        let mut end = start + 1;
        while layers.next_if(|(_, layer)| is_alike(layer)).is_some() {
            end += 1;
        }
        Some((start..end, level))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list of layers, newest first: `2` is an idle one of level 2, `2!` one that a merge is busy
    /// with, `B` the bottom. Sizes stand behind a colon; without one an upper layer has 1 and the
    /// bottom 1000.
    fn layers(text: &str) -> Vec<LayerView> {
        let layer = |word: &str| {
            let (word, bytes) = word.split_once(':').unwrap_or((word, ""));
            let (name, is_idle) = match word.strip_suffix('!') {
                Some(name) => (name, false),
                None => (word, true),
            };
            let (level, usual_bytes) = match name {
                "B" => (Level::Bottom, 1000),
                number => (Level::Upper(number.parse().expect("a level")), 1),
            };
            LayerView {
                level,
                is_idle,
                bytes: bytes.parse().unwrap_or(usual_bytes),
            }
        };
        text.split_whitespace().map(layer).collect()
    }

    fn next(text: &str, requests: Requests) -> String {
        match next_merge(layers(text).into_iter(), requests) {
            None => "nothing".to_owned(),
            Some(DueMerge { sources, into }) => {
                let into = into.upper_number();
                let into = into.map_or("B".to_owned(), |number| number.to_string());
                format!("{}..{} into {into}", sources.start, sources.end)
            }
        }
    }

    #[test]
    fn what_is_merged_next() {
        for (text, expected) in [
            // Nothing, or too little.
            ("", "nothing"),
            ("B", "nothing"),
            ("0 0 0 B", "nothing"),
            ("1 1 1 2 2 3 B", "nothing"),
            // Four of a kind become one of the next level; the newest go first.
            ("0 0 0 0 B", "0..4 into 1"),
            ("0 0 0 0 0 1 B", "0..5 into 1"),
            ("1 1 2 2 2 2 3 B", "2..6 into 3"),
            ("0 0 0 0 1 1 1 1 B", "0..4 into 1"),
            // What a merge is busy with separates its neighbours.
            ("0 0 0! 0 0 B", "nothing"),
            ("0 0! 0 0 0 0 B", "2..6 into 1"),
            // A low level below others counts as theirs.
            ("1 4 4 5 5 7 1 3 3 B", "5..9 into 8"),
            ("0 0 2 1 1 1 1 B", "2..7 into 3"),
            // A sixth of the bottom, and all above it goes there.
            ("0 1:165 B", "nothing"),
            ("0 1:166 B", "0..2 into B"),
            ("0 1! 2:167 B", "2..3 into B"),
            ("0 1:167! 2 B", "nothing"),
            ("0 1:500 B!", "nothing"),
            // The first memtable is the bottom.
            ("0", "0..1 into B"),
            ("0! 1", "1..2 into B"),
        ] {
            assert_eq!(next(text, Requests::default()), expected, "{text}");
        }
    }

    #[test]
    fn what_is_asked_for_is_merged_at_once() {
        let flush = Requests {
            has_flush: true,
            ..Requests::default()
        };
        let compaction = Requests {
            has_compaction: true,
            ..Requests::default()
        };
        for (text, requests, expected) in [
            ("0 1 B", flush, "0..1 into 1"),
            ("0! 1 B", flush, "nothing"),
            ("1 1 B", flush, "nothing"),
            ("0 1 2 B", compaction, "0..3 into B"),
            ("B", compaction, "nothing"),
            // Only what is whole: the layers that a merge is busy with come when it is done.
            ("0 1! 2 B", compaction, "nothing"),
            ("0 1 B!", compaction, "nothing"),
        ] {
            assert_eq!(next(text, requests), expected, "{text}");
        }
    }
}
