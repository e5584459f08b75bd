//! A leader with a disk that hangs or fails is replaced. Passed over where `strace` is missing.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::{let_pass, wait_for};
use crate::faults::{Three, Writer};

/// Whether system calls can be tampered with here; says so if not.
fn can_inject() -> bool {
    let mut strace = Command::new("strace");
    strace.args(["-D", "-f", "-qq", "-e", "trace=fsync", "true"]);
    let can = strace
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !can {
        eprintln!("skipped: strace is missing, too old, or may not trace");
    }
    can
}

/// The first node leads, and some writes later its disk does this at each sync.
fn assert_replaced(action: &str) {
    if !can_inject() {
        return;
    }
    let Some(mut three) = Three::start_under(Some(&format!("fdatasync:{action}:when=60+"))) else {
        return;
    };
    let writer = Writer::start(three.addresses());
    let begun_at = Instant::now();
    wait_for("another node to be named", || {
        three.config()["leader"] != json!("n0")
    });
    eprintln!("another node is named after {:?}", begun_at.elapsed());
    assert_eq!(three.config()["handedOver"], true, "{}", three.config());
    let second = three.leader();
    assert_ne!(second, 0);
    let_pass(Duration::from_millis(500));
    let written = writer.end();
    written.assert_kept(three.member(second).address);
    let log = three.member(0).log.text();
    assert!(log.contains("the disk of this node"), "{log}");
}

#[test]
fn a_leader_with_a_disk_that_hangs_is_replaced() {
    assert_replaced("delay_enter=15000000");
}

#[test]
fn a_leader_with_a_disk_that_fails_is_replaced() {
    assert_replaced("error=EIO");
}
