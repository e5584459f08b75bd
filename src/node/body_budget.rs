//! Memory for request bodies that are arriving: a body claims its declared length when it begins,
//! or memory as it grows, if no length is declared.
//!
//! Invariants:
//! 1. All bodies together claim no more than their share, and those that add data no more than
//!    memory has room for. A single body may exceed both, since then no other one is in its way.
//! 2. A claim ends with its body, whatever the outcome.
//!
//! Not here: the memory of a body (`api/body/request_body.rs`), ending slow uploads when there is
//! no room (`reactor/relief.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bodies may take this fraction of `--max-memory`.
const MEMORY_SHARE: usize = 2;

/// The kind of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimKind {
    /// The body adds data: there must be room for that in memory, too.
    Adding,
    /// The body may free memory: only the share limits it.
    Any,
}

/// Why a claim is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimRefusal {
    /// Other bodies use up the share.
    Share,
    /// Memory has no room for it.
    Memory,
}

#[derive(Debug)]
#[expect(clippy::struct_field_names, reason = "the unit stands last")]
struct Counts {
    /// Claimed by all bodies.
    claimed_bytes: AtomicUsize,
    /// Of that, the memory that they have allocated.
    held_bytes: AtomicUsize,
    /// The share: what all of them may claim together.
    share_bytes: AtomicUsize,
    /// What they may claim beside the memory in use otherwise.
    room_bytes: AtomicUsize,
    /// The largest claim refused since it was last taken.
    refused_bytes: AtomicUsize,
}

/// The claims of all bodies. There is one thread; the counters are atomic because claims are owned
/// by bodies.
#[derive(Debug)]
pub struct BodyBudget(Arc<Counts>);

/// The claim of one body.
#[derive(Debug)]
pub struct BodyClaim {
    counts: Arc<Counts>,
    kind: ClaimKind,
    claimed_bytes: usize,
    held_bytes: usize,
}

impl BodyBudget {
    /// A budget with a share.
    pub fn new(share_bytes: usize) -> Self {
        Self(Arc::new(Counts {
            claimed_bytes: AtomicUsize::new(0),
            held_bytes: AtomicUsize::new(0),
            share_bytes: AtomicUsize::new(share_bytes),
            room_bytes: AtomicUsize::new(usize::MAX),
            refused_bytes: AtomicUsize::new(0),
        }))
    }

    /// Sets the memory in use, bodies included, its limit, and the share.
    pub fn set_memory_in_use(&self, used_bytes: usize, max_bytes: usize, share_bytes: usize) {
        let other_bytes = used_bytes.saturating_sub(load(&self.0.held_bytes));
        let room_bytes = max_bytes.saturating_sub(other_bytes);
        store(&self.0.room_bytes, room_bytes);
        store(
            &self.0.share_bytes,
            share_bytes.min(max_bytes / MEMORY_SHARE),
        );
    }

    /// A body of `bytes` begins: claims memory for it.
    pub fn claim(&self, bytes: usize, kind: ClaimKind) -> Result<BodyClaim, ClaimRefusal> {
        let mut claim = BodyClaim {
            counts: Arc::clone(&self.0),
            kind,
            claimed_bytes: 0,
            held_bytes: 0,
        };
        claim.grow_to(bytes)?;
        Ok(claim)
    }

    /// Claimed by all bodies on their way.
    pub fn claimed_bytes(&self) -> usize {
        load(&self.0.claimed_bytes)
    }

    /// Takes the largest claim that was refused since this was called last; 0: none was.
    pub fn take_refused_bytes(&self) -> usize {
        self.0.refused_bytes.swap(0, Ordering::Relaxed)
    }
}

impl BodyClaim {
    /// The bytes claimed.
    pub fn bytes(&self) -> usize {
        self.claimed_bytes
    }

