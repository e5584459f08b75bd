//! Levels, the size classes of layers.

/// The level of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// 0 for frozen memtables, above it for runs.
    Upper(u8),
    /// The one run with most of the data.
    Bottom,
}

impl Level {
    /// The number of a level above the bottom.
    pub(super) fn upper_number(self) -> Option<u8> {
        match self {
            Self::Upper(number) => Some(number),
            Self::Bottom => None,
        }
    }
}
