//! A backup is the state at one point in time.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use serde_json::json;

use crate::common::{Folder, Node, PATIENCE, Response, text, wait_for};
use crate::damage::{assert_names, count_numbered, directory_with_log, refuses};
use crate::writer::Wire;
use crate::{kill, partition_status, start, stop, wait_until_ready};

#[test]
fn a_backup_that_is_not_whole_is_refused() {
    let folder = directory_with_log(50);
    let node = start(&folder.join("data"), &[]);
    let backup = node.request("GET", "/snapshot", &[], b"").body;
    let file = folder.join("backup.dbn");
    let fresh = folder.join("fresh");
    let cut_off = [0, 1, 63, 64, 70, backup.len() / 2, backup.len() - 1];
    let cut_off = cut_off.map(|len| backup[..len].to_vec());
    // Which of two is meant is not known, nor what bytes behind the end are.
    let too_long = [&backup[..], b"\n", &[0; 64]].map(|more| [&backup, more].concat());
    for bytes in cut_off.iter().chain(&too_long) {
        fs::write(&file, bytes).expect("write");
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
