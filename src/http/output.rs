//! The bytes to be sent on one connection, in order.
//!
//! Rendered bytes are in one `Vec`; a large value ([`SharedBytes`]) is not copied there, but kept
//! with the position at which it is sent. So a common reply is one slice of one buffer, and
//! rendering into a buffer that keeps its memory allocates nothing.
//!
//! Invariants:
//! 1. [`Output::slices`] returns exactly the bytes that are queued and not yet consumed, in order,
//!    whatever the sizes of the sends.
//! 2. Sent bytes at the front are at most half of the buffer (or [`COMPACT_BYTES`]): memory follows
//!    what is unsent, and moving it costs amortized constant time a byte.
//! 3. `blobs` is sorted by position; each position is in `sent..=bytes.len()`; no blob is empty;
//!    `blob_sent` counts only when the first blob is next.
//! 4. A generated body is the last thing queued until it is done.
//! 5. Once all is sent, no more than `keep_bytes` of heap stay.
//! 6. `slices` returns nothing that is held back, and nothing after it.
//!
//! Not here: what the bytes mean (`response.rs`), writing them to a socket (the reactor), how much
//! may be queued (`connection.rs`).

use std::collections::VecDeque;
use std::fmt;
use std::io::IoSlice;
use std::sync::Arc;

/// A large value: shared, never copied.
pub type SharedBytes = Arc<Vec<u8>>;

/// Fewer sent bytes than this at the front are not worth moving the rest for.
pub const COMPACT_BYTES: usize = 4 * 1024;

/// A source renders no more while this much is unsent.
pub const GENERATE_BELOW_BYTES: usize = 64 * 1024;

/// Budget of one call of a source.
pub const GENERATE_STEP_BYTES: usize = 16 * 1024;

/// Digits of a chunk size, with leading zeros: it is filled in once the chunk is rendered.
const CHUNK_SIZE_DIGITS: usize = 8;

/// Whether a source has more to render.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Call again.
    More,
    /// The body is whole.
    Done,
}

/// A response body that is rendered a piece at a time.
pub trait BodySource {
    /// Appends the next piece to `out`, doing at most about `budget_bytes` of work; may append
    /// nothing, must not take away.
    fn fill(&mut self, out: &mut Vec<u8>, budget_bytes: usize) -> Fill;
}

/// A body that is generated.
enum GeneratedBody {
    /// Rendered as the peer reads it.
    Source {
        source: Box<dyn BodySource>,
        chunked: bool,
    },
    /// Appended to from outside, with `feed` and `end_feed`.
    Fed { chunked: bool },
}

struct PlacedBlob {
    /// The index in `bytes` that the blob goes before.
    at: usize,
    blob: SharedBytes,
}

/// A queue of bytes, blobs and at most one generated body.
#[derive(Default)]
pub struct Output {
    bytes: Vec<u8>,
    /// The part of `bytes` that is sent.
    sent: usize,
    blobs: VecDeque<PlacedBlob>,
    /// The part of the first blob that is sent.
    blob_sent: usize,
    /// Bytes of all blobs that are unsent.
    blob_bytes: usize,
    generated: Option<GeneratedBody>,
    /// The capacity to keep when everything is sent.
    keep_bytes: usize,
    /// The index in `bytes` from which on everything is held back.
    held_from: Option<usize>,
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output")
            .field("pending_bytes", &self.pending_bytes())
            .field("blob_bytes", &self.blob_bytes)
            .field("generating", &self.is_generating())
            .finish_non_exhaustive()
    }
}

impl Output {
    /// An output that owns no heap when everything is sent: one for a connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// An output that keeps up to `keep_bytes` of its buffer when everything is sent: one to render
    /// into again and again.
    pub fn keeping(keep_bytes: usize) -> Self {
        Self {
            keep_bytes,
            ..Self::default()
        }
    }

