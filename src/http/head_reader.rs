//! A cache in front of the parser of heads: header lines that are the same as in the head before
//! are compared, not parsed.
//!
//! Clients send the same header lines with every request: only method, target and the length of the
//! body differ. So the cache keeps, for each common method, the bytes after the target of the last
//! head, and what the parser found in them.
//!
//! The cache saves 1,100 to 2,000 instructions a request, a fifth to two fifths of those outside of
//! the kernel (callgrind, plain and 16 pipelined requests, GET and SET).
//!
//! Invariants:
//! 1. The result is always that of [`parse_head`], which parses every head that is not the same.
//! 2. The size of the cache is bounded, whatever heads look like.
//!
//! Not here: how a head is parsed (`request.rs`).

use std::ops::Range;

use crate::swar;

use super::field_table::Field;
use super::head::{Framing, Head, Method, Target};
use super::refusal::Refusal;
use super::request::{HeadLimits, parse_head};

/// A head with more bytes than this after its target is not cached.
const TAIL_MAX_BYTES: usize = 1024;

/// Heads with these methods are cached.
const METHODS: [Method; 4] = [Method::Get, Method::Put, Method::Post, Method::Delete];

/// The cached part of the last head with a method.
#[derive(Debug, Default)]
struct Known {
    /// From the blank before `HTTP/` through the empty line; empty: nothing is cached.
    tail: Vec<u8>,
    /// The parsed head, without target and values.
    head: Head<'static>,
    /// Positions of values in the tail.
    values: Vec<(Field, Range<usize>)>,
}

/// Reads heads.
#[derive(Debug)]
pub struct HeadReader {
    limits: HeadLimits,
    known: [Known; METHODS.len()],
}

impl HeadReader {
    /// An empty cache.
    pub fn new(limits: HeadLimits) -> Self {
        Self {
            limits,
            known: Default::default(),
        }
    }

    /// Reads the head that `input` begins with into `head`, which is that of [`Head::default`], and
    /// returns its length; see [`parse_head`].
    #[inline]
    pub fn read<'b>(
        &mut self,
        input: &'b [u8],
        scanned: &mut usize,
        joined: &'b mut Vec<u8>,
        head: &mut Head<'b>,
    ) -> Result<Option<usize>, Refusal> {
        if let Some(head_bytes) = self.read_alike(input, head) {
            return Ok(Some(head_bytes));
        }
        let found = parse_head(input, scanned, &self.limits, joined, head)?;
        if let Some(head_bytes) = found {
            self.remember(&input[..head_bytes], head);
        }
        Ok(found)
    }

    /// Finds a head with a cached tail; none if it must be parsed.
    #[inline]
    pub(super) fn read_alike<'b>(&self, input: &'b [u8], head: &mut Head<'b>) -> Option<usize> {
        let (target, known, head_bytes) = self.find_alike(input)?;
        *head = known.head;
        (head.path, head.query, head.is_literal) = (target.path, target.query, target.is_literal);
        let tail = &input[head_bytes - known.tail.len()..head_bytes];
        for (field, range) in &known.values {
            if let Some(value) = head.value_mut(*field) {
                *value = Some(&tail[range.clone()]);
            }
        }
        Some(head_bytes)
    }

    /// Targets and bodies of the requests that `input` begins with, for prefetching; ends at the
    /// first head that is not cached. A body that is not complete is empty here.
    pub fn look_ahead<'b>(&self, input: &'b [u8]) -> impl Iterator<Item = (Target<'b>, &'b [u8])> {
        let mut rest = input;
        std::iter::from_fn(move || {
            let (target, known, head_bytes) = self.find_alike(rest)?;
            let body_bytes = match known.head.framing {
                Framing::None => 0,
                Framing::Length(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
                Framing::Chunked => usize::MAX,
            };
            let (body, behind) = rest[head_bytes..]
                .split_at_checked(body_bytes)
                .unwrap_or_default();
            rest = behind;
            Some((target, body))
        })
    }

    /// The target of a head with a cached tail, what is known of the tail, and the head's length.
    #[inline]
    fn find_alike<'b>(&self, input: &'b [u8]) -> Option<(Target<'b>, &Known, usize)> {
        let (known, path_at) = match input {
            [b'G', b'E', b'T', b' ', b'/', ..] => (&self.known[0], 4),
            [b'P', b'U', b'T', b' ', b'/', ..] => (&self.known[1], 4),
            [b'P', b'O', b'S', b'T', b' ', b'/', ..] => (&self.known[2], 5),
            [b'D', b'E', b'L', b'E', b'T', b'E', b' ', b'/', ..] => (&self.known[3], 7),
            _ => return None,
        };
        let (path_bytes, mut is_literal) = plain_bytes(&input[path_at..]);
        let (path, mut rest) = input[path_at..].split_at(path_bytes);
        let mut query = None;
        if let [b'?', behind @ ..] = rest {
            // Another `?` in a query is data; such heads are parsed.
            let (query_bytes, is_query_literal) = plain_bytes(behind);
            query = Some(&behind[..query_bytes]);
            rest = &behind[query_bytes..];
            is_literal &= is_query_literal;
        }
        let head_bytes = input.len() - rest.len() + known.tail.len();
        let is_alike = !known.tail.is_empty()
            && rest.starts_with(&known.tail)
            && head_bytes <= self.limits.head_bytes;
        let target = Target {
            path,
            query,
            is_literal,
        };
        is_alike.then_some((target, known, head_bytes))
    }

    /// Caches the part of a head after its target, if all of its values stand there.
    fn remember(&mut self, bytes: &[u8], head: &Head<'_>) {
        let Some(at) = METHODS.iter().position(|method| *method == head.method) else {
            return;
        };
        let known = &mut self.known[at];
        known.tail.clear();
        known.values.clear();
        let last_of_target = head.query.unwrap_or(head.path);
        let Some(tail_at) = offset_in(bytes, last_of_target).map(|at| at + last_of_target.len())
        else {
            return;
        };
        let tail = &bytes[tail_at..];
        if tail.len() > TAIL_MAX_BYTES {
            return;
        }
        let mut head = *head;
        for &field in Field::ALL {
            let Some(&mut Some(value)) = head.value_mut(field) else {
                continue;
            };
            // Not in the tail: the authority of an absolute target replaces Host, and joined lists
            // have a buffer of their own.
            let Some(start) = offset_in(tail, value) else {
                return;
            };
            known.values.push((field, start..start + value.len()));
        }
        known.head = Head {
            method: head.method,
            http_minor: head.http_minor,
            keep_alive: head.keep_alive,
            framing: head.framing,
            expect_continue: head.expect_continue,
            given: head.given,
            repeated: head.repeated,
            ..Head::default()
        };
        known.tail.extend_from_slice(tail);
    }
}

