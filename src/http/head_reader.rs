//! Reading heads one after the other: what is like the one before is compared, not parsed.
//!
//! Clients send the same header lines with every request: only method and target differ, and the length of a body. So of the
//! last head with each common method everything behind the target is remembered, with what it was found to say. A head that
//! ends in the same bytes says the same.
//!
//! Invariants:
//! 1. Whatever was read before, a head is read as [`parse_head`] alone would read it; it decides whatever is not plainly alike.
//! 2. What is remembered is bounded, however heads look.
//!
//! Not here: how a head is parsed (`request.rs`).

use std::ops::Range;

use super::head::{Field, Framing, Head, Method};
use super::refusal::Refusal;
use super::request::{HeadLimits, parse_head};

/// Of a head with more behind its target than this nothing is remembered.
const TAIL_MAX_BYTES: usize = 1024;

/// The methods whose heads are remembered, as they begin a request.
const METHODS: [(Method, &[u8]); 4] =
    [(Method::Get, b"GET /"), (Method::Put, b"PUT /"), (Method::Post, b"POST /"), (Method::Delete, b"DELETE /")];

/// What a head of some method said last, behind its target.
#[derive(Debug, Default)]
struct Known {
    /// From the blank before `HTTP/` through the empty line; empty: nothing is remembered.
    tail: Vec<u8>,
    /// What it says, method, target and values aside.
    head: Head<'static>,
    /// Where in the tail values stand.
    values: Vec<(Field, Range<usize>)>,
}

/// Reads heads.
#[derive(Debug)]
pub struct HeadReader {
    limits: HeadLimits,
    known: [Known; METHODS.len()],
}

impl HeadReader {
    /// Nothing is remembered yet.
    pub fn new(limits: HeadLimits) -> Self {
        Self { limits, known: Default::default() }
    }

    /// Reads the head that `input` begins with into `head`, which is that of [`Head::default`], and returns its length; see
    /// [`parse_head`].
    #[inline]
    pub fn read<'b>(
        &mut self,
        input: &'b [u8],
        scanned: &mut usize,
        head: &mut Head<'b>,
    ) -> Result<Option<usize>, Refusal> {
        if let Some(head_bytes) = self.read_alike(input, head) {
            return Ok(Some(head_bytes));
        }
        let found = parse_head(input, scanned, &self.limits, head)?;
        if let Some(head_bytes) = found {
            self.remember(&input[..head_bytes], head);
        }
        Ok(found)
    }

    /// The heads of the requests that `input` begins with, as far as they are like those before; for guessing what is going to be
    /// asked.
    pub fn look_ahead<'b>(&self, input: &'b [u8]) -> impl Iterator<Item = Head<'b>> {
        let mut rest = input;
        std::iter::from_fn(move || {
            let mut head = Head::default();
            let head_bytes = self.read_alike(rest, &mut head)?;
            let body_bytes = match head.framing {
                Framing::None => 0,
                Framing::Length(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
                Framing::Chunked => usize::MAX,
            };
            rest = rest.get(head_bytes.saturating_add(body_bytes)..).unwrap_or_default();
            Some(head)
        })
    }

    /// Reads a head that is like the last one of its method; `None`: it is not, or not plainly.
    #[inline]
    pub(super) fn read_alike<'b>(&self, input: &'b [u8], head: &mut Head<'b>) -> Option<usize> {
        let at = METHODS.iter().position(|(_, begin)| input.starts_with(begin))?;
        let (method, begin) = METHODS[at];
        let target = &input[begin.len() - 1..];
        let path_bytes = target.iter().position(|byte| !is_plain(*byte))?;
        let mut target_bytes = path_bytes;
        let mut query = None;
        if target[path_bytes] == b'?' {
            let rest = &target[path_bytes + 1..];
            let query_bytes = rest.iter().position(|byte| !is_plain(*byte) && *byte != b'?')?;
            query = Some(&rest[..query_bytes]);
            target_bytes = path_bytes + 1 + query_bytes;
        }
        let known = &self.known[at];
        let tail = target[target_bytes..].get(..known.tail.len())?;
        let head_bytes = begin.len() - 1 + target_bytes + tail.len();
        if tail != known.tail || tail.is_empty() || head_bytes > self.limits.head_bytes {
            return None;
        }
        *head = known.head;
        head.method = method;
        head.path = &target[..path_bytes];
        head.query = query;
        for (field, range) in &known.values {
            *head.field_mut(*field) = Some(&tail[range.clone()]);
        }
        Some(head_bytes)
    }

    /// Remembers what a whole head says behind its target, if that is where all of it stands.
    fn remember(&mut self, bytes: &[u8], head: &Head<'_>) {
        let Some(at) = METHODS.iter().position(|(method, _)| *method == head.method) else { return };
        let known = &mut self.known[at];
        known.tail.clear();
        known.values.clear();
        let last_of_target = head.query.unwrap_or(head.path);
        let Some(tail_at) = offset_in(bytes, last_of_target).map(|at| at + last_of_target.len()) else { return };
        let tail = &bytes[tail_at..];
        if tail.len() > TAIL_MAX_BYTES {
            return;
        }
        let mut head = *head;
        for field in Field::ALL {
            let Some(value) = *head.field_mut(field) else { continue };
            // The authority of an absolute-form target stands for Host, and before the tail.
            let Some(start) = offset_in(tail, value) else { return };
            known.values.push((field, start..start + value.len()));
        }
        known.head = Head {
            http_minor: head.http_minor,
            keep_alive: head.keep_alive,
            framing: head.framing,
            expect_continue: head.expect_continue,
            ..Head::default()
        };
        known.tail.extend_from_slice(tail);
    }
}

/// Where in `whole` a part of it begins; `None`: it is no part of it.
fn offset_in(whole: &[u8], part: &[u8]) -> Option<usize> {
    let offset = part.as_ptr().addr().checked_sub(whole.as_ptr().addr())?;
    (offset.checked_add(part.len())? <= whole.len()).then_some(offset)
}

/// Bytes of a request target that mean nothing there: visible ones, but for `?` and `#`.
const PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128_u8 {
        table[byte as usize] = byte.is_ascii_graphic() && byte != b'?' && byte != b'#';
        byte += 1;
    }
    table
};

#[inline]
fn is_plain(byte: u8) -> bool {
    PLAIN[usize::from(byte)]
}