    /// Nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.sent == self.bytes.len() && self.blobs.is_empty() && self.generated.is_none()
    }

    /// Holds back what is queued from now on, until [`release`](Self::release): replies to writes
    /// that are not durable yet.
    pub fn hold(&mut self) {
        self.held_from.get_or_insert(self.bytes.len());
    }

    /// Something is held back.
    pub fn is_holding(&self) -> bool {
        self.held_from.is_some()
    }

    /// Lets everything that is held back be sent.
    pub fn release(&mut self) {
        self.held_from = None;
    }

    /// Removes what is held back.
    pub fn drop_held(&mut self) {
        let Some(from) = self.held_from.take() else {
            return;
        };
        self.bytes.truncate(from);
        while let Some(placed) = self.blobs.pop_back_if(|placed| placed.at > from) {
            self.blob_bytes -= placed.blob.len();
        }
        self.generated = None;
        self.reclaim();
    }

    /// Removes everything that is not sent yet.
    pub fn discard(&mut self) {
        self.sent = self.bytes.len();
        self.blobs.clear();
        (self.blob_sent, self.blob_bytes) = (0, 0);
        (self.generated, self.held_from) = (None, None);
        self.reclaim();
    }

    /// Rendered bytes not yet sent; blobs count with what was rendered before them only.
    pub fn pending_bytes(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Unsent bytes, blobs included, without what a source has yet to render.
    pub fn unsent_bytes(&self) -> usize {
        self.pending_bytes() + self.blob_bytes
    }

    /// Heap this output owns; blobs are shared and not counted.
    pub fn heap_bytes(&self) -> usize {
        self.bytes.capacity() + self.blobs.capacity() * size_of::<PlacedBlob>()
    }

    /// A source is queued: nothing may be queued after it until it is done.
    pub fn is_generating(&self) -> bool {
        self.generated.is_some()
    }

    /// The buffer to render into; append only.
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        self.assert_open();
        &mut self.bytes
    }

    /// Queues a shared value.
    pub fn push_blob(&mut self, blob: SharedBytes) {
        self.assert_open();
        if !blob.is_empty() {
            self.blob_bytes += blob.len();
            self.blobs.push_back(PlacedBlob {
                at: self.bytes.len(),
                blob,
            });
        }
    }

    /// Queues a body that is rendered as the peer reads it, in chunks if `chunked`.
    pub fn push_source(&mut self, source: Box<dyn BodySource>, chunked: bool) {
        self.assert_open();
        self.generated = Some(GeneratedBody::Source { source, chunked });
    }

    /// Queues a body that is fed from outside, in chunks if `chunked`.
    pub fn push_feed(&mut self, chunked: bool) {
        self.assert_open();
        self.generated = Some(GeneratedBody::Fed { chunked });
    }

    /// Whether it ends with a body that is fed.
    pub fn is_fed(&self) -> bool {
        matches!(self.generated, Some(GeneratedBody::Fed { .. }))
    }

    /// Appends what `render` renders to the body that is fed; none if there is no such body.
    pub fn feed<R>(&mut self, render: impl FnOnce(&mut Vec<u8>) -> R) -> Option<R> {
        let Some(GeneratedBody::Fed { chunked }) = self.generated else {
            return None;
        };
        Some(frame(&mut self.bytes, chunked, render))
    }

    /// Ends the body that is fed.
    pub fn end_feed(&mut self) {
        if let Some(GeneratedBody::Fed { chunked }) = self.generated {
            self.generated = None;
            self.bytes
                .extend_from_slice(if chunked { LAST_CHUNK } else { b"" });
            self.reclaim();
        }
    }

    /// Lets the source render while little is unsent; returns the work done, which may be a step
    /// more than the budget.
    pub fn generate(&mut self, budget_bytes: usize) -> usize {
        let mut work = 0;
        while self.held_from.is_none()
            && work < budget_bytes
            && self.pending_bytes() < GENERATE_BELOW_BYTES
        {
            let Some(GeneratedBody::Source { source, chunked }) = &mut self.generated else {
                break;
            };
            let step = GENERATE_STEP_BYTES.min(budget_bytes - work);
            let before = self.bytes.len();
            let fill = fill(&mut **source, *chunked, &mut self.bytes, step);
            let rendered = self.bytes.len() - before;
            match fill {
                // A source that rendered little may have done much work, such as skipping keys.
                Fill::More => work += rendered.max(step),
                Fill::Done => {
                    work += rendered;
                    self.generated = None;
                }
            }
        }
        work
    }

    /// The first unsent slices that are not held back, in order, up to `max_bytes` of them; returns
    /// how many of `into` are set, and the bytes in them.
    pub fn slices<'o>(&'o self, into: &mut [IoSlice<'o>], max_bytes: usize) -> (usize, usize) {
        // The value of a reply that is held back comes after the head of that reply.
        let end = self.held_from.unwrap_or(self.bytes.len());
        let (mut count, mut left_bytes, mut at) = (0, max_bytes, self.sent);
        let mut push = |slice: &'o [u8]| {
            let slice = &slice[..slice.len().min(left_bytes)];
            match into.get_mut(count) {
                Some(slot) if !slice.is_empty() => {
                    *slot = IoSlice::new(slice);
                    count += 1;
                    left_bytes -= slice.len();
                    true
                }
                slot => slot.is_some() && left_bytes > 0,
            }
        };
        let mut skip = self.blob_sent;
        for placed in self.blobs.iter().take_while(|placed| placed.at <= end) {
            if !push(&self.bytes[at..placed.at]) || !push(&placed.blob[skip..]) {
                return (count, max_bytes - left_bytes);
            }
            (at, skip) = (placed.at, 0);
        }
        push(&self.bytes[at..end]);
        (count, max_bytes - left_bytes)
    }

    /// Drops the first `sent` unsent bytes.
    pub fn consume(&mut self, sent: usize) {
        let mut left = sent;
        while let Some(first) = self.blobs.front() {
            let plain = left.min(first.at - self.sent);
            self.sent += plain;
            left -= plain;
            if self.sent < first.at || left == 0 {
                break;
            }
            let shared = left.min(first.blob.len() - self.blob_sent);
            self.blob_sent += shared;
            self.blob_bytes -= shared;
            left -= shared;
            if self.blob_sent < first.blob.len() {
                break;
            }
            self.blob_sent = 0;
            self.blobs.pop_front();
        }
        if self.blobs.is_empty() {
            assert!(
                left <= self.pending_bytes(),
                "more was consumed than queued"
            );
            self.sent += left;
        }
        self.reclaim();
    }

    /// Moves what `other` holds behind what is queued here.
    pub fn append(&mut self, other: &mut Output) {
        self.assert_open();
        let take_buffer = self.is_empty() && other.pending_bytes() > other.bytes.capacity() / 2;
        if take_buffer {
            std::mem::swap(&mut self.bytes, &mut other.bytes);
            std::mem::swap(&mut self.sent, &mut other.sent);
            self.held_from = other.held_from.take();
            self.blobs.append(&mut other.blobs);
        } else {
            // Blobs of `other` lie at its indexes; here its first unsent byte lies at `base`.
            let base = self.bytes.len();
            self.bytes.extend_from_slice(&other.bytes[other.sent..]);
            let held_from = other.held_from.take().map(|at| at - other.sent + base);
            self.held_from = self.held_from.or(held_from);
            let moved = other.blobs.drain(..);
            self.blobs.extend(moved.map(|placed| PlacedBlob {
                at: placed.at - other.sent + base,
                ..placed
            }));
        }
        debug_assert!(
            other.blob_sent == 0 || self.blob_sent == 0,
            "what is behind was sent before what is in front"
        );
        self.blob_sent += std::mem::take(&mut other.blob_sent);
        self.blob_bytes += std::mem::take(&mut other.blob_bytes);
        self.generated = other.generated.take();
        other.sent = other.bytes.len();
        other.reclaim();
    }

    /// Nothing may be queued behind a generated body.
    #[inline]
    fn assert_open(&self) {
        debug_assert!(self.generated.is_none(), "a body is being generated");
    }

    /// Keeps invariants 2 and 5.
    fn reclaim(&mut self) {
        if self.sent == self.bytes.len() && self.blobs.is_empty() {
            self.sent = 0;
            self.bytes.clear();
            if !matches!(self.generated, Some(GeneratedBody::Source { .. })) {
                self.bytes.shrink_to(self.keep_bytes);
                self.blobs.shrink_to(0);
            }
        } else if self.sent > COMPACT_BYTES && self.sent > self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            for placed in &mut self.blobs {
                placed.at -= self.sent;
            }
            self.held_from = self.held_from.map(|at| at - self.sent);
            self.sent = 0;
            if self.bytes.len() < self.bytes.capacity() / 4 {
                self.bytes
                    .shrink_to(self.keep_bytes.max(self.bytes.len() * 2));
            }
        }
    }
}

