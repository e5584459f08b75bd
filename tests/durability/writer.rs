//! A writer that knows what was acknowledged, and checks it.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use db_node::storage::LOG_FILE_BYTES;

use crate::common::{Node, PATIENCE, request_bytes};

/// Two values of this length do not go into one log file.
const HUGE_VALUE_BYTES: u64 = LOG_FILE_BYTES / 2 + 1;

/// Numbers from here on stand for values of that length.
pub(crate) const HUGE: u64 = 1 << 40;

/// The value that stands for a number: the number over and over, in a length of its own. One in
/// sixteen is too long to be stored within its record.
fn value_of(number: u64) -> Vec<u8> {
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    let len = match spread % 16 {
        _ if number >= HUGE => HUGE_VALUE_BYTES,
        0 => 17_000 + spread % 20_000,
        _ => 20 + spread % 2_980,
    };
    let len = usize::try_from(len).expect("a length");
    let mut value = format!("{number:020}")
        .into_bytes()
        .repeat(len.div_ceil(20));
    value.truncate(len);
    value
}

/// The number that a value stands for, which must be whole.
#[track_caller]
fn number_of(value: &[u8]) -> u64 {
    let number = value
        .get(..20)
        .and_then(|text| std::str::from_utf8(text).ok())
        .and_then(|text| text.parse().ok());
    let number = number.unwrap_or_else(|| {
        panic!(
            "not a value of this test: {:?}",
            value.escape_ascii().to_string()
        )
    });
    assert!(
        value == value_of(number),
        "the value for {number} is not whole: {} bytes",
        value.len()
    );
    number
}

/// What came back, as far as these tests want to know.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) version: Option<u64>,
    pub(crate) body: Vec<u8>,
}

/// A connection that may break at any time, as that of `common` must not.
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    unread: Vec<u8>,
}

impl Wire {
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            unread: Vec::new(),
        })
    }

    fn send(&mut self, method: &str, target: &str, body: &[u8]) -> io::Result<()> {
        self.stream
            .write_all(&request_bytes(method, target, &[], body))
    }

    fn read_more(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.unread.extend_from_slice(&buffer[..count]);
                Ok(())
            }
        }
    }

    pub(crate) fn answer(&mut self) -> io::Result<Answer> {
        let head_len = loop {
            if let Some(end) = self
                .unread
                .windows(4)
                .position(|bytes| bytes == b"\r\n\r\n")
            {
                break end + 4;
            }
            self.read_more()?;
        };
        let head = String::from_utf8(self.unread[..head_len].to_vec()).expect("a head of text");
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .unwrap_or_else(|| panic!("{head:?}"));
        let header = |name: &str| {
            let line = head
                .lines()
                .find(|line| line.to_ascii_lowercase().starts_with(name))?;
            // Of a token the version.
            let text = line.split_once(": ")?.1.trim_matches('"');
            text.split('-').next()?.parse::<u64>().ok()
        };
        let body_len = usize::try_from(header("content-length:").unwrap_or(0)).expect("a length");
        while self.unread.len() < head_len + body_len {
            self.read_more()?;
        }
        let body = self.unread[head_len..head_len + body_len].to_vec();
        self.unread.drain(..head_len + body_len);
        Ok(Answer {
            status,
            version: header("etag:"),
            body,
        })
    }

    pub(crate) fn ask(&mut self, method: &str, target: &str, body: &[u8]) -> io::Result<Answer> {
        self.send(method, target, body)?;
        self.answer()
    }
}

/// A write to one of a writer's keys: a number to find there, or nothing.
type Change = (usize, Option<u64>);

/// One client with keys of its own, and what it knows of them.
#[derive(Clone)]
pub(crate) struct Writer {
    name: String,
    /// What each key was acknowledged to have.
    pub(crate) acknowledged: Vec<Option<u64>>,
    /// The version that came with that, if it did.
    versions: Vec<Option<u64>>,
    /// Sent and not answered with success, in this order.
    pub(crate) unanswered: VecDeque<Change>,
    pub(crate) next_number: u64,
}

