//! What data takes in memory.

/// Bytes of records or chunks, and of the large values they refer to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Of records or chunks themselves.
    pub bytes: usize,
    /// Of large values.
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

    /// Both.
    pub fn total_bytes(self) -> usize {
        self.bytes + self.large_bytes
    }
}