/// The position of `part` within `whole`; none if it is not a part of it.
fn offset_in(whole: &[u8], part: &[u8]) -> Option<usize> {
    let offset = part.as_ptr().addr().checked_sub(whole.as_ptr().addr())?;
    (offset.checked_add(part.len())? <= whole.len()).then_some(offset)
}

/// Visible bytes, but for `?` and `#`, have no special meaning in a request target.
const PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128_u8 {
        table[byte as usize] = byte.is_ascii_graphic() && byte != b'?' && byte != b'#';
        byte += 1;
    }
    table
};

/// How many plain bytes there are before any other (all, if there is no other), and whether none of
/// them is `%` or `+`.
#[inline(always)] // once for a path, once for a query
fn plain_bytes(bytes: &[u8]) -> (usize, bool) {
    let (mut at, mut is_literal) = (0, true);
    for eight in bytes.as_chunks().0 {
        let word = u64::from_le_bytes(*eight);
        // Most words of a target have nothing that means anything, which is seen at once: all of it
        // is in here.
        let ends = swar::above(word, 0x7e) | swar::equal(word, b'?');
        if swar::below(word, b'+' + 1) | ends == 0 {
            at += 8;
            continue;
        }
        let others = ends | swar::below(word, 0x21) | swar::equal(word, b'#');
        let escapes = swar::equal(word, b'%') | swar::equal(word, b'+');
        if others != 0 {
            // Of those below the lowest mark; it is a single bit.
            is_literal &= escapes & ((others & others.wrapping_neg()) - 1) == 0;
            return (at + swar::first(others), is_literal);
        }
        is_literal &= escapes == 0;
        at += 8;
    }
    let rest = &bytes[at..];
    let rest = &rest[..rest
        .iter()
        .position(|byte| !PLAIN[usize::from(*byte)])
        .unwrap_or(rest.len())];
    (
        at + rest.len(),
        is_literal && !rest.iter().any(|byte| matches!(byte, b'%' | b'+')),
    )
}