impl Writer {
    pub(crate) fn new(name: &str, key_count: usize) -> Self {
        let name = name.to_owned();
        let (acknowledged, versions) = (vec![None; key_count], vec![None; key_count]);
        Self {
            name,
            acknowledged,
            versions,
            unanswered: VecDeque::new(),
            next_number: 1,
        }
    }

    fn target(&self, key: usize) -> String {
        format!("/kv/{}-{key}", self.name)
    }

    fn send(&mut self, wire: &mut Wire, key: usize, is_delete: bool) -> io::Result<()> {
        let number = (!is_delete).then_some(self.next_number);
        self.next_number += 1;
        self.unanswered.push_back((key, number));
        match number {
            None => wire.send("DELETE", &self.target(key), b""),
            Some(number) => wire.send("PUT", &self.target(key), &value_of(number)),
        }
    }

    /// Takes the next answer; one that is no success leaves open whether the write has happened.
    fn take_answer(&mut self, wire: &mut Wire) -> io::Result<Answer> {
        let answer = wire.answer()?;
        if matches!(answer.status, 200 | 201 | 204 | 404) {
            let (key, number) = self.unanswered.pop_front().expect("an answer to something");
            self.acknowledged[key] = number;
            self.versions[key] = answer.version;
        }
        Ok(answer)
    }

    pub(crate) fn write(
        &mut self,
        wire: &mut Wire,
        key: usize,
        is_delete: bool,
    ) -> io::Result<Answer> {
        self.send(wire, key, is_delete)?;
        self.take_answer(wire)
    }

    /// Reads all keys: number and version.
    pub(crate) fn read(&self, wire: &mut Wire) -> io::Result<Vec<(Option<u64>, Option<u64>)>> {
        for key in 0..self.acknowledged.len() {
            wire.send("GET", &self.target(key), b"")?;
        }
        let mut read_one = |_| {
            let answer = wire.answer()?;
            Ok(match answer.status {
                200 => (Some(number_of(&answer.body)), answer.version),
                404 => (None, None),
                status => panic!("{status}: {}", String::from_utf8_lossy(&answer.body)),
            })
        };
        (0..self.acknowledged.len()).map(&mut read_one).collect()
    }

    /// Asserts that every acknowledged write is there, and that of the others, which were sent in
    /// order, the first few are there and the rest is not; goes on from what is there.
    pub(crate) fn check(&mut self, node: &Node) {
        let read = Wire::connect(node.address)
            .and_then(|mut wire| self.read(&mut wire))
            .expect("read");
        let found: Vec<_> = read.iter().map(|(number, _)| *number).collect();
        let mut expected = self.acknowledged.clone();
        let mut unanswered = std::mem::take(&mut self.unanswered);
        while found != expected {
            let Some((key, number)) = unanswered.pop_front() else {
                let (acknowledged, name) = (&self.acknowledged, &self.name);
                panic!(
                    "{name}: found {found:?}\nacknowledged {acknowledged:?}\nwith all that was \
                     sent {expected:?}"
                );
            };
            expected[key] = number;
        }
        for (key, (number, version)) in read.into_iter().enumerate() {
            if number.is_some() && number == self.acknowledged[key] && self.versions[key].is_some()
            {
                assert_eq!(
                    version, self.versions[key],
                    "{}-{key} has another version than it was given",
                    self.name
                );
            }
            (self.acknowledged[key], self.versions[key]) = (number, version);
        }
    }

    /// Writes as fast as it can until the connection breaks.
    pub(crate) fn write_until_cut(
        &mut self,
        address: SocketAddr,
        rng: &mut fastrand::Rng,
        answers: &AtomicU64,
    ) -> io::Result<()> {
        let start = Instant::now();
        let mut wire = Wire::connect(address)?;
        while start.elapsed() < PATIENCE {
            let count = if rng.bool() { 1 } else { rng.usize(1..8) };
            for _ in 0..count {
                let key = rng.usize(..self.acknowledged.len());
                self.send(&mut wire, key, rng.u8(..100) < 8)?;
            }
            for _ in 0..count {
                let answer = self.take_answer(&mut wire)?;
                assert!(
                    answer.status < 300 || answer.status == 404,
                    "{}",
                    String::from_utf8_lossy(&answer.body)
                );
                answers.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}
