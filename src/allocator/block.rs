//! Blocks of memory for what is most of the data, chunks, and for what comes and goes beside it,
//! the indexes of memtables.
//!
//! Smaller allocations stay in the heap when they are freed, for as long as anything lies behind
//! them. So these lie apart, in regions of their own, which go back to the kernel when they are
//! empty; and a block that is not going to be needed again gives its pages back at once
//! ([`Block::give_back`]). (When a million entries had expired and chunks lay in the heap, 46 of 66
//! MiB stayed resident, and where a large part did go back, it went at once and held the loop for
//! 3 ms.)
//!
//! Invariant: the bytes of a block are its own from [`Block::new`] until it is dropped, on whatever
//! thread, and are always initialized.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use super::arena;
use super::counting;
use super::grains::{GRAIN_BYTES, REGION_BYTES, grains_of};
use super::mapping::Mapping;

/// The longest block there can be.
pub const BLOCK_MAX_BYTES: usize = REGION_BYTES;

/// Some bytes.
#[derive(Debug)]
pub struct Block {
    start: NonNull<u8>,
    len: usize,
    /// Keeps the bytes mapped; none once they are freed.
    mapping: Option<Arc<Mapping>>,
}

// SAFETY: a block owns its bytes as a `Box<[u8]>` does: nothing else has a pointer to them.
#[expect(unsafe_code, reason = "a block has a pointer of its own")]
unsafe impl Send for Block {}

// SAFETY: as above; a shared block is only read.
#[expect(unsafe_code, reason = "a block has a pointer of its own")]
unsafe impl Sync for Block {}

impl Block {
    /// A block of `len` bytes, at most [`BLOCK_MAX_BYTES`], with anything in them.
    pub fn new(len: usize) -> Self {
        Self::new_counted(len).0
    }

    /// The same, and how many bytes of it the kernel has yet to give memory for.
    pub fn new_counted(len: usize) -> (Self, usize) {
        assert!(len <= BLOCK_MAX_BYTES, "a block of {len} bytes");
        let (mapping, grain, touched_count) = arena::allocate(grains_of(len));
        counting::add(grains_of(len) * GRAIN_BYTES);
        let block = Self {
            start: mapping.grain(grain),
            len,
            mapping: Some(mapping),
        };
        (block, (grains_of(len) - touched_count) * GRAIN_BYTES)
    }

    /// A block that holds these bytes.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut block = Self::new(bytes.len());
        block.copy_from_slice(bytes);
        block
    }

    /// Shortens the block, if it is one of `len` bytes already but for bookkeeping: it takes as
    /// much memory. False: it does not.
    pub fn shorten(&mut self, len: usize) -> bool {
        let fits = len <= self.len && grains_of(len) == grains_of(self.len);
        if fits {
            self.len = len;
        }
        fits
    }

    /// Frees the block. Returns how many bytes went back to the kernel with it: those of a region
    /// that has become empty.
    pub fn free(mut self) -> usize {
        self.release(false)
    }

    /// Frees the block, and has the kernel take back the memory that it lies in: the next block in
    /// this place costs page faults. Returns what [`free`](Self::free) does.
    pub fn give_back(mut self) -> usize {
        give_back_pages(&mut self);
        self.release(true)
    }

    fn release(&mut self, is_given_back: bool) -> usize {
        let Some(mapping) = self.mapping.take() else {
            return 0;
        };
        let (grain, count) = (mapping.grain_at(self.start), grains_of(self.len));
        counting::subtract(count * GRAIN_BYTES);
        arena::free(&mapping, grain, count, is_given_back)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.release(false);
    }
}

impl Deref for Block {
    type Target = [u8];

