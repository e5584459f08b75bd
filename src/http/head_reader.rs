//! Reading heads one after the other: what is like the one before is compared, not parsed.
//!
//! Clients send the same header lines with every request: only method and target differ, and the
//! length of a body. So of the last head with each common method everything behind the target is
//! remembered, with what it was found to say. A head that ends in the same bytes says the same.
//!
//! Invariants:
//! 1. Whatever was read before, a head is read as [`parse_head`] alone would read it; it decides
//!    whatever is not plainly alike.
//! 2. What is remembered is bounded, however heads look.
//!
//! Not here: how a head is parsed (`request.rs`).

use std::ops::Range;

use crate::swar;

use super::field_table::Field;
use super::head::{Framing, Head, Method, Target};
use super::refusal::Refusal;
use super::request::{HeadLimits, parse_head};

/// Of a head with more behind its target than this nothing is remembered.
const TAIL_MAX_BYTES: usize = 1024;

/// The methods whose heads are remembered.
const METHODS: [Method; 4] = [Method::Get, Method::Put, Method::Post, Method::Delete];

/// What a head of some method said last, behind its target.
#[derive(Debug, Default)]
struct Known {
    /// From the blank before `HTTP/` through the empty line; empty: nothing is remembered.
    tail: Vec<u8>,
    /// What it says, target and values aside.
    head: Head<'static>,
    /// Where in the tail values stand.
    values: Vec<(Field, Range<usize>)>,
}

/// A head like the last one of its method.
struct Alike<'b, 'r> {
    target: Target<'b>,
    known: &'r Known,
    head_bytes: usize,
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

    /// Reads a head that is like the last one of its method; `None`: it is not, or not plainly.
    #[inline]
    pub(super) fn read_alike<'b>(&self, input: &'b [u8], head: &mut Head<'b>) -> Option<usize> {
        let Alike {
            target,
            known,
            head_bytes,
        } = self.find_alike(input)?;
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

    /// The targets of the requests that `input` begins with, as far as they are like those before,
    /// and their bodies, empty where they are not whole; for guessing what is going to be asked.
    pub fn look_ahead<'b>(&self, input: &'b [u8]) -> impl Iterator<Item = (Target<'b>, &'b [u8])> {
        let mut rest = input;
        std::iter::from_fn(move || {
            let Alike {
                target,
                known,
                head_bytes,
            } = self.find_alike(rest)?;
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

    #[inline]
    fn find_alike<'b>(&self, input: &'b [u8]) -> Option<Alike<'b, '_>> {
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
        is_alike.then_some(Alike {
            target: Target {
                path,
                query,
                is_literal,
            },
            known,
            head_bytes,
        })
    }

    /// Remembers what a whole head says behind its target, if that is where all of it stands.
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
            // Not in the tail: an authority in the target stands for Host, and lists are joined
            // elsewhere.
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
        .position(|byte| !is_plain(*byte))
        .unwrap_or(rest.len())];
    (
        at + rest.len(),
        is_literal && !rest.iter().any(|byte| matches!(byte, b'%' | b'+')),
    )
}

#[inline]
fn is_plain(byte: u8) -> bool {
    PLAIN[usize::from(byte)]
}