/// What ends a body in chunk framing.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// One call of the source, framed as one chunk (none if it rendered nothing), and the last chunk
/// when it is done.
fn fill(
    source: &mut dyn BodySource,
    chunked: bool,
    bytes: &mut Vec<u8>,
    budget_bytes: usize,
) -> Fill {
    let fill = frame(bytes, chunked, |bytes| source.fill(bytes, budget_bytes));
    if fill == Fill::Done && chunked {
        bytes.extend_from_slice(LAST_CHUNK);
    }
    fill
}

/// Frames what is rendered as one chunk, if `chunked`; nothing if it is nothing.
fn frame<R>(bytes: &mut Vec<u8>, chunked: bool, render: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    if !chunked {
        return render(bytes);
    }
    let start = bytes.len();
    bytes.extend_from_slice(b"00000000\r\n");
    let data = bytes.len();
    let rendered = render(bytes);
    if bytes.len() > data {
        let mut size = bytes.len() - data;
        for digit in bytes[start..start + CHUNK_SIZE_DIGITS].iter_mut().rev() {
            *digit = b"0123456789abcdef"[size & 0xf];
            size >>= 4;
        }
        assert!(size == 0, "a piece of a generated body stays below 4 GiB");
        bytes.extend_from_slice(b"\r\n");
    } else {
        bytes.truncate(start);
    }
    rendered
}