    #[inline(always)]
    #[expect(unsafe_code, reason = "a block has a pointer of its own")]
    fn deref(&self) -> &[u8] {
        // SAFETY: the bytes are the block's own and initialized (the invariant), and borrowed as
        // long as the block is.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Block {
    #[inline(always)]
    #[expect(unsafe_code, reason = "a block has a pointer of its own")]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the block is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

/// Has the kernel take back the whole pages of a block, which is not read again before it is
/// written.
fn give_back_pages(block: &mut Block) {
    let page_bytes = rustix::param::page_size();
    let to_page = block.as_ptr().align_offset(page_bytes).min(block.len());
    let inner = &mut block[to_page..];
    let whole_bytes = inner.len() / page_bytes * page_bytes;
    if cfg!(target_os = "linux") && whole_bytes > 0 {
        #[expect(
            unsafe_code,
            reason = "there is no safe way to give back a part of a mapping; the gain is above"
        )]
        // SAFETY: the range is whole pages of a block that is borrowed mutably, in a mapping that
        // is anonymous and private. The pages stay mapped and initialized, to zeros (madvise(2),
        // MADV_DONTNEED). Failing is harmless.
        let _ =
            unsafe { libc::madvise(inner.as_mut_ptr().cast(), whole_bytes, libc::MADV_DONTNEED) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allocator::take_regions;

    #[test]
    fn bytes_stay_until_they_are_freed() {
        let mut blocks = Vec::new();
        for (index, len) in [0, 1, 1023, 1024, 1025, 65_536, BLOCK_MAX_BYTES, 5_000]
            .into_iter()
            .enumerate()
        {
            let fill = u8::try_from(index).expect("few");
            blocks.push((Block::copy_of(&vec![fill; len]), fill, len));
            let mut given = Block::new(70_000);
            given.fill(0xff);
            given.give_back();
        }
        for (mut block, fill, len) in blocks {
            assert_eq!(block.len(), len);
            for shorter in [len / 2, len.saturating_sub(1)] {
                let is_alike = grains_of(shorter) == grains_of(len);
                assert_eq!(block.shorten(shorter), is_alike, "{len} to {shorter}");
                assert_eq!(block.len(), if is_alike { shorter } else { len });
                assert!(!block.shorten(len + GRAIN_BYTES), "a block grows");
                if is_alike {
                    break;
                }
            }
            assert!(block.iter().all(|byte| *byte == fill));
            assert_eq!(
                block.as_ptr().align_offset(64),
                0,
                "blocks begin with a cache line"
            );
        }
    }

    #[test]
    fn what_lies_around_is_left_alone() {
        let mut kept = Vec::new();
        for len in [0, 1, 4095, 4096, 8191, 8192, 65_536, 100_000] {
            let around = [vec![1_u8; 5_000], vec![2; len], vec![3; 5_000]];
            let [before, given, behind] = around.map(|bytes| Block::copy_of(&bytes));
            given.give_back();
            kept.push((before, behind));
            assert!(Block::copy_of(&vec![4; len]).iter().all(|byte| *byte == 4));
        }
        for (before, behind) in kept {
            assert!(before.iter().all(|byte| *byte == 1) && behind.iter().all(|byte| *byte == 3));
        }
    }

    /// Blocks are made here and freed on another thread, while this one makes others, and the
    /// other way round: each keeps its bytes, and their memory is used again.
    #[test]
    fn blocks_may_be_freed_on_any_thread() {
        let address = |block: &Block| block.as_ptr().addr();
        let (sender, receiver) = std::sync::mpsc::channel::<(Block, u8)>();
        let freeing = std::thread::spawn(move || {
            let mut kept = Vec::new();
            for (block, fill) in receiver {
                assert!(block.iter().all(|byte| *byte == fill));
                kept.push(Block::copy_of(&block));
            }
            // The blocks outlive the arena that they are of.
            kept
        });
        let mut places = std::collections::BTreeSet::new();
        for round in 0..2_000_u32 {
            let fill = u8::try_from(round % 251).expect("a byte");
            let block = Block::copy_of(&vec![fill; 60_000]);
            places.insert(address(&block));
            sender.send((block, fill)).expect("it runs");
        }
        drop(sender);
        let kept = freeing.join().expect("it ends");
        assert_eq!(kept.len(), 2_000);
        for (round, block) in kept.iter().enumerate() {
            let fill = u8::try_from(round % 251).expect("a byte");
            assert!(block.iter().all(|byte| *byte == fill));
        }
        let more: Vec<Block> = (0..places.len()).map(|_| Block::new(60_000)).collect();
        assert!(more.iter().any(|block| places.contains(&address(block))));
    }

    #[test]
    fn another_thread_goes_on_with_handed_over_regions() {
        let make = || {
            let blocks = [1, 2, 3].map(|fill| Block::copy_of(&vec![fill; 60_000]));
            (take_regions(), blocks)
        };
        let (regions, [first, second, third]) = std::thread::spawn(make).join().expect("it ends");
        regions.adopt();
        let freed = second.as_ptr().addr();
        second.free();
        assert_eq!(
            Block::new(60_000).as_ptr().addr(),
            freed,
            "the hole is used"
        );
        assert!(first.iter().all(|byte| *byte == 1) && third.iter().all(|byte| *byte == 3));
    }
}
