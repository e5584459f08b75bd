//! The event loop: sends what is due, takes in what comes, and notes how long it took.
//!
//! Invariants:
//! 1. In the open loop latency counts from the time a request was due, whether it could be sent
//!    then or not; nothing that a server does makes fewer requests due.
//! 2. What happens during the warm-up is not counted, nor what is answered after the last second.
//! 3. Requests that are due together go out together, one call for each connection.

use std::collections::VecDeque;
use std::io::{ErrorKind, IsTerminal, Read, Write};
use std::net::{SocketAddr, TcpStream as Blocking};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::keys::Keys;
use crate::options::{Options, Protocol};
use crate::protocol::{Kind, Verdict};
use crate::server::{Server, Usage};

/// How long answers may be missing before the server is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is slept while nothing is due for less than a poll can wait.
const NAP: Duration = Duration::from_micros(20);

/// A latency that is longer counts as this: an hour.
const LATENCY_MAX_NS: u64 = 3_600_000_000_000;

/// What comes after so many slices is told with the last.
const SLICES_MAX: usize = 10_000;

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    pub answered: u64,
    pub missing: u64,
    pub refused: u64,
    pub seconds: f64,
    /// In nanoseconds.
    pub latency: Histogram<u64>,
    /// How late requests were sent, in the open loop.
    pub lateness: Histogram<u64>,
    /// Of each slice of time: answers, and latencies.
    pub series: Vec<Histogram<u64>>,
    pub usage: Option<Usage>,
}

struct Connection {
    stream: TcpStream,
    /// When each request on its way was due, and since when its answer counts.
    due: VecDeque<Instant>,
    out: Vec<u8>,
    sent: usize,
    input: Vec<u8>,
}

impl Connection {
    fn open(address: SocketAddr, poll: &Poll, token: usize) -> Result<Self, String> {
        let problem = |error: std::io::Error| format!("connecting to {address}: {error}");
        let stream = Blocking::connect(address).map_err(problem)?;
        stream
            .set_nonblocking(true)
            .and_then(|()| stream.set_nodelay(true))
            .map_err(problem)?;
        let mut stream = TcpStream::from_std(stream);
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry()
            .register(&mut stream, Token(token), interest)
            .map_err(problem)?;
        Ok(Self {
            stream,
            due: VecDeque::new(),
            out: Vec::new(),
            sent: 0,
            input: Vec::new(),
        })
    }

    fn flush(&mut self) -> Result<(), String> {
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("sending: {error}")),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }

    /// Takes in answers; `note` is called with the verdict on each and when it was due.
    fn read(
        &mut self,
        protocol: Protocol,
        buffer: &mut [u8],
        mut note: impl FnMut(Instant, Verdict),
    ) -> Result<(), String> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err("the server has closed a connection".to_owned()),
                Ok(count) => {
                    self.input.extend_from_slice(&buffer[..count]);
                    if count < buffer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("reading: {error}")),
            }
        }
        let mut taken = 0;
        while let Some((verdict, length)) = protocol.answer(&self.input[taken..])? {
            let due = self
                .due
                .pop_front()
                .ok_or("an answer that nobody asked for")?;
            taken += length;
            note(due, verdict);
        }
        self.input.drain(..taken);
        Ok(())
    }
}

/// What is counted of answers.
struct Tally {
    begun: Instant,
    slice_ms: u32,
    answered: u64,
    missing: u64,
    refused: u64,
    latency: Histogram<u64>,
    series: Vec<Histogram<u64>>,
}

impl Tally {
    fn new(begun: Instant, slice_ms: u32) -> Self {
        let (latency, series) = (histogram(), Vec::new());
        Self {
            begun,
            slice_ms,
            answered: 0,
            missing: 0,
            refused: 0,
            latency,
            series,
        }
    }

    fn note(&mut self, due: Instant, now: Instant, verdict: Verdict) {
        if now < self.begun {
            return;
        }
        self.answered += 1;
        self.missing += u64::from(verdict == Verdict::Missing);
        self.refused += u64::from(verdict == Verdict::Refused);
        let nanos = nanos(now.saturating_duration_since(due));
        self.latency.saturating_record(nanos);
        let slice = (now - self.begun).as_millis() / u128::from(self.slice_ms);
        let slice = usize::try_from(slice).unwrap_or(usize::MAX).min(SLICES_MAX);
        if self.series.len() <= slice {
            self.series.resize_with(slice + 1, histogram);
        }
        self.series[slice].saturating_record(nanos);
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(LATENCY_MAX_NS, 3).expect("bounds that fit")
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Requests to come: which, and in the open loop when.
struct Source<'o> {
    options: &'o Options,
    keys: Keys,
    rng: fastrand::Rng,
    value: Vec<u8>,
    made: u64,
    left: u64,
}

impl<'o> Source<'o> {
    fn new(options: &'o Options) -> Self {
        Self {
            options,
            keys: Keys::new(options.order, options.key_count),
            rng: fastrand::Rng::with_seed(options.seed),
            value: b"value-of-thirty-two-bytes-length"
                .iter()
                .copied()
                .cycle()
                .take(options.value_bytes)
                .collect(),
            made: 0,
            left: options.request_count.unwrap_or(u64::MAX),
        }
    }

