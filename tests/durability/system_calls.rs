//! What was acknowledged is there after a crash or an error at any system call.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use crate::common::{Folder, Node, assert_error, command, request_bytes, text, wait_for};
use crate::writer::{Answer, HUGE, Wire, Writer};
use crate::{
    copy_folder, fatal_line, kill, partition_status, start, stop, stop_failed, terminate,
    wait_until_ready,
};

pub(crate) fn checkpoint_version(node: &Node) -> u64 {
    partition_status(node)["disk"]["checkpointVersion"]
        .as_u64()
        .expect("a number")
}

/// What is made to happen at a system call of the node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) call: &'static str,
    /// In the words of strace.
    pub(crate) action: &'static str,
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
    pub(crate) fn command_from(self, nth: usize, folder: &Folder) -> Command {
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
pub(crate) fn can_inject() -> bool {
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
pub(crate) enum End {
    /// It did not come up, or went away.
    Gone,
    /// It takes no more writes.
    Failed,
    /// All was done.
    Done,
}

/// Twelve sets and deletes, a checkpoint, six more; before the checkpoint, if wanted, what fills a
/// log file.
pub(crate) fn work(
    writer: &mut Writer,
    address: SocketAddr,
    fills_a_file: bool,
) -> io::Result<End> {
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

/// Asserts that a node with failed storage takes no writes, says so, and serves reads of all
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

/// With a disk that syncs slowly: the reply to a write waits for its sync, what was asked before it
/// does not, what was asked behind it on the same connection keeps its place, and no other
/// connection waits.
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
    // It may see what is not on disk yet: docs/durability.md says so.
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
