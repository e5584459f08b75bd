//! The memory that data takes.

/// Bytes of records or chunks, and of the large values they refer to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Bytes of the records or chunks themselves.
    pub bytes: usize,
    /// Bytes of large values.
    pub large_bytes: usize,
}

impl Footprint {
    pub(super) fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.large_bytes += other.large_bytes;
    }

    pub(super) fn subtract(&mut self, other: Self) {
        self.bytes -= other.bytes;
        self.large_bytes -= other.large_bytes;
    }

    /// The sum of both.
    pub fn total_bytes(self) -> usize {
        self.bytes + self.large_bytes
    }
}

impl std::iter::Sum for Footprint {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), |mut all, part| {
            all.add(part);
            all
        })
    }
}