    fn render(&mut self, due: Instant, connection: &mut Connection) {
        let is_read = self.options.read_share >= 1.0 || self.rng.f64() < self.options.read_share;
        let kind = if is_read { Kind::Get } else { Kind::Set };
        let key = self.keys.next(&mut self.rng);
        self.options
            .protocol
            .render(kind, key, &self.value, &mut connection.out);
        connection.due.push_back(due);
        self.made += 1;
        self.left -= 1;
    }
}

/// Runs the load.
pub fn run(options: &Options) -> Result<Outcome, String> {
    let mut poll = Poll::new().map_err(|error| format!("epoll: {error}"))?;
    let open = |token| Connection::open(options.address, &poll, token);
    let mut connections = (0..options.connection_count)
        .map(open)
        .collect::<Result<Vec<_>, _>>()?;
    let server = (!options.pids.is_empty()).then(|| Server::new(&options.pids));
    let begun = Instant::now();
    let counts_from = begun + Duration::from_secs_f64(options.warm_up_seconds);
    let ends = options
        .request_count
        .is_none()
        .then(|| counts_from + Duration::from_secs_f64(options.seconds));
    let mut source = Source::new(options);
    let (mut tally, mut lateness) = (Tally::new(counts_from, options.slice_ms), histogram());
    let mut before = None;
    let bar = progress_bar(options);
    let (mut events, mut buffer) = (Events::with_capacity(1024), vec![0; 256 * 1024]);
    let mut heard_at = begun;
    loop {
        let now = Instant::now();
        if before.is_none() && now >= counts_from {
            before = Some(server.as_ref().map(Server::usage).transpose()?);
        }
        let is_over = ends.is_some_and(|ends| now >= ends);
        if is_over
            || (source.left == 0
                && connections
                    .iter()
                    .all(|connection| connection.due.is_empty()))
        {
            break;
        }
        if now - heard_at > PATIENCE {
            return Err(format!("no answer for {} s", PATIENCE.as_secs()));
        }
        let wait = if let Some(rate) = options.rate {
            send_due(
                &mut source,
                &mut connections,
                begun,
                rate,
                counts_from,
                &mut lateness,
            )?
        } else {
            send_next(&mut source, &mut connections, now)?;
            Duration::from_millis(10)
        };
        poll.poll(&mut events, Some(wait))
            .map_err(|error| format!("epoll: {error}"))?;
        if events.is_empty() && wait.is_zero() {
            // Leaves some of the processor to what else runs on it, and costs some ten microseconds
            // of lateness.
            std::thread::sleep(NAP);
        }
        for event in &events {
            let connection = &mut connections[event.token().0];
            connection.flush()?;
            if event.is_readable() || event.is_read_closed() {
                let mut came_at = None;
                connection.read(options.protocol, &mut buffer, |due, verdict| {
                    let now = *came_at.get_or_insert_with(Instant::now);
                    heard_at = now;
                    tally.note(due, now, verdict);
                })?;
            }
        }
        match options.request_count {
            Some(_) => bar.set_position(source.made),
            None => bar.set_position(nanos(begun.elapsed()) / 1_000_000),
        }
    }
    bar.finish_and_clear();
    let seconds = counts_from.elapsed().as_secs_f64();
    let usage = match (before.flatten(), &server) {
        (Some(before), Some(server)) => Some(server.usage()?.since(before)),
        _ => None,
    };
    let Tally {
        answered,
        missing,
        refused,
        latency,
        series,
        ..
    } = tally;
    Ok(Outcome {
        answered,
        missing,
        refused,
        seconds,
        latency,
        lateness,
        series,
        usage,
    })
}

/// Open loop: sends what is due; how long until the next one is.
fn send_due(
    source: &mut Source<'_>,
    connections: &mut [Connection],
    begun: Instant,
    rate: f64,
    counts_from: Instant,
    lateness: &mut Histogram<u64>,
) -> Result<Duration, String> {
    let due_at = |made: u64| begun + Duration::from_secs_f64(float(made) / rate);
    let now = Instant::now();
    let mut touched = Vec::new();
    while source.left > 0 && due_at(source.made) <= now {
        let due = due_at(source.made);
        let index = usize::try_from(source.made % connections.len() as u64).unwrap_or(0);
        source.render(due, &mut connections[index]);
        touched.push((index, due));
    }
    for &(index, due) in &touched {
        connections[index].flush()?;
        if due >= counts_from {
            lateness.saturating_record(nanos(due.elapsed()));
        }
    }
    let next = if source.left > 0 {
        due_at(source.made).saturating_duration_since(Instant::now())
    } else {
        PATIENCE
    };
    // A poll sleeps for whole milliseconds, and a little longer: what is due earlier is waited for
    // awake.
    Ok(next
        .saturating_sub(Duration::from_millis(1))
        .min(Duration::from_millis(10)))
}

/// Closed loop: a connection that has all its answers asks anew.
fn send_next(
    source: &mut Source<'_>,
    connections: &mut [Connection],
    now: Instant,
) -> Result<(), String> {
    for connection in connections
        .iter_mut()
        .filter(|connection| connection.due.is_empty())
    {
        for _ in 0..source.options.pipeline {
            if source.left > 0 {
                source.render(now, connection);
            }
        }
        connection.flush()?;
    }
    Ok(())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "fewer requests than a float can count"
)]
fn float(number: u64) -> f64 {
    number as f64
}

/// Seen on a terminal only.
fn progress_bar(options: &Options) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let total_ms = nanos(Duration::from_secs_f64(
        options.seconds + options.warm_up_seconds,
    )) / 1_000_000;
    let style =
        ProgressStyle::with_template("{bar:40} {percent:>3} %  {eta} left").expect("a template");
    ProgressBar::new(options.request_count.unwrap_or(total_ms)).with_style(style)
}
