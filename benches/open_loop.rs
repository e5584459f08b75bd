//! Load at a fixed rate, with latencies from the moment a request was to be sent: what waits because something before it was slow
//! counts in full (no coordinated omission). One thread, keep-alive connections, raw `/kv/{key}` requests.
//!
//! ```text
//! cargo bench --bench open_loop -- ADDRESS get|set RATE SECONDS [CONNECTIONS [KEYS]]
//! ```
//!
//! Prints one line of JSON: requests sent and answered, percentiles in microseconds, and how late the generator itself was at the
//! 99th percentile, which must be small for the rest to mean something.
#![allow(clippy::disallowed_methods, reason = "a load generator has a clock and sockets")]
#![allow(missing_docs, reason = "a program")]

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream as Blocking};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

const VALUE: &[u8; 32] = b"value-of-thirty-two-bytes-length";

struct Connection {
    stream: TcpStream,
    /// When each request on its way was to be sent.
    sent: VecDeque<Instant>,
    out: Vec<u8>,
    input: Vec<u8>,
}

impl Connection {
    fn flush(&mut self) {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(sent) => drop(self.out.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("sending: {error}"),
            }
        }
    }

    /// Reads answers; calls `note` with the due time of each.
    fn read(&mut self, buffer: &mut [u8], mut note: impl FnMut(Instant, u16)) {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => panic!("the node has closed a connection"),
                Ok(len) => self.input.extend_from_slice(&buffer[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("reading: {error}"),
            }
        }
        let mut at = 0;
        while let Some((status, len)) = answer(&self.input[at..]) {
            at += len;
            note(self.sent.pop_front().expect("an answer to a request"), status);
        }
        self.input.drain(..at);
    }
}

/// Status and length of the answer that `bytes` begin with, if it is whole.
fn answer(bytes: &[u8]) -> Option<(u16, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(bytes).expect("an answer") else { return None };
    let is_length = |header: &&httparse::Header<'_>| header.name.eq_ignore_ascii_case("content-length");
    let length = response
        .headers
        .iter()
        .find(is_length)
        .map_or(0, |header| std::str::from_utf8(header.value).expect("digits").parse().expect("a length"));
    (bytes.len() >= head + length).then_some((response.code.expect("a status"), head + length))
}

fn request(is_set: bool, key: u64, out: &mut Vec<u8>) {
    let written = if is_set {
        write!(out, "PUT /kv/key:{key:012} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", VALUE.len())
            .and_then(|()| out.write_all(VALUE))
    } else {
        write!(out, "GET /kv/key:{key:012} HTTP/1.1\r\nHost: localhost\r\n\r\n")
    };
    written.expect("memory takes it");
}

fn percentile(sorted: &[Duration], share: f64) -> u128 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let at = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or(0, Duration::as_micros)
}

#[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
fn rate_of(count: usize, seconds: f64) -> f64 {
    count as f64 / seconds
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [address, kind, rate, seconds, rest @ ..] = &arguments[..] else {
        // `cargo bench` runs all benchmarks, this one too: without a node there is nothing to measure.
        println!("open_loop: ADDRESS get|set RATE SECONDS [CONNECTIONS [KEYS]]");
        return;
    };
    let address: SocketAddr = address.parse().expect("an address");
    let is_set = kind == "set";
    let (rate, seconds): (u64, u64) = (rate.parse().expect("a rate"), seconds.parse().expect("seconds"));
    let number = |at: usize, default: u64| rest.get(at).map_or(default, |text| text.parse().expect("a number"));
    let (connection_count, key_count) = (number(0, 64), number(1, 1_000_000));

    let mut poll = Poll::new().expect("poll");
    let mut connections: Vec<Connection> = (0..connection_count)
        .map(|index| {
            let stream = Blocking::connect(address).expect("connect");
            stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true)).expect("options");
            let mut stream = TcpStream::from_std(stream);
            let token = Token(usize::try_from(index).expect("small"));
            poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE).expect("register");
            Connection { stream, sent: VecDeque::new(), out: Vec::new(), input: Vec::new() }
        })
        .collect();
    let mut rng = fastrand::Rng::with_seed(1);
    let (mut latencies, mut lateness, mut errors) = (Vec::new(), Vec::new(), 0_u64);
    let (start, total) = (Instant::now(), rate * seconds);
    let due = |index: u64| start + Duration::from_nanos(index * 1_000_000_000 / rate);
    let (mut sent, mut buffer, mut events) = (0, vec![0; 64 * 1024], Events::with_capacity(256));
    while (latencies.len() as u64) < sent || sent < total {
        let now = Instant::now();
        while sent < total && due(sent) <= now {
            let connection = &mut connections[usize::try_from(sent % connection_count).expect("small")];
            request(is_set, rng.u64(..key_count), &mut connection.out);
            connection.sent.push_back(due(sent));
            connection.flush();
            lateness.push(due(sent).elapsed());
            sent += 1;
        }
        assert!(now - start < Duration::from_secs(seconds + 30), "answers are missing");
        // Short sleeps leave some of the processor to a replica that shares it, and cost some ten microseconds of lateness.
        poll.poll(&mut events, Some(Duration::ZERO)).expect("poll");
        if events.is_empty() {
            std::thread::sleep(Duration::from_micros(20));
        }
        for event in &events {
            let connection = &mut connections[event.token().0];
            connection.flush();
            connection.read(&mut buffer, |due, status| {
                latencies.push(due.elapsed());
                errors += u64::from(status >= 300 && status != 404);
            });
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    latencies.sort_unstable();
    lateness.sort_unstable();
    println!(
        "{{\"requests\":{},\"perSecond\":{:.0},\"errors\":{errors},\"p50\":{},\"p99\":{},\"p999\":{},\"max\":{},\"latenessP99\":{}}}",
        latencies.len(),
        rate_of(latencies.len(), seconds),
        percentile(&latencies, 0.5),
        percentile(&latencies, 0.99),
        percentile(&latencies, 0.999),
        percentile(&latencies, 1.0),
        percentile(&lateness, 0.99),
    );
}
