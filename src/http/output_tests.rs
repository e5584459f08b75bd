//! Outputs: order, partial sends, memory, generated bodies.

use std::io::IoSlice;

use super::output::{BodySource, COMPACT_BYTES, Fill, GENERATE_BELOW_BYTES, Output, SharedBytes};

/// What `out` shows, through at most `count` slices at a time, sending at most `step` bytes a time
/// of up to twice as many.
fn drain(out: &mut Output, count: usize, step: usize) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let mut slices = [IoSlice::new(&[]); 8];
        let (used, bytes) = out.slices(&mut slices[..count], 2 * step);
        let shown: Vec<u8> = slices[..used]
            .iter()
            .flat_map(|slice| slice.to_vec())
            .collect();
        assert!(
            slices[..used].iter().all(|slice| !slice.is_empty()),
            "an empty slice looks like a closed peer"
        );
        assert!(shown.len() == bytes && bytes <= 2 * step);
        if shown.is_empty() {
            return all;
        }
        let sent = shown.len().min(step);
        all.extend_from_slice(&shown[..sent]);
        out.consume(sent);
    }
}

fn blob(byte: u8, length: usize) -> SharedBytes {
    SharedBytes::new(vec![byte; length])
}

fn mixed() -> (Output, Vec<u8>) {
    let mut out = Output::new();
    out.push_blob(blob(b'a', 3));
    out.bytes().extend_from_slice(b"one");
    out.push_blob(blob(b'b', 10));
    out.push_blob(SharedBytes::default());
    out.push_blob(blob(b'c', 1));
    out.bytes().extend_from_slice(b"two");
    (out, b"aaaonebbbbbbbbbbctwo".to_vec())
}

#[test]
fn order_holds_whatever_is_sent_at_a_time() {
    for step in 1..25 {
        for count in 1..8 {
            let (mut out, expected) = mixed();
            assert_eq!((out.pending_bytes(), out.unsent_bytes()), (6, 20));
            assert_eq!(
                drain(&mut out, count, step),
                expected,
                "{step} bytes, {count} slices a time"
            );
            assert!(out.is_empty() && out.unsent_bytes() == 0);
            assert_eq!(out.heap_bytes(), 0);
        }
    }
}

#[test]
fn append_moves_what_is_unsent() {
    // Onto nothing, however much of it was sent.
    for sent in 0..20 {
        let ((mut own, mut scratch), expected) = ((Output::new(), mixed().0), mixed().1);
        scratch.consume(sent);
        own.append(&mut scratch);
        assert!(scratch.is_empty() && scratch.heap_bytes() == 0);
        assert_eq!(drain(&mut own, 8, 100), expected[sent..], "{sent} sent");
    }
    // Behind what waits already, however much of that was sent.
    for sent in 0..20 {
        let ((mut own, expected), mut scratch) = (mixed(), mixed().0);
        own.consume(sent);
        own.append(&mut scratch);
        assert!(scratch.is_empty() && scratch.heap_bytes() == 0);
        let both = [&expected[sent..], &expected].concat();
        assert_eq!(own.unsent_bytes(), both.len());
        assert_eq!(drain(&mut own, 3, 7), both, "{sent} sent");
    }
    // A source comes along.
    let (mut own, mut scratch) = (Output::new(), Output::new());
    scratch.push_source(
        Box::new(Source {
            left: 1,
            idle: true,
        }),
        false,
    );
    own.append(&mut scratch);
    assert!(own.is_generating() && scratch.is_empty());
}

#[test]
fn a_kept_buffer_renders_without_growing() {
    let mut out = Output::keeping(1000);
    out.bytes().extend_from_slice(&[b'x'; 600]);
    let capacity = out.heap_bytes();
    out.consume(600);
    assert_eq!(out.heap_bytes(), capacity, "kept");
    out.bytes().resize(100_000, b'x');
    out.consume(100_000);
    assert!(
        (600..=1000).contains(&out.heap_bytes()),
        "{} bytes kept",
        out.heap_bytes()
    );

    // A slow connection takes over a copy of its size, not the buffer of all.
    out.bytes().extend_from_slice(b"few");
    let mut own = Output::new();
    own.append(&mut out);
    assert!(own.heap_bytes() < 100 && out.heap_bytes() >= 600);
}

#[test]
fn memory_follows_what_is_unsent() {
    let mut out = Output::new();
    let size = 100 * COMPACT_BYTES;
    for index in 0..size {
        out.bytes().push(u8::try_from(index % 251).expect("small"));
    }
    let mut next = 0;
    while out.pending_bytes() > 0 {
        let mut slices = [IoSlice::new(&[])];
        assert_eq!(
            out.slices(&mut slices, usize::MAX),
            (1, out.pending_bytes())
        );
        assert_eq!(usize::from(slices[0][0]), next % 251);
        let step = 997.min(out.pending_bytes());
        next += step;
        out.consume(step);
        let bound = (4 * out.pending_bytes()).max(2 * COMPACT_BYTES) + COMPACT_BYTES;
        assert!(
            out.heap_bytes() <= bound.max(size.next_power_of_two()),
            "{} held",
            out.heap_bytes()
        );
        if out.pending_bytes() < size / 16 {
            assert!(
                out.heap_bytes() <= bound + size / 8,
                "{} held for {}",
                out.heap_bytes(),
                out.pending_bytes()
            );
        }
    }
    assert_eq!((next, out.heap_bytes()), (size, 0));
}