    /// Raises the claim to `bytes`, which the body has allocated or is about to allocate.
    pub fn hold(&mut self, bytes: usize) -> Result<(), ClaimRefusal> {
        if bytes > self.claimed_bytes {
            self.grow_to(bytes)?;
        }
        add(&self.counts.held_bytes, bytes, self.held_bytes);
        self.held_bytes = bytes;
        Ok(())
    }

    fn grow_to(&mut self, bytes: usize) -> Result<(), ClaimRefusal> {
        let other_bytes = load(&self.counts.claimed_bytes) - self.claimed_bytes;
        let wanted_bytes = other_bytes.saturating_add(bytes);
        let is_adding = self.kind == ClaimKind::Adding;
        let refusal = if other_bytes == 0 {
            None
        } else if is_adding && wanted_bytes > load(&self.counts.room_bytes) {
            Some(ClaimRefusal::Memory)
        } else if wanted_bytes > load(&self.counts.share_bytes) {
            Some(ClaimRefusal::Share)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            self.counts
                .refused_bytes
                .fetch_max(bytes, Ordering::Relaxed);
            return Err(refusal);
        }
        add(&self.counts.claimed_bytes, bytes, self.claimed_bytes);
        self.claimed_bytes = bytes;
        Ok(())
    }
}

impl Drop for BodyClaim {
    fn drop(&mut self) {
        add(&self.counts.claimed_bytes, 0, self.claimed_bytes);
        add(&self.counts.held_bytes, 0, self.held_bytes);
    }
}

fn load(counter: &AtomicUsize) -> usize {
    counter.load(Ordering::Relaxed)
}

fn store(counter: &AtomicUsize, value: usize) {
    counter.store(value, Ordering::Relaxed);
}

/// Replaces `before` by `now` in a sum.
fn add(counter: &AtomicUsize, now: usize, before: usize) {
    store(counter, load(counter) - before + now);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_claim_no_more_than_their_share_and_memory_has_room_for() {
        let budget = BodyBudget::new(100);
        let first = budget.claim(60, ClaimKind::Adding).expect("room");
        let refusal = budget.claim(41, ClaimKind::Adding).expect_err("too much");
        assert_eq!(refusal, ClaimRefusal::Share);
        assert_eq!(
            (budget.take_refused_bytes(), budget.take_refused_bytes()),
            (41, 0)
        );
        let mut second = budget.claim(0, ClaimKind::Adding).expect("room");
        assert_eq!(second.hold(40), Ok(()));
        assert_eq!(second.hold(41), Err(ClaimRefusal::Share));
        assert_eq!(budget.claimed_bytes(), 100);
        drop(first);
        assert_eq!(second.hold(41), Ok(()));
        assert_eq!(budget.claimed_bytes(), 41);
        // 41 of the 80 in use are its own: of 103, 64 are left for bodies, and half of it is their
        // share.
        budget.set_memory_in_use(80, 103, 1_000);
        let third = budget.claim(10, ClaimKind::Adding).expect("room");
        assert_eq!(second.hold(50), Err(ClaimRefusal::Share));
        budget.set_memory_in_use(80, 89, 1_000);
        assert_eq!(second.hold(42), Err(ClaimRefusal::Memory));
        let refusal = budget.claim(1, ClaimKind::Any).expect_err("half of 89");
        assert_eq!(refusal, ClaimRefusal::Share);
        drop(third);
        assert!(budget.claim(3, ClaimKind::Any).is_ok(), "it may free some");
        drop(second);
        assert_eq!(budget.claimed_bytes(), 0);
    }

    #[test]
    fn one_body_alone_may_go_beyond() {
        let budget = BodyBudget::new(1_000);
        budget.set_memory_in_use(90, 100, 1_000);
        let mut alone = budget.claim(80, ClaimKind::Adding).expect("it is alone");
        assert_eq!(alone.hold(2_000), Ok(()));
        assert!(budget.claim(1, ClaimKind::Adding).is_err());
        drop(alone);
        assert!(budget.claim(0, ClaimKind::Adding).is_ok());
    }
}
