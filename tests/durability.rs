//! Durability: an acknowledged write is there after `kill -9` at any moment, after a crash or an
//! error at any system call, and on a full disk; what cannot be read is refused and not guessed at;
//! a backup is the state at one point in time.
//!
//! `DB_NODE_TEST_SEED=n` repeats the random choices of a run (not its timing);
//! `DB_NODE_TEST_KILLS=n` makes it longer.
#![allow(
    clippy::disallowed_methods,
    reason = "tests are the outside: they have clocks, files and sockets of their own"
)]

mod common;

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::RangeInclusive;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use db_node::storage::LOG_FILE_BYTES;

use common::{
    Folder, Node, PATIENCE, Response, assert_error, command, let_pass, request_bytes, text,
    wait_for,
};
use serde_json::json;

fn copy_folder(from: &Path, to: &Path) {
    assert!(
        Command::new("cp")
            .args(["-r", text(from), text(to)])
            .status()
            .expect("run cp")
            .success()
    );
}

fn number_from_env(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().expect("a number"))
}

/// The seed of this run, which is printed.
fn seed() -> u64 {
    let seed = number_from_env("DB_NODE_TEST_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("DB_NODE_TEST_SEED={seed}");
    seed
}

/// Two values of this length do not go into one log file.
const HUGE_VALUE_BYTES: u64 = LOG_FILE_BYTES / 2 + 1;

/// Numbers from here on stand for values of that length.
const HUGE: u64 = 1 << 40;

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
struct Answer {
    status: u16,
    version: Option<u64>,
    body: Vec<u8>,
}

/// A connection that may break at any time, as that of `common` must not.
struct Wire {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Wire {
    fn connect(address: SocketAddr) -> io::Result<Self> {
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

    fn answer(&mut self) -> io::Result<Answer> {
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

    fn ask(&mut self, method: &str, target: &str, body: &[u8]) -> io::Result<Answer> {
        self.send(method, target, body)?;
        self.answer()
    }
}

/// Waits until the node serves; an error if it ends instead.
fn wait_until_ready(address: SocketAddr) -> io::Result<()> {
    let mut outcome = Ok(());
    wait_for("the data to be loaded", || {
        match Wire::connect(address).and_then(|mut wire| wire.ask("GET", "/readyz", b"")) {
            Ok(answer) => answer.status == 200,
            Err(error) => {
                outcome = Err(error);
                true
            }
        }
    });
    outcome
}

/// A node that keeps its data in `folder`, ready.
fn start(folder: &Path, more: &[&str]) -> Node {
    let mut node = Node::start(&[&["--data-dir", text(folder)], more].concat());
    if let Err(error) = wait_until_ready(node.address) {
        panic!("{error}: {}", node.rest_of_log());
    }
    node
}

fn kill(node: &mut Node) {
    node.signal("KILL");
    let signal = node.wait().signal();
    assert_eq!(
        signal,
        Some(9),
        "it had ended already: {}",
        node.rest_of_log()
    );
}

/// Asks a node to end, which it does at once; returns its exit code and its log.
fn terminate(mut node: Node) -> (Option<i32>, String) {
    let start = Instant::now();
    node.signal("TERM");
    let status = node.wait();
    let log = node.rest_of_log();
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "it took {:?} to end: {log}",
        start.elapsed()
    );
    (status.code(), log)
}

/// Ends a node as it should end; returns its log.
fn stop(node: Node) -> String {
    let (code, log) = terminate(node);
    assert_eq!(code, Some(0), "{log}");
    log
}

/// Ends a node whose storage has failed; returns the reason it gives.
fn stop_failed(node: Node) -> String {
    let (code, log) = terminate(node);
    assert_eq!(code, Some(1), "{log}");
    let line = fatal_line(&log);
    assert!(line.contains("failed"), "{line}");
    line
}

/// The one line that is no log line.
#[track_caller]
fn fatal_line(stderr: &str) -> String {
    let is_log_line = |line: &&str| {
        ["ERROR", "WARN", "INFO"]
            .iter()
            .any(|level| line.split(' ').nth(1) == Some(level))
    };
    let lines: Vec<&str> = stderr.lines().filter(|line| !is_log_line(line)).collect();
    assert!(
        lines.len() == 1 && lines[0].starts_with("db-node: "),
        "not one line: {stderr:?}"
    );
    assert_eq!(
        stderr.lines().last(),
        Some(lines[0]),
        "the line is not the last: {stderr:?}"
    );
    lines[0].to_owned()
}

/// A write to one of a writer's keys: a number to find there, or nothing.
type Change = (usize, Option<u64>);

/// One client with keys of its own, and what it knows of them.
#[derive(Clone)]
struct Writer {
    name: String,
    /// What each key was acknowledged to have.
    acknowledged: Vec<Option<u64>>,
    /// The version that came with that, if it did.
    versions: Vec<Option<u64>>,
    /// Sent and not answered with success, in this order.
    unanswered: VecDeque<Change>,
    next_number: u64,
}

impl Writer {
    fn new(name: &str, key_count: usize) -> Self {
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

    fn write(&mut self, wire: &mut Wire, key: usize, is_delete: bool) -> io::Result<Answer> {
        self.send(wire, key, is_delete)?;
        self.take_answer(wire)
    }

    /// Reads all keys: number and version.
    fn read(&self, wire: &mut Wire) -> io::Result<Vec<(Option<u64>, Option<u64>)>> {
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
    fn check(&mut self, node: &Node) {
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
    fn write_until_cut(
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

#[test]
fn acknowledged_writes_survive_kill_9() {
    let mut rng = fastrand::Rng::with_seed(seed());
    let kill_count = number_from_env("DB_NODE_TEST_KILLS").unwrap_or(20);
    let folder = Folder::new("kill-9");
    let mut writers: Vec<Writer> = (0..64)
        .map(|index| Writer::new(&format!("writer{index}"), 12))
        .collect();
    let (mut answer_count, mut unanswered_count, mut checkpoint_count) = (0, 0, 0);
    for _ in 0..kill_count {
        let mut node = start(&folder.0, &["--memtable-bytes", "64KiB"]);
        checkpoint_count += u64::from(checkpoint_version(&node) > 0);
        for writer in &mut writers {
            writer.check(&node);
        }
        let (address, answers) = (node.address, AtomicU64::new(0));
        thread::scope(|scope| {
            for writer in &mut writers {
                let (mut rng, answers) = (rng.fork(), &answers);
                // It ends with an error: the connection breaks.
                scope.spawn(move || writer.write_until_cut(address, &mut rng, answers).is_err());
            }
            let mut rng_of_checkpoints = rng.fork();
            scope.spawn(move || {
                let mut wire = Wire::connect(address)?;
                while wire.ask("POST", "/admin/checkpoint", b"")?.status == 202 {
                    let_pass(Duration::from_millis(rng_of_checkpoints.u64(1..60)));
                }
                io::Result::Ok(())
            });
            wait_for("a first answer", || answers.load(Ordering::Relaxed) > 0);
            let_pass(Duration::from_millis(rng.u64(10..150)));
            kill(&mut node);
        });
        answer_count += answers.into_inner();
        unanswered_count += writers
            .iter()
            .map(|writer| writer.unanswered.len())
            .sum::<usize>();
    }
    let node = start(&folder.0, &[]);
    for writer in &mut writers {
        writer.check(&node);
    }
    stop(node);
    eprintln!(
        "{kill_count} kills: {answer_count} writes answered, {unanswered_count} not; \
         {checkpoint_count} starts from a checkpoint"
    );
    assert!(answer_count > 0 && unanswered_count > 0 && checkpoint_count > 0);
}

fn partition_status(node: &Node) -> serde_json::Value {
    node.status()["partitions"][0].clone()
}

fn checkpoint_version(node: &Node) -> u64 {
    partition_status(node)["disk"]["checkpointVersion"]
        .as_u64()
        .expect("a number")
}

/// What is made to happen at a system call of the node.
#[derive(Clone, Copy, Debug)]
struct Fault {
    call: &'static str,
    /// In the words of strace.
    action: &'static str,
}

const CRASH: &str = "signal=SIGKILL";

/// The calls by which the node changes files, and lets them last.
const CALLS: [&str; 8] = [
    "pwritev",
    "fdatasync",
    "fsync",
    "rename",
    "unlink",
    "fallocate",
    "ftruncate",
    "openat",
];

impl Fault {
    /// Whether there are few such calls, and most of them where log files begin and end.
    fn is_rare(self) -> bool {
        !["pwritev", "fdatasync"].contains(&self.call)
    }

    /// A node in which the fault strikes at the call number `nth` of the disk thread. `folder` gets
    /// the trace.
    fn command(self, nth: usize, folder: &Folder) -> Command {
        self.command_when(&nth.to_string(), folder)
    }

    /// A node in which the fault strikes at that call and at all that follow.
    fn command_from(self, nth: usize, folder: &Folder) -> Command {
        self.command_when(&format!("{nth}+"), folder)
    }

    fn command_when(self, when: &str, folder: &Folder) -> Command {
        let Self { call, action } = self;
        let mut strace = Command::new("strace");
        // As a grandchild, so that the node is the child.
        strace.args(["-D", "-f", "-qq", "-o", text(&folder.join("trace"))]);
        strace.args([
            "-e",
            &format!("trace={call}"),
            "-e",
            &format!("inject={call}:{action}:when={when}"),
        ]);
        if call == "openat" {
            // The dynamic linker opens files, too.
            strace.args(["-P", text(&folder.join("data/partition-0"))]);
        }
        let node = command();
        strace.arg(node.get_program()).stdin(Stdio::null());
        for (name, _) in node.get_envs() {
            strace.env_remove(name);
        }
        strace.args([
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            text(&folder.join("data")),
        ]);
        strace
    }
}

/// Whether system calls can be tampered with here; says so if not.
fn can_inject() -> bool {
    let folder = Folder::new("strace");
    let trace = folder.join("trace");
    let mut strace = Command::new("strace");
    strace.args([
        "-D",
        "-f",
        "-qq",
        "-o",
        text(&trace),
        "-e",
        "trace=fsync",
        "true",
    ]);
    let can = strace.output().is_ok_and(|output| output.status.success());
    if !can {
        eprintln!("skipped: strace is missing, too old, or may not trace");
    }
    can
}

/// What has become of a node at the end of its little work.
enum End {
    /// It did not come up, or went away.
    Gone,
    /// It takes no more writes.
    Failed,
    /// All was done.
    Done,
}

/// Twelve sets and deletes, a checkpoint, six more; before the checkpoint, if wanted, what fills a
/// log file.
fn work(writer: &mut Writer, address: SocketAddr, fills_a_file: bool) -> io::Result<End> {
    wait_until_ready(address)?;
    let mut wire = Wire::connect(address)?;
    for step in 0..18 {
        if step == 12 {
            let answer = wire.ask("POST", "/admin/checkpoint", b"")?;
            let answer = if answer.status == 202 {
                wait_for_checkpoint(&mut wire)?
            } else {
                Some(answer)
            };
            if let Some(refusal) = answer {
                assert_refused(&refusal);
                return Ok(End::Failed);
            }
        }
        let numbers_skipped = if fills_a_file && (8..10).contains(&step) {
            HUGE
        } else {
            0
        };
        writer.next_number += numbers_skipped;
        let answer = writer.write(&mut wire, step * 5 % 7, step % 4 == 3)?;
        writer.next_number -= numbers_skipped;
        if answer.status == 503 {
            assert_refused(&answer);
            return Ok(End::Failed);
        }
    }
    Ok(End::Done)
}

/// Waits until a checkpoint of all there is is in place, or given up; if writing has ended, what a
/// write is told.
fn wait_for_checkpoint(wire: &mut Wire) -> io::Result<Option<Answer>> {
    let mut outcome = Ok(None);
    wait_for("the checkpoint", || {
        let status = wire.ask("GET", "/status", b"").map(|answer| {
            let status: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
            status["partitions"][0].clone()
        });
        match status {
            Ok(partition) if !partition["disk"]["failure"].is_null() => {
                outcome = wire.ask("POST", "/admin/checkpoint", b"").map(Some);
                true
            }
            Ok(partition) => {
                let disk = &partition["disk"];
                disk["checkpointsGivenUp"] != 0
                    || disk["checkpointVersion"] == partition["lastVersion"]
            }
            Err(error) => {
                outcome = Err(error);
                true
            }
        }
    });
    outcome
}

/// Asserts that a write was refused because storage has failed.
#[track_caller]
fn assert_refused(answer: &Answer) {
    let text = String::from_utf8_lossy(&answer.body);
    assert_eq!(answer.status, 503, "{text}");
    assert!(text.contains(r#""code":"storage_failed""#), "{text}");
}

/// Asserts that a node whose storage has failed takes no writes, says so, and serves reads of all
/// acknowledged.
fn assert_reads_only(node: &Node, writer: &Writer) {
    assert_error(
        &node.request("PUT", "/kv/more", &[], b"v"),
        503,
        "storage_failed",
    );
    assert_error(
        &node.request("DELETE", "/kv/more", &[], b""),
        503,
        "storage_failed",
    );
    let ready = node.request("GET", "/readyz", &[], b"");
    assert!(
        ready.status == 503 && ready.text().starts_with("storage failed"),
        "{}",
        ready.text()
    );
    assert_eq!(node.request("GET", "/livez", &[], b"").status, 200);
    let read = Wire::connect(node.address)
        .and_then(|mut wire| writer.read(&mut wire))
        .expect("read");
    for (key, (number, _)) in read.into_iter().enumerate() {
        let is_open = writer
            .unanswered
            .iter()
            .any(|change| *change == (key, number));
        assert!(
            number == writer.acknowledged[key] || is_open,
            "key {key} reads as {number:?}"
        );
    }
}

/// A data directory to begin with, as a crash leaves it: a checkpoint, a log behind it, a draft.
fn directory_after_a_crash() -> (Folder, Writer) {
    let folder = Folder::new("template");
    let data = folder.join("data");
    let mut writer = Writer::new("key", 7);
    let mut node = start(&data, &[]);
    let mut wire = Wire::connect(node.address).expect("connect");
    for step in 0..8 {
        if step == 5 {
            assert_eq!(
                wire.ask("POST", "/admin/checkpoint", b"")
                    .expect("ask")
                    .status,
                202
            );
            assert!(wait_for_checkpoint(&mut wire).expect("ask").is_none());
        }
        assert!(
            writer
                .write(&mut wire, step % 7, step == 7)
                .expect("write")
                .status
                < 300
        );
    }
    kill(&mut node);
    fs::write(
        data.join("partition-0/checkpoint-00000000000000000009.dbn.tmp"),
        b"half",
    )
    .expect("write");
    (folder, writer)
}

/// One run with a fault; false if it never struck.
fn run_with(fault: Fault, nth: usize, template: &Folder, mut writer: Writer) -> bool {
    let folder = Folder::new("fault");
    copy_folder(&template.join("data"), &folder.join("data"));
    let has_struck = match Node::try_spawn(fault.command(nth, &folder)) {
        Ok(mut node) => {
            let end = work(&mut writer, node.address, fault.is_rare()).unwrap_or(End::Gone);
            if fault.action == CRASH {
                node.signal("TERM");
                let status = node.wait();
                assert!(
                    status.signal() == Some(9) || status.code() == Some(0),
                    "{status}: {}",
                    node.rest_of_log()
                );
                status.signal().is_some()
            } else {
                let has_struck = || {
                    fs::read_to_string(folder.join("trace"))
                        .expect("a trace")
                        .contains("(INJECTED)")
                };
                match end {
                    End::Gone => {
                        let (status, log) = (node.wait(), node.rest_of_log());
                        assert_eq!(status.code(), Some(1), "{log}");
                        fatal_line(&log);
                    }
                    End::Failed => {
                        assert_reads_only(&node, &writer);
                        let line = stop_failed(node);
                        assert_eq!(
                            line.contains("make room"),
                            fault.action == "error=ENOSPC",
                            "{line}"
                        );
                    }
                    End::Done => {
                        let (code, log) = terminate(node);
                        // The log has ended, so strace has as well. It may have gone on all the
                        // same: after a shortage, and without a checkpoint.
                        assert!(
                            code == Some(0) || (code == Some(1) && has_struck()),
                            "{log}"
                        );
                    }
                }
                has_struck()
            }
        }
        Err((status, log)) => {
            if fault.action == CRASH {
                assert_eq!(status.signal(), Some(9), "{log}");
            } else {
                assert_eq!(status.code(), Some(1), "{log}");
                fatal_line(&log);
            }
            true
        }
    };
    let node = start(&folder.join("data"), &[]);
    writer.check(&node);
    let mut wire = Wire::connect(node.address).expect("connect");
    assert!(writer.write(&mut wire, 0, false).expect("write").status < 300);
    writer.check(&node);
    has_struck
}

/// Runs each of the faults at the first call, the second, and so on, until it does not strike any
/// more.
fn run_all(faults: &[Fault]) {
    if !can_inject() {
        return;
    }
    let (template, writer) = directory_after_a_crash();
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(&fault) = faults.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let start = Instant::now();
                    let mut nth = 1;
                    while run_with(fault, nth, &template, writer.clone()) {
                        nth += 1;
                    }
                    assert!(nth > 1, "{fault:?} never struck");
                    eprintln!("{fault:?}: struck {} times, {:?}", nth - 1, start.elapsed());
                }
            });
        }
    });
}

#[test]
fn a_crash_at_every_system_call_loses_nothing() {
    run_all(&CALLS.map(|call| Fault {
        call,
        action: CRASH,
    }));
}

#[test]
fn an_error_of_any_system_call_loses_nothing() {
    let mut faults = CALLS
        .map(|call| Fault {
            call,
            action: "error=EIO",
        })
        .to_vec();
    faults.extend(["pwritev", "fallocate"].map(|call| Fault {
        call,
        action: "error=ENOSPC",
    }));
    run_all(&faults);
}

/// With a disk whose every sync takes long: the reply to a write waits for its sync, what was asked
/// before it does not, what was asked behind it on the same connection keeps its place, and nobody
/// else waits.
#[test]
fn only_replies_to_writes_wait_for_the_disk() {
    if !can_inject() {
        return;
    }
    let folder = Folder::new("slow-disk");
    // The first sync is that of the new log file; the delay is in microseconds.
    let fault = Fault {
        call: "fdatasync",
        action: "delay_enter=1500000",
    };
    let node = Node::spawn(fault.command_from(2, &folder));
    wait_until_ready(node.address).expect("ready");
    let mut writer = Wire::connect(node.address).expect("connect");
    let mut requests = request_bytes("GET", "/get?key=a", &[], b"");
    requests.extend(request_bytes("POST", "/set?key=a", &[], b"new"));
    requests.extend(request_bytes("GET", "/get?key=a", &[], b""));
    writer.stream.write_all(&requests).expect("send");
    assert_eq!(writer.answer().expect("what was asked first").status, 404);
    let mut reader = Wire::connect(node.address).expect("connect");
    // It may see what is not on disk yet: the README says so.
    wait_for("the write to be read", || {
        reader.ask("GET", "/get?key=a", b"").expect("read").status == 200
    });
    writer.stream.set_nonblocking(true).expect("set");
    let too_early = writer.answer().err().map(|error| error.kind());
    assert_eq!(
        too_early,
        Some(io::ErrorKind::WouldBlock),
        "answered before the sync"
    );
    let durable = |node: &Node| node.status()["partitions"][0]["durableVersion"].as_u64();
    assert_eq!(durable(&node), Some(0));
    writer.stream.set_nonblocking(false).expect("set");
    assert_eq!(writer.answer().expect("the write").version, Some(1));
    assert_eq!(durable(&node), Some(1), "answered before it was on disk");
    assert_eq!(writer.answer().expect("what was asked last").status, 200);
    stop(node);
}

/// Without syncs to wait for, writers are ahead of a disk that cannot follow by a bounded amount,
/// and no more.
#[test]
fn writers_that_outrun_the_disk_are_held_back() {
    if !can_inject() {
        return;
    }
    let folder = Folder::new("outrun");
    // The first write is the header of the log file.
    let mut command = Fault {
        call: "pwritev",
        action: "delay_enter=5000000",
    }
    .command_from(2, &folder);
    command.args(["--fsync", "never"]);
    let mut node = Node::spawn(command);
    wait_until_ready(node.address).expect("ready");
    let value = vec![b'x'; 1 << 20];
    let mut writer = Wire::connect(node.address).expect("connect");
    writer
        .stream
        .set_read_timeout(Some(Duration::from_secs(1)))
        .expect("set");
    let answered = (0..60)
        .take_while(|number| writer.ask("PUT", &format!("/kv/{number}"), &value).is_ok())
        .count();
    assert_eq!(
        answered, 31,
        "what was answered, and the one that is held back, are just over 32 MiB"
    );
    assert_eq!(
        node.request("GET", "/kv/7", &[], b"").body,
        value,
        "reads go on"
    );
    kill(&mut node);
}

/// A node whose data takes long to read says that it lives, how far it is, and that requests must
/// wait.
#[test]
fn loading_is_told_while_it_lasts() {
    if !can_inject() {
        return;
    }
    let folder = Folder::new("slow-load");
    let data = folder.join("data");
    // A checkpoint, which is read in pieces, each of which will take long.
    let node = start(&data, &[]);
    write_numbered(&node, 100);
    // A good part of all there is to read: the log file behind the checkpoint has room for 16 MiB.
    node.request("PUT", "/kv/large", &[], &vec![b'x'; 1 << 20]);
    node.request("POST", "/admin/checkpoint", &[], b"");
    wait_for("the checkpoint", || checkpoint_version(&node) > 0);
    stop(node);
    let fault = Fault {
        call: "pread64",
        action: "delay_enter=400000",
    };
    let mut node = Node::spawn(fault.command_from(1, &folder));
    let ask = |target| node.request("GET", target, &[], b"");
    assert_eq!(ask("/livez").status, 200);
    let readiness = ask("/readyz");
    assert_eq!(readiness.status, 503);
    assert!(
        readiness.text().starts_with("loading: "),
        "{}",
        readiness.text()
    );
    let health = ask("/health");
    assert_eq!(
        (health.status, health.json()["status"].as_str()),
        (503, Some("LOADING"))
    );
    for request in [ask("/get?key=a"), node.request("PUT", "/kv/a", &[], b"1")] {
        assert_error(&request, 503, "loading");
        assert!(request.header("Retry-After").is_some());
    }
    wait_for("some of it to be loaded", || {
        let text = ask("/readyz").text();
        text.starts_with("loading: ") && !text.starts_with("loading: 0 %")
    });
    wait_until_ready(node.address).expect("ready");
    assert_eq!(count_numbered(&node, 100), 100);
    node.signal("TERM");
    assert_eq!(node.wait().code(), Some(0));
    let log = node.rest_of_log();
    assert!(
        log.lines()
            .any(|line| line.contains("loading: ") && line.contains("% of")),
        "{log}"
    );
    // One that is told to stop while it loads does not load to the end first.
    let node = Node::spawn(fault.command_from(1, &folder));
    assert_eq!(node.request("GET", "/readyz", &[], b"").status, 503);
    let log = stop(node);
    assert!(!log.contains(" loaded "), "{log}");
}

/// A small file system of its own; unmounted when this goes.
struct SmallDisk(Folder);

impl SmallDisk {
    /// None, with a message, where mounting is not permitted.
    fn mount(size: &str) -> Option<Self> {
        let folder = Folder::new("small-disk");
        let size = format!("size={size}");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs", folder.path()])
            .output();
        if mount.is_ok_and(|output| output.status.success()) {
            return Some(Self(folder));
        }
        eprintln!("skipped: a file system cannot be mounted here");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

/// Fills a disk to the last byte.
fn fill(file: &Path) {
    let mut filler = fs::File::create(file).expect("create");
    while filler.write_all(&[1; 4_096]).is_ok() {}
}

fn full_disk_value(number: usize) -> Vec<u8> {
    format!("{number:08}").into_bytes().repeat(128 * 1024)
}

/// Asserts that a node has these values, and that it takes no writes and says what to do.
fn assert_stalled(node: &Node, count: usize) {
    let mut client = node.connect();
    for (method, target) in [
        ("PUT", "/kv/small"),
        ("DELETE", "/kv/0"),
        ("POST", "/admin/checkpoint"),
    ] {
        let refusal = client.request(method, target, &[], b"");
        assert_error(&refusal, 503, "storage_stalled");
        for part in ["make room", "Nothing was done"] {
            assert!(refusal.text().contains(part), "{}", refusal.text());
        }
    }
    let ready = client.request("GET", "/readyz", &[], b"");
    assert!(
        ready.status == 503 && ready.text().contains("make room"),
        "{}",
        ready.text()
    );
    assert_eq!(client.request("GET", "/livez", &[], b"").status, 200);
    let disk = &node.status()["partitions"][0]["disk"];
    assert!(
        disk["failure"].is_null() && disk["stall"].is_string(),
        "{disk}"
    );
    assert_has(node, count);
}

fn assert_has(node: &Node, count: usize) {
    let mut client = node.connect();
    for number in 0..count {
        let value = client
            .request("GET", &format!("/kv/{number}"), &[], b"")
            .body;
        assert!(value == full_disk_value(number), "{number}");
    }
}

fn is_writable(node: &Node) -> bool {
    node.request("PUT", "/kv/probe", &[], b"v").status < 300
}

#[test]
fn a_full_disk_stops_writes_until_there_is_room_and_nothing_else() {
    let Some(disk) = SmallDisk::mount("40m") else {
        return;
    };
    let (data, filler) = (disk.0.join("data"), disk.0.join("filler"));
    fs::write(&filler, vec![1; 14 << 20]).expect("write");
    let mut node = start(&data, &[]);
    let put = |node: &Node, number: usize| {
        let target = format!("/kv/{number}");
        node.request("PUT", &target, &[], &full_disk_value(number))
    };
    for number in 0..12 {
        assert_eq!(put(&node, number).status, 201);
    }
    // A checkpoint does not fit. It is given up, and the log goes on.
    let given_up = || node.status()["partitions"][0]["disk"]["checkpointsGivenUp"].clone();
    assert_eq!(given_up(), 0);
    assert_eq!(
        node.request("POST", "/admin/checkpoint", &[], b"").status,
        202
    );
    wait_for("the checkpoint to be given up", || given_up() == 1);
    assert_eq!(files(&data, "checkpoint-", ""), Vec::<PathBuf>::new());
    let mut count = 12;
    let refusal = loop {
        let response = put(&node, count);
        if response.status != 201 {
            break response;
        }
        count += 1;
        assert!(count < 40, "more than there is room for");
    };
    eprintln!("{count} values of 1 MiB on 26 MiB");
    assert!(count >= 14, "only {count}");
    assert_error(&refusal, 503, "storage_stalled");
    assert_stalled(&node, count);
    // An order does not wait for room either.
    let order = br#"{"id":0,"role":"leader","epoch":3}"#;
    let unconfirmed = node.request("POST", "/partition/assign", &[], order);
    assert_error(&unconfirmed, 503, "storage_stalled");
    assert!(
        unconfirmed.text().contains("not confirmed"),
        "{}",
        unconfirmed.text()
    );
    // Once there is room, it goes on by itself; what was refused may be there.
    fs::remove_file(&filler).expect("remove");
    wait_for("writes to go on", || is_writable(&node));
    assert_has(&node, count);
    assert_eq!(node.request("GET", "/readyz", &[], b"").status, 200);
    assert_eq!(put(&node, 50).status, 201);
    kill(&mut node);

    // A start on a disk without a byte left comes up for reading.
    fill(&filler);
    let mut node = Node::start(&["--data-dir", text(&data)]);
    wait_for("the data", || {
        node.status()["partitions"][0]["lastVersion"].as_u64() > Some(0)
    });
    assert_error(&put(&node, 52), 503, "storage_stalled");
    assert_stalled(&node, count);
    fs::remove_file(&filler).expect("remove");
    wait_for("writes to go on", || is_writable(&node));
    assert_eq!(put(&node, 51).status, 201);
    kill(&mut node);
    let node = start(&data, &[]);
    assert_has(&node, count);
    for number in [50, 51] {
        let value = node.request("GET", &format!("/kv/{number}"), &[], b"").body;
        assert!(value == full_disk_value(number));
    }
    stop(node);
}

#[test]
fn a_partition_that_cannot_be_made_for_lack_of_room_is_an_error_that_says_so() {
    let Some(disk) = SmallDisk::mount("20m") else {
        return;
    };
    let (data, filler) = (disk.0.join("data"), disk.0.join("filler"));
    let node = start(&data, &[]);
    fill(&filler);
    let assign = || {
        node.request(
            "POST",
            "/partition/assign",
            &[],
            br#"{"id":7,"role":"leader"}"#,
        )
    };
    let refusal = assign();
    assert_error(&refusal, 503, "storage_stalled");
    assert!(refusal.text().contains("make room"), "{}", refusal.text());
    assert_eq!(node.request("GET", "/livez", &[], b"").status, 200);
    assert_eq!(node.request("PUT", "/kv/a", &[], b"v").status, 201);
    fs::remove_file(&filler).expect("remove");
    assert_eq!(assign().status, 200);
    stop(node);
}

/// Runs the program, which is to refuse; returns the line that says why.
#[track_caller]
fn refuses(arguments: &[&str], code: i32) -> String {
    let mut command = command();
    command.args(["--listen", "127.0.0.1:0"]).args(arguments);
    let (status, log) = match Node::try_spawn(command) {
        Ok(mut node) => (node.wait(), node.rest_of_log()),
        Err(ended) => ended,
    };
    assert_eq!(status.code(), Some(code), "{log}");
    fatal_line(&log)
}

#[track_caller]
fn assert_names(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "{part:?} is not in: {line}");
    }
}

/// Where `needle` is in a file.
fn find(file: &Path, needle: &[u8]) -> usize {
    let bytes = fs::read(file).expect("read");
    let mut places = bytes
        .windows(needle.len())
        .enumerate()
        .filter(|(_, window)| *window == needle);
    places
        .next()
        .unwrap_or_else(|| panic!("{} does not hold {}", file.display(), needle.escape_ascii()))
        .0
}

fn change_file(file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(file).expect("read");
    change(&mut bytes);
    fs::write(file, bytes).expect("write");
}

/// The files of a kind in the directory of the partition, oldest first.
fn files(data: &Path, prefix: &str, suffix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(data.join("partition-0")).expect("a folder");
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    found.retain(|path| {
        let name = text(path).rsplit('/').next().expect("a name");
        name.starts_with(prefix) && name.ends_with(suffix)
    });
    found.sort();
    found
}

/// Writes keys 0..count, each with a value that is nowhere else.
fn write_numbered(node: &Node, count: usize) {
    let mut client = node.connect();
    for number in 0..count {
        let response = client.request(
            "PUT",
            &format!("/kv/key{number}"),
            &[],
            numbered(number).as_bytes(),
        );
        assert!(response.status < 300, "{}", response.text());
    }
}

fn numbered(number: usize) -> String {
    format!("<the value of key {number}>").repeat(20)
}

/// How many of the keys 0.. are there, without a gap.
fn count_numbered(node: &Node, up_to: usize) -> usize {
    let mut client = node.connect();
    let mut get = |number: usize| client.request("GET", &format!("/kv/key{number}"), &[], b"");
    let count = (0..up_to)
        .take_while(|number| get(*number).text() == numbered(*number))
        .count();
    assert!(
        (count..up_to).all(|number| get(number).status == 404),
        "a gap behind {count} keys"
    );
    count
}

/// A directory with so many keys in the log, cleanly stopped.
fn directory_with_log(count: usize) -> Folder {
    let folder = Folder::new("log");
    let node = start(&folder.join("data"), &[]);
    write_numbered(&node, count);
    stop(node);
    folder
}

#[test]
fn a_directory_that_is_not_ours_alone_is_refused() {
    let folder = Folder::new("refused");
    let data = folder.join("data");
    let node = start(&data, &[]);
    let line = refuses(&["--data-dir", text(&data)], 1);
    assert_names(&line, &[text(&data), "in use", "--data-dir"]);
    write_numbered(&node, 3);
    stop(node);

    let foreign = folder.join("foreign");
    fs::create_dir(&foreign).expect("make");
    fs::write(foreign.join("thesis.txt"), "years of work").expect("write");
    assert_names(
        &refuses(&["--data-dir", text(&foreign)], 2),
        &["--data-dir", "thesis.txt", "empty directory"],
    );
    assert_eq!(
        fs::read_dir(&foreign).expect("read").count(),
        1,
        "it was left as it was"
    );
    let file = foreign.join("thesis.txt");
    for path in [file.clone(), file.join("data")] {
        assert_names(
            &refuses(&["--data-dir", text(&path)], 2),
            &["--data-dir", text(&path), "directory"],
        );
    }
    assert_eq!(fs::read_to_string(&file).expect("read"), "years of work");

    let node = start(&data, &[]);
    assert_eq!(count_numbered(&node, 3), 3);
    stop(node);
}

#[test]
fn a_directory_is_made_with_those_above_it() {
    let folder = Folder::new("made");
    let data = folder.join("above/it/data");
    let node = start(&data, &[]);
    write_numbered(&node, 1);
    stop(node);
    let node = start(&data, &[]);
    assert_eq!(count_numbered(&node, 1), 1);
    stop(node);
}

#[test]
fn a_damaged_log_is_refused_until_the_loss_is_accepted() {
    let folder = directory_with_log(10);
    let data = folder.join("data");
    let log = files(&data, "wal-", ".log").pop().expect("a log file");
    let place = find(&log, numbered(6).as_bytes());
    change_file(&log, |bytes| bytes[place + 100] ^= 4);
    let damaged = fs::read(&log).expect("read");
    // The damage shows where the record begins: 20 bytes and the key before the value.
    let offset = format!("at byte {}", place - 20 - "key6".len());
    for _ in 0..2 {
        let line = refuses(&["--data-dir", text(&data)], 1);
        assert_names(
            &line,
            &[text(&log), &offset, "--restore", "--accept-data-loss"],
        );
        assert!(
            fs::read(&log).expect("read") == damaged,
            "a refusal changes nothing"
        );
    }
    let node = start(&data, &["--accept-data-loss"]);
    assert_eq!(count_numbered(&node, 10), 6);
    assert_eq!(node.status()["partitions"][0]["lastVersion"], 6);
    write_numbered(&node, 8);
    let log = stop(node);
    let aside = files(&data, "", ".damaged")
        .pop()
        .expect("a file that was set aside");
    assert!(log.contains(text(&aside)), "{log}");
    find(&aside, numbered(9).as_bytes());
    // It is sound again.
    let node = start(&data, &[]);
    assert_eq!(count_numbered(&node, 10), 8);
    stop(node);
}

#[test]
fn a_damaged_checkpoint_is_refused_until_the_loss_is_accepted() {
    let folder = Folder::new("checkpoint");
    let data = folder.join("data");
    let node = start(&data, &[]);
    write_numbered(&node, 400);
    assert_eq!(
        node.request("POST", "/admin/checkpoint", &[], b"").status,
        202
    );
    wait_for("the checkpoint", || checkpoint_version(&node) == 400);
    stop(node);
    let checkpoint = files(&data, "checkpoint-", ".dbn")
        .pop()
        .expect("a checkpoint");
    change_file(&checkpoint, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
    });
    let line = refuses(&["--data-dir", text(&data)], 1);
    assert_names(
        &line,
        &[
            text(&checkpoint),
            "damaged at byte",
            "--restore",
            "--accept-data-loss",
        ],
    );
    let node = start(&data, &["--accept-data-loss"]);
    let kept = (0..400)
        .filter(|number| {
            node.request("GET", &format!("/kv/key{number}"), &[], b"")
                .status
                == 200
        })
        .count();
    eprintln!("{kept} of 400 keys were saved from a damaged checkpoint");
    stop(node);
    assert_eq!(files(&data, "checkpoint-", ".damaged").len(), 1);
    stop(start(&data, &[]));
}

#[test]
fn files_of_a_newer_version_are_refused() {
    let folder = directory_with_log(3);
    let data = folder.join("data");
    let log = files(&data, "wal-", ".log").pop().expect("a log file");
    let set_format = |format: u32| {
        change_file(&log, |bytes| {
            bytes[8..12].copy_from_slice(&format.to_le_bytes());
            let checksum = crc32c::crc32c(&bytes[..60]);
            bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
        });
    };
    set_format(3);
    for arguments in [
        &["--data-dir", text(&data)][..],
        &["--data-dir", text(&data), "--accept-data-loss"],
    ] {
        let line = refuses(arguments, 1);
        assert_names(&line, &[text(&log), "format 3", "newer"]);
    }
    set_format(2);
    let node = start(&data, &[]);
    assert_eq!(count_numbered(&node, 3), 3);
    stop(node);
}

#[test]
fn a_backup_that_is_not_whole_is_refused() {
    let folder = directory_with_log(50);
    let node = start(&folder.join("data"), &[]);
    let backup = node.request("GET", "/snapshot", &[], b"").body;
    let file = folder.join("backup.dbn");
    let fresh = folder.join("fresh");
    for len in [0, 1, 63, 64, 70, backup.len() / 2, backup.len() - 1] {
        fs::write(&file, &backup[..len]).expect("write");
        for arguments in [
            &["--restore", text(&file)][..],
            &["--restore", text(&file), "--data-dir", text(&fresh)],
        ] {
            let line = refuses(arguments, 1);
            assert_names(
                &line,
                &["--restore", text(&file), "not a whole backup", "/snapshot"],
            );
        }
    }
    fs::write(&file, &backup).expect("write");
    stop(node);
    let line = refuses(
        &[
            "--restore",
            text(&file),
            "--data-dir",
            text(&folder.join("data")),
        ],
        2,
    );
    assert_names(&line, &["--restore", "--data-dir", "empty"]);
    assert_names(
        &refuses(&["--restore", text(&folder.join("nothing"))], 2),
        &["--restore", "nothing"],
    );
    // What was refused, or cut off by a crash, has left the directory fit for what is whole.
    fs::create_dir(fresh.join("partition-0")).expect("make a folder");
    fs::write(
        fresh.join("partition-0/checkpoint-00000000000000000050.dbn.tmp"),
        b"half",
    )
    .expect("write");
    let node = start(&fresh, &["--restore", text(&file)]);
    assert_eq!(count_numbered(&node, 50), 50);
    stop(node);
    let node = start(&folder.join("data"), &[]);
    assert_eq!(count_numbered(&node, 50), 50);
    stop(node);
}

#[test]
fn a_torn_tail_is_cut_and_only_that_is_lost() {
    let mut rng = fastrand::Rng::with_seed(seed());
    let folder = Folder::new("torn");
    let data = folder.join("data");
    let mut node = start(&data, &[]);
    write_numbered(&node, 8);
    // As a power cut leaves it that comes before the last sync returns.
    let log_end = data.join("partition-0/log-end");
    let before = fs::read(&log_end).expect("read");
    let last = node.request("PUT", "/kv/key8", &[], numbered(8).as_bytes());
    assert_eq!(last.status, 201);
    kill(&mut node);
    fs::write(&log_end, before).expect("write");
    let log = files(&data, "wal-", ".log").pop().expect("a log file");
    let place = find(&log, numbered(8).as_bytes());
    let (begin, end) = (place - 20 - "key8".len(), place + numbered(8).len());
    for cut in [begin + 1, begin + 4, begin + 20, end - 1]
        .into_iter()
        .chain((0..6).map(|_| rng.usize(begin + 1..end)))
    {
        let copy = folder.join("copy");
        copy_folder(&data, &copy);
        let log = copy
            .join("partition-0")
            .join(log.file_name().expect("a name"));
        let file = fs::OpenOptions::new().write(true).open(&log).expect("open");
        file.set_len(cut as u64).expect("cut");
        let mut node = start(&copy, &[]);
        assert_eq!(count_numbered(&node, 9), 8, "cut at {cut}");
        assert_eq!(partition_status(&node)["lastVersion"], 8);
        write_numbered(&node, 10);
        kill(&mut node);
        let said = node.rest_of_log();
        assert!(
            said.contains(&format!("{} was cut at byte {begin}", text(&log))),
            "cut at {cut}: {said}"
        );
        let node = start(&copy, &[]);
        assert_eq!(count_numbered(&node, 10), 10);
        let said = stop(node);
        assert!(
            !said.contains("was cut"),
            "what was acknowledged was cut: {said}"
        );
        fs::remove_dir_all(&copy).expect("remove");
    }
}

const BACKUP_KEYS: u64 = 200;

/// The value of a write: half of them too long to be stored within their record, and together more
/// than sockets hold.
fn backup_value(number: u64) -> Vec<u8> {
    let count = if number.is_multiple_of(2) { 3_000 } else { 700 };
    format!("{number:020}").into_bytes().repeat(count)
}

/// Asserts that a node holds what one holds after so many writes, each to the next key in turn, and
/// nothing else.
fn assert_state_after(node: &Node, write_count: u64) {
    let mut client = node.connect();
    for key in 0..BACKUP_KEYS {
        let response = client.request("GET", &format!("/kv/k{key}"), &[], b"");
        // Write n, counted from 1, is to key (n - 1) % BACKUP_KEYS.
        let last = (write_count + BACKUP_KEYS - 1 - key) / BACKUP_KEYS * BACKUP_KEYS + key + 1;
        match last.checked_sub(BACKUP_KEYS).filter(|number| *number > 0) {
            None => assert_eq!(response.status, 404, "k{key} after {write_count} writes"),
            Some(number) => {
                assert_eq!(response.status, 200, "k{key} after {write_count} writes");
                assert_eq!(response.tag_version(), Some(number));
                assert!(
                    response.body == backup_value(number),
                    "k{key} after {write_count} writes"
                );
            }
        }
    }
}

/// Writes to one key after the other until told to stop, and counts.
fn write_in_turn(
    address: SocketAddr,
    sent: &AtomicU64,
    answered: &AtomicU64,
    is_over: &AtomicBool,
) -> io::Result<()> {
    let mut wire = Wire::connect(address)?;
    let start = Instant::now();
    while !is_over.load(Ordering::SeqCst) && start.elapsed() < PATIENCE {
        let number = sent.fetch_add(1, Ordering::SeqCst) + 1;
        let answer = wire.ask(
            "PUT",
            &format!("/kv/k{}", (number - 1) % BACKUP_KEYS),
            &backup_value(number),
        )?;
        assert_eq!(answer.version, Some(number), "{}", answer.status);
        answered.fetch_add(1, Ordering::SeqCst);
    }
    Ok(())
}

/// Downloads a backup, most of it after many more writes; and between how many writes it was taken.
fn back_up(node: &Node, sent: &AtomicU64, answered: &AtomicU64) -> (Vec<u8>, RangeInclusive<u64>) {
    let mut client = node.connect_with_small_buffer();
    let before = answered.load(Ordering::SeqCst);
    client.send_request("GET", "/snapshot", &[], b"");
    node.settle();
    let after = sent.load(Ordering::SeqCst);
    wait_for("more writes", || {
        answered.load(Ordering::SeqCst) > after + 2 * BACKUP_KEYS
    });
    let response: Response = client.response(false);
    assert_eq!(response.status, 200);
    (response.body, before..=after)
}

#[test]
fn a_backup_is_one_point_in_time() {
    let folder = Folder::new("backup");
    let source = Node::start(&["--memtable-bytes", "256KiB"]);
    let (sent, answered, is_over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let backups = thread::scope(|scope| {
        let writing = scope.spawn(|| write_in_turn(source.address, &sent, &answered, &is_over));
        // The first one may lack keys, the others are of a store in the middle of its merges.
        let backups: Vec<_> = (0..4).map(|_| back_up(&source, &sent, &answered)).collect();
        is_over.store(true, Ordering::SeqCst);
        writing.join().expect("no panic").expect("all is answered");
        backups
    });
    let mut histories = BTreeSet::from([partition_status(&source)["historyId"]
        .as_str()
        .expect("text")
        .to_owned()]);
    assert_state_after(&source, answered.load(Ordering::SeqCst));
    drop(source);
    for (index, (bytes, taken)) in backups.iter().enumerate() {
        let file = folder.join("backup.dbn");
        fs::write(&file, bytes).expect("write");
        let data = folder.join(&format!("data-{index}"));
        let in_memory: &[&str] = &["--restore", text(&file)];
        let on_disk: &[&str] = &["--restore", text(&file), "--data-dir", text(&data)];
        for arguments in [in_memory, on_disk] {
            let mut node = Node::start(arguments);
            wait_until_ready(node.address).expect("it starts");
            let status = partition_status(&node);
            let version = status["lastVersion"].as_u64().expect("a number");
            assert!(
                taken.contains(&version),
                "{version} is not within {taken:?}"
            );
            assert_state_after(&node, version);
            let history = status["historyId"].as_str().expect("text").to_owned();
            assert!(
                histories.insert(history.clone()),
                "a history of its own: {status}"
            );
            let written = node.request("PUT", "/kv/more", &[], b"v").json();
            assert_eq!(written["version"], version + 1);
            if arguments.len() > 2 {
                kill(&mut node);
                let again = start(&data, &[]);
                assert_eq!(again.request("GET", "/kv/more", &[], b"").text(), "v");
                assert_state_after(&again, version);
                // What follows a start is another history, which remembers this one.
                let status = partition_status(&again);
                assert_eq!(
                    status["pastHistories"],
                    json!([{ "historyId": history, "endVersion": version + 1 }])
                );
                stop(again);
            }
        }
        eprintln!("a backup of {} bytes, taken within {taken:?}", bytes.len());
    }
}