#[test]
fn blobs_keep_their_place_when_sent_bytes_are_dropped() {
    let (mut out, mut expected) = (Output::new(), Vec::new());
    for byte in b'a'..=b'z' {
        let lower = vec![byte; COMPACT_BYTES / 2];
        let upper = vec![byte.to_ascii_uppercase(); 100];
        out.bytes().extend_from_slice(&lower);
        expected.extend_from_slice(&lower);
        expected.extend_from_slice(&upper);
        out.push_blob(SharedBytes::new(upper));
    }
    assert!(drain(&mut out, 3, 777) == expected);
}

/// Works and works and renders nothing; counts its calls down.
struct Barren(usize);

impl BodySource for Barren {
    fn fill(&mut self, _: &mut Vec<u8>, _: usize) -> Fill {
        self.0 -= 1;
        if self.0 == 0 { Fill::Done } else { Fill::More }
    }
}

#[test]
fn work_without_output_is_charged() {
    let mut out = Output::new();
    out.push_source(Box::new(Barren(2)), true);
    assert_eq!(out.generate(100), 100);
    assert!(out.is_generating() && out.pending_bytes() == 0);
    out.generate(100);
    assert_eq!(
        (out.is_generating(), drain(&mut out, 1, 9)),
        (false, b"0\r\n\r\n".to_vec())
    );
}

/// Renders `left` bytes, nothing on every other call.
struct Source {
    left: usize,
    idle: bool,
}

impl BodySource for Source {
    fn fill(&mut self, out: &mut Vec<u8>, budget_bytes: usize) -> Fill {
        self.idle = !self.idle;
        if !self.idle {
            let now = self.left.min(budget_bytes).min(5000);
            out.resize(out.len() + now, b's');
            self.left -= now;
        }
        if self.left == 0 {
            Fill::Done
        } else {
            Fill::More
        }
    }
}

#[test]
fn sources_render_as_there_is_room() {
    let mut out = Output::new();
    out.bytes().extend_from_slice(b"head:");
    out.push_source(
        Box::new(Source {
            left: 1_000_000,
            idle: false,
        }),
        false,
    );
    assert!(!out.is_empty() && out.is_generating());
    assert!(out.generate(1) >= 1, "calls without output cost work too");
    let mut all = Vec::new();
    while out.is_generating() {
        let work = out.generate(usize::MAX);
        assert!(work > 0 && out.pending_bytes() < GENERATE_BELOW_BYTES + 6000);
        assert_eq!(out.generate(usize::MAX), 0, "no room, no work");
        all.extend(drain(&mut out, 1, 30_000));
    }
    assert_eq!(all.len(), 1_000_005);
    assert!(all.starts_with(b"head:sss") && out.is_empty() && out.heap_bytes() == 0);
}

#[test]
fn chunks_of_a_source() {
    let mut out = Output::new();
    out.push_source(
        Box::new(Source {
            left: 6000,
            idle: false,
        }),
        true,
    );
    let work = out.generate(usize::MAX);
    assert!(work >= 6000 && !out.is_generating());
    let body = drain(&mut out, 1, 100_000);
    let expected = [
        &b"00001388\r\n"[..],
        &[b's'; 5000],
        b"\r\n000003e8\r\n",
        &[b's'; 1000],
        b"\r\n0\r\n\r\n",
    ]
    .concat();
    assert_eq!(
        String::from_utf8_lossy(&body),
        String::from_utf8_lossy(&expected)
    );
}

/// Random outputs, cut at random into what may go and what is held back, moved between buffers,
/// sent in random steps: what may go goes, what is held back does not before it is released, and
/// what is taken back never does.
#[test]
fn what_is_held_back_stays_until_it_is_released() {
    for seed in 0..400 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut render = |out: &mut Output, expected: &mut Vec<u8>| {
            for _ in 0..rng.usize(1..6) {
                let head = vec![rng.u8(..); rng.usize(1..3_000)];
                out.bytes().extend_from_slice(&head);
                expected.extend(head);
                if rng.bool() {
                    let value = blob(rng.u8(..), rng.usize(..9_000));
                    expected.extend_from_slice(&value);
                    out.push_blob(value);
                }
            }
        };
        let (mut out, mut free, mut held) = (Output::new(), Vec::new(), Vec::new());
        render(&mut out, &mut free);
        out.hold();
        render(&mut out, &mut held);
        // Held back twice is held back from the first time on.
        out.hold();
        render(&mut out, &mut held);
        let mut rng = fastrand::Rng::with_seed(seed);
        let sent = rng.usize(..=free.len().min(500));
        out.consume(sent);
        let mut moved = Output::new();
        moved.append(&mut out);
        assert!(moved.is_holding() && !out.is_holding());
        let (count, step) = (rng.usize(1..8), rng.usize(1..5_000));
        assert_eq!(drain(&mut moved, count, step), free[sent..], "seed {seed}");
        assert!(!moved.is_empty());
        if rng.bool() {
            moved.release();
            assert_eq!(drain(&mut moved, count, step), held, "seed {seed}");
        } else {
            moved.drop_held();
            moved.bytes().extend_from_slice(b"refused");
            assert_eq!(drain(&mut moved, count, step), b"refused", "seed {seed}");
        }
        assert!(moved.is_empty() && moved.unsent_bytes() == 0, "seed {seed}");
    }
}

#[test]
fn a_generated_body_that_is_held_back_is_not_rendered() {
    let mut out = Output::new();
    out.hold();
    out.bytes().extend_from_slice(b"head");
    out.push_source(
        Box::new(Source {
            left: 1,
            idle: false,
        }),
        false,
    );
    assert_eq!((out.generate(1_000), out.pending_bytes()), (0, 4));
    out.release();
    assert!(out.generate(1_000) > 0);
}
