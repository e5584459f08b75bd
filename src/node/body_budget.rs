//! Memory for request bodies that are not whole yet: a body is counted when it is begun, with what
//! it says that it will take, or as it grows where it says nothing.
//!
//! Invariants:
//! 1. Bodies together claim no more than their share, and those that add data no more than memory
//!    has room for. One body alone may go beyond both: a body is not refused for what no other one
//!    takes.
//! 2. A claim ends with its body, whatever becomes of it.
//!
//! Not here: what a body takes (`api/body/request_body.rs`), which upload is ended where there is
//! no room (`reactor/relief.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Of the memory that may be in use, bodies on their way may take one part in this many.
const MEMORY_SHARE: usize = 2;

/// What a claim is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimKind {
    /// The body adds data: there must be room for that in memory, too.
    Adding,
    /// The body may be one that frees memory: it is only held to the share.
    Any,
}

/// Why a claim is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimRefusal {
    /// Other bodies on their way take what there is for all of them.
    Share,
    /// Memory has no room for it.
    Memory,
}

#[derive(Debug)]
#[expect(clippy::struct_field_names, reason = "the unit stands last")]
struct Counts {
    /// Claimed by all bodies on their way.
    claimed_bytes: AtomicUsize,
    /// Of that, what they have allocated.
    held_bytes: AtomicUsize,
    /// What all of them may claim together.
    share_bytes: AtomicUsize,
    /// What they may claim beyond what is in use for other things.
    room_bytes: AtomicUsize,
    /// The largest claim that was refused since the last look.
    refused_bytes: AtomicUsize,
}

/// The claims of all bodies. There is one thread; the counters are atomic because claims are owned
/// by bodies.
#[derive(Debug)]
pub struct BodyBudget(Arc<Counts>);

/// What one body claims.
#[derive(Debug)]
pub struct BodyClaim {
    counts: Arc<Counts>,
    kind: ClaimKind,
    claimed_bytes: usize,
    held_bytes: usize,
}

impl BodyBudget {
    /// A budget of so many bytes.
    pub fn new(share_bytes: usize) -> Self {
        Self(Arc::new(Counts {
            claimed_bytes: AtomicUsize::new(0),
            held_bytes: AtomicUsize::new(0),
            share_bytes: AtomicUsize::new(share_bytes),
            room_bytes: AtomicUsize::new(usize::MAX),
            refused_bytes: AtomicUsize::new(0),
        }))
    }

    /// Tells how much memory is in use, bodies included, of how much.
    pub fn set_memory_in_use(&self, used_bytes: usize, max_bytes: usize, share_bytes: usize) {
        let other_bytes = used_bytes.saturating_sub(load(&self.0.held_bytes));
        let room_bytes = max_bytes.saturating_sub(other_bytes);
        store(&self.0.room_bytes, room_bytes);
        store(
            &self.0.share_bytes,
            share_bytes.min(max_bytes / MEMORY_SHARE),
        );
    }

    /// A body of `bytes` begins.
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

    /// The largest claim that was refused since this was asked last; 0: none was.
    pub fn take_refused_bytes(&self) -> usize {
        self.0.refused_bytes.swap(0, Ordering::Relaxed)
    }
}

impl BodyClaim {
    /// What it claims.
    pub fn bytes(&self) -> usize {
        self.claimed_bytes
    }

    /// The body has allocated so many bytes, or is about to.
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

/// Counts `now` instead of `before`.
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
