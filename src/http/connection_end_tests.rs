//! Connections: what they wait for, and how they end.

use std::cmp::Ordering;

use super::connection_tests::Peer;
use super::{AwaitedInput, Wants};

#[test]
fn what_it_waits_for() {
    let mut peer = Peer::new();
    assert_eq!(peer.connection.awaited(), AwaitedInput::Idle);
    peer.feed(b"\r\n", usize::MAX);
    assert_eq!(peer.connection.awaited(), AwaitedInput::Idle);
    peer.feed(b"POST /slow HTTP/1.1\r\n", usize::MAX);
    assert_eq!(peer.connection.awaited(), AwaitedInput::Head);
    peer.feed(b"Host: h\r\nContent-Length: 3\r\n\r\na", usize::MAX);
    assert_eq!(
        peer.connection.awaited(),
        AwaitedInput::Body { received_bytes: 1 }
    );
    assert!(peer.connection.heap_bytes() > 50);
    assert_eq!(peer.once(b"bc", 1000), Wants::Turn);
    assert_eq!(peer.connection.awaited(), AwaitedInput::Reply);
    peer.feed_on();
    assert_eq!(
        (peer.connection.awaited(), peer.connection.heap_bytes()),
        (AwaitedInput::Idle, 0)
    );
    peer.feed(b"BAD\r\n\r\n", usize::MAX);
    assert_eq!(peer.connection.awaited(), AwaitedInput::Closing);
}

#[test]
fn time_outs() {
    let cases: [(&[u8], &[&str]); 6] = [
        (b"", &[]),
        (b"\r\n", &[]),
        (b"GET / HT", &["408"]),
        (
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nab",
            &["408"],
        ),
        (
            b"POST /early HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nab",
            &["403"],
        ),
        (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", &["200"]),
    ];
    for (input, expected) in cases {
        let mut peer = Peer::new();
        peer.feed(input, usize::MAX);
        assert_eq!(
            peer.time_out(),
            expected,
            "{}",
            String::from_utf8_lossy(input)
        );
    }
}

#[test]
fn a_peer_that_closed_gets_what_it_asked_for_whole() {
    let mut peer = Peer::new();
    peer.once(&b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n".repeat(3), 1);
    peer.connection.peer_closed();
    peer.feed_on();
    assert_eq!((peer.statuses().len(), peer.wants), (3, Wants::Close));

    for partial in [
        &b"GET /a HT"[..],
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nab",
        b"",
    ] {
        let mut peer = Peer::new();
        peer.feed(partial, usize::MAX);
        peer.connection.peer_closed();
        peer.feed_on();
        assert_eq!(
            (peer.got.len(), peer.wants, peer.connection.heap_bytes()),
            (0, Wants::Close, 0)
        );
    }
}

#[test]
fn draining_answers_what_is_in_flight() {
    let mut idle = Peer::new();
    idle.connection.drain_after_current();
    idle.feed_on();
    assert_eq!((idle.wants, idle.got.len()), (Wants::Close, 0));

    let first = b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc";
    let stream = [&first[..], b"GET /next HTTP/1.1\r\nHost: h\r\n\r\n"].concat();
    for cut in 1..stream.len() {
        let mut peer = Peer::new();
        peer.feed(&stream[..cut], usize::MAX);
        peer.connection.drain_after_current();
        peer.feed_on();
        peer.feed(&stream[cut..], usize::MAX);
        assert_eq!(peer.wants, Wants::Close);
        let answers = peer.answers();
        let (last, closes) = match cut.cmp(&first.len()) {
            Ordering::Less => ("took /p abc", true),
            // Answered before, idle when it was told.
            Ordering::Equal => ("took /p abc", false),
            Ordering::Greater => ("get /next?-", true),
        };
        assert!(answers.ends_with(last), "cut at {cut}: {answers}");
        assert_eq!(
            answers.contains("Connection: close\r\n\r\n"),
            closes,
            "cut at {cut}: {answers}"
        );
    }
}

/// Wherever the input is cut: one answer, and it says that it is the last.
#[test]
fn one_that_ends_after_the_next_request_waits_for_it_and_answers_no_other() {
    let first = b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc";
    let stream = [&first[..], b"GET /next HTTP/1.1\r\nHost: h\r\n\r\n"].concat();
    for cut in 0..stream.len() {
        let mut peer = Peer::new();
        peer.connection.end_after_next();
        peer.feed(&stream[..cut], usize::MAX);
        if cut < first.len() {
            assert_eq!((peer.wants, peer.got.len()), (Wants::Input, 0), "{cut}");
        }
        peer.feed(&stream[cut..], usize::MAX);
        assert_eq!(peer.wants, Wants::Close);
        let answers = peer.answers();
        assert!(answers.ends_with("took /p abc"), "cut at {cut}: {answers}");
        assert!(answers.contains("Connection: close\r\n\r\n"), "{answers}");
    }
    let mut peer = Peer::new();
    peer.connection.end_after_next();
    peer.connection.drain_after_current();
    peer.feed_on();
    assert_eq!((peer.wants, peer.got.len()), (Wants::Close, 0), "stopping");
}
