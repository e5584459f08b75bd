//! A full disk stops writes, and nothing else.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{Folder, Node, assert_error, text, wait_for};
use crate::damage::files;
use crate::{kill, start, stop};

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
    for (method, target) in [("PUT", "/kv/small"), ("DELETE", "/kv/0")] {
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
    // A checkpoint may be asked for: it could free room. This one does not fit.
    let answer = node.request("POST", "/admin/checkpoint", &[], b"");
    assert_eq!(answer.status, 202, "{}", answer.text());
    wait_for("the checkpoint to be given up", || given_up() == 2);
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
    // It knows before the first write fails.
    assert_stalled(&node, count);
    assert_eq!(node.request("GET", "/leader", &[], b"").status, 503);
    let metrics = node.request("GET", "/metrics", &[], b"").text();
    let is_shown = metrics.contains("\ndbnode_storage_stalled{partition=\"0\"} 1\n");
    assert!(is_shown, "{metrics}");
    assert_error(&put(&node, 52), 503, "storage_stalled");
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

/// Little data, overwritten again and again: its log fills the disk before it is long enough for a
/// checkpoint, and a checkpoint frees room for what comes.
#[test]
fn on_a_full_disk_a_checkpoint_frees_the_room_that_an_old_log_takes() {
    // Two log files and two checkpoints fit, and no third log file.
    let Some(disk) = SmallDisk::mount("45m") else {
        return;
    };
    let data = disk.0.join("data");
    let node = start(&data, &[]);
    let mut refused_count = 0;
    for number in 0..100 {
        let target = format!("/kv/{}", number % 3);
        let put = || node.request("PUT", &target, &[], &full_disk_value(number));
        let response = put();
        if response.status == 503 {
            assert_error(&response, 503, "storage_stalled");
            let text = response.text();
            assert!(text.contains("it needs 16 MiB at once"), "{text}");
            refused_count += 1;
            wait_for("room for the log", || put().status < 300);
        }
    }
    eprintln!("{refused_count} of 100 writes were refused");
    assert!((1..=4).contains(&refused_count), "{refused_count}");
    let log = stop(node);
    assert!(log.contains("is in place"), "{log}");
    // What a refused write had waited for.
    let is_refused = |line: &&str| line.contains("slow: PUT") && line.contains(" 503 ");
    let slow: Vec<&str> = log.lines().filter(is_refused).collect();
    let tells = |line: &&str| line.contains("waiting for the disk") && !line.contains(": sending");
    assert!(!slow.is_empty() && slow.iter().all(tells), "{slow:?}");
    let node = start(&data, &[]);
    for number in 97..100 {
        let target = format!("/kv/{}", number % 3);
        let value = node.request("GET", &target, &[], b"").body;
        assert!(value == full_disk_value(number), "{number}");
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
