//! The id of a copy: of one node's data of a partition, 128 random bits. A leader of a cluster
//! names by these ids the copies that hold all acknowledged writes, so a copy that may have lost
//! some has to have another id.
//!
//! Invariants:
//! 1. The id lasts over restarts as long as everything is here that this copy may have confirmed.
//!    Otherwise a start draws a new one: where there is no data, or none on disk; after a loss that
//!    was accepted, and of a backup; and with `--fsync` other than `always` unless the last stop
//!    was clean (`log_end.rs` has the mark).
//! 2. A snapshot of a leader keeps the id of the data that it replaces: at any time the files hold
//!    what was confirmed of the old data, or all of the new.
//!
//! Not here: when a start keeps the id (`recovery.rs`), where it is stored (`partition_meta.rs`).

use std::fmt;

use crate::seeded_bugs::SeededBug;

use super::id_generator::IdGenerator;

/// The id of a copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CopyId(pub [u8; 16]);

impl CopyId {
    /// No copy has this id: none was drawn yet.
    pub const NONE: Self = Self([0; 16]);

    /// The id of a copy that begins now. `fixed` is the id that a seeded bug gives it.
    pub fn draw(ids: &mut IdGenerator, fixed: Self) -> Self {
        let drawn = Self(ids.draw());
        if SeededBug::EmptyCopyKeepsId.is_on() {
            fixed
        } else {
            drawn
        }
    }

    /// An id that depends on nothing but a name.
    pub fn of_name(name: &str) -> Self {
        let mut id = [0_u8; 16];
        for (at, byte) in name.bytes().enumerate() {
            let place = &mut id[at % 16];
            *place = place.rotate_left(1) ^ byte;
        }
        Self(id)
    }

    /// Reads what [`CopyId`] displays as.
    pub fn parse(text: &str) -> Option<Self> {
        let is_id = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u128::from_str_radix(text, 16).ok().filter(|_| is_id)?;
        Some(Self(number.to_be_bytes()))
    }

    /// A checksum, which is 0 only by chance.
    pub(super) fn checksum(self) -> u32 {
        crc32c::crc32c(&self.0)
    }
}

impl fmt::Display for CopyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_back() {
        let id = CopyId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
        assert_eq!(id.to_string(), "000102030405060708090a0b0c0d0eff");
        assert_eq!(CopyId::parse(&id.to_string()), Some(id));
        for text in ["", "0", "+00102030405060708090a0b0c0d0eff", "é"] {
            assert_eq!(CopyId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn ids_are_drawn_anew() {
        let mut ids = IdGenerator::new([1; 16]);
        let [first, second] = [(); 2].map(|()| CopyId::draw(&mut ids, CopyId::NONE));
        assert!(first != second && first != CopyId::NONE && second != CopyId::NONE);
        assert_ne!(
            CopyId::of_name("http://h1:1"),
            CopyId::of_name("http://h2:1")
        );
    }
}
