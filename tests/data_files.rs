//! The files of a data directory, as an operator finds, loses and mixes them up: what a start says,
//! what it leaves alone, and how `--accept-data-loss` gets past it. On the real disk;
//! `recovery/lost_files.rs` does it to a simulated one, in all ways.
#![allow(
    clippy::disallowed_methods,
    reason = "tests are the outside: they have clocks, files and sockets of their own"
)]

mod common;
#[path = "common/sim_disk.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod sim_disk;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::{Folder, Node, command, text, wait_for};
use db_node::config::Fsync;
use db_node::lsm::{LogBatch, Lsm, NewValue, Options, Value};
use db_node::storage::{CopyId, HistoryId, RecoveredPartition, RecoveryOptions, recover};
use sim_disk::{Shortage, SimDisk};

fn start(data: &Path, more: &[&str]) -> Node {
    let node = Node::start(&[&["--data-dir", text(data)], more].concat());
    wait_for("the node to be ready", || {
        node.request("GET", "/readyz", &[], b"").status == 200
    });
    node
}

fn put(node: &Node, key: &str, value: &[u8]) {
    let response = node.request("PUT", &format!("/kv/{key}"), &[], value);
    assert!(response.status < 300, "{}", response.text());
}

fn get(node: &Node, key: &str) -> Option<String> {
    let response = node.request("GET", &format!("/kv/{key}"), &[], b"");
    (response.status == 200).then(|| response.text())
}

/// Ends a node; returns its log.
fn stop(mut node: Node) -> String {
    node.signal("TERM");
    assert_eq!(node.wait().code(), Some(0));
    node.rest_of_log()
}

fn kill(mut node: Node) {
    node.signal("KILL");
    node.wait();
}

/// What a start that is refused says.
fn refusal(data: &Path) -> String {
    let mut command = command();
    command.args(["--listen", "127.0.0.1:0", "--data-dir", text(data)]);
    let (status, log) = match Node::try_spawn(command) {
        Ok(mut node) => (node.wait(), node.rest_of_log()),
        Err(ended) => ended,
    };
    assert_eq!(status.code(), Some(1), "{log}");
    let ways_out = ["--restore FILE", "--accept-data-loss"];
    assert!(ways_out.iter().all(|way| log.contains(way)), "{log}");
    log
}

fn partition(data: &Path) -> PathBuf {
    data.join("partition-0")
}

fn files(data: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(partition(data)).expect("a folder");
    entries
        .map(|entry| {
            let entry = entry.expect("an entry");
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, fs::read(entry.path()).expect("read"))
        })
        .collect()
}

fn logs(data: &Path) -> Vec<String> {
    let names = files(data).into_keys();
    names.filter(|name| name.contains("wal-")).collect()
}

/// More than one log file of acknowledged writes; 1 MiB each.
const WRITES: usize = 20;

fn write_two_logs(data: &Path) -> Node {
    let node = start(data, &[]);
    for number in 0..WRITES {
        put(&node, &format!("key{number}"), &vec![b'v'; 1 << 20]);
    }
    node
}

#[test]
fn the_newest_log_file_is_missed() {
    for is_killed in [false, true] {
        let folder = Folder::new("newest-log");
        let data = folder.join("data");
        let node = write_two_logs(&data);
        if is_killed {
            kill(node);
        } else {
            drop(stop(node));
        }
        let newest = logs(&data).pop().expect("a log");
        assert_eq!(logs(&data).len(), 2);
        let path = partition(&data).join(&newest);
        let whole = fs::read(&path).expect("read");

        fs::remove_file(&path).expect("remove");
        let before = files(&data);
        let line = refusal(&data);
        assert!(
            line.contains(&newest) && line.contains("is missing"),
            "{line}"
        );
        assert!(line.contains("version 20"), "{line}");
        assert!(files(&data) == before, "a refusal changes nothing");
        for damaged in [
            Vec::new(),
            vec![0; whole.len()],
            whole[..1_000_000].to_vec(),
        ] {
            fs::write(&path, damaged).expect("write");
            let line = refusal(&data);
            assert!(line.contains(&newest), "{line}");
        }
        // It is back.
        fs::write(&path, &whole).expect("write");
        let node = start(&data, &[]);
        assert!((0..WRITES).all(|number| get(&node, &format!("key{number}")).is_some()));
        stop(node);
    }
}

#[test]
fn an_accepted_loss_of_the_newest_log_file_keeps_the_rest() {
    let folder = Folder::new("accepted-log");
    let data = folder.join("data");
    stop(write_two_logs(&data));
    let newest = logs(&data).pop().expect("a log");
    fs::remove_file(partition(&data).join(&newest)).expect("remove");
    let node = start(&data, &["--accept-data-loss"]);
    let kept = (0..WRITES).filter(|number| get(&node, &format!("key{number}")).is_some());
    let kept = kept.count();
    assert!((10..WRITES).contains(&kept), "{kept}");
    let log = stop(node);
    assert!(
        log.contains("data was lost as accepted") && log.contains(&newest),
        "{log}"
    );
    // And the option is not needed again.
    let node = start(&data, &[]);
    assert_eq!(
        get(&node, &format!("key{}", kept - 1)).map(|value| value.len()),
        Some(1 << 20)
    );
    stop(node);
}

#[test]
fn log_files_that_changed_names_are_refused() {
    let folder = Folder::new("swapped-logs");
    let data = folder.join("data");
    stop(write_two_logs(&data));
    let (a, b) = match &logs(&data)[..] {
        [a, b] => (partition(&data).join(a), partition(&data).join(b)),
        other => panic!("{other:?}"),
    };
    let other = folder.join("other");
    fs::rename(&a, &other).expect("rename");
    fs::rename(&b, &a).expect("rename");
    fs::rename(&other, &b).expect("rename");
    let line = refusal(&data);
    assert!(line.contains("is not the file of that name"), "{line}");
    // A copy under a number of its own.
    fs::rename(&a, &other).expect("rename");
    fs::rename(&b, &a).expect("rename");
    fs::rename(&other, &b).expect("rename");
    let copy = "wal-00000000000000000900.log";
    fs::copy(&b, partition(&data).join(copy)).expect("copy");
    let line = refusal(&data);
    assert!(line.contains(copy) && line.contains("log-end"), "{line}");
    fs::remove_file(partition(&data).join(copy)).expect("remove");
    // Two that are not the newest.
    let node = start(&data, &[]);
    put(&node, "in-a-third", b"1");
    stop(node);
    assert!(logs(&data).len() > 2, "{:?}", logs(&data));
    fs::rename(&a, &other).expect("rename");
    fs::rename(&b, &a).expect("rename");
    fs::rename(&other, &b).expect("rename");
    let line = refusal(&data);
    assert!(line.contains("is not the file of that name"), "{line}");
}

#[test]
fn metadata_that_is_missing_or_old_is_refused_and_no_file_is_removed() {
    let folder = Folder::new("metadata");
    let data = folder.join("data");
    let node = start(&data, &[]);
    put(&node, "a", b"1");
    stop(node);
    // The second start begins a history, the third another one.
    stop(start(&data, &[]));
    let old = files(&data).remove("partition.json").expect("metadata");
    let node = start(&data, &[]);
    put(&node, "b", b"2");
    stop(node);
    let metadata = partition(&data).join("partition.json");
    let log_end = partition(&data).join("log-end");
    let whole = files(&data);

    fs::remove_file(&metadata).expect("remove");
    let without = files(&data);
    assert!(refusal(&data).contains("partition.json is missing"));
    assert!(files(&data) == without, "a refusal changes nothing");
    fs::write(&metadata, &old).expect("write");
    assert!(refusal(&data).contains("partition.json is not the one that was written last"));
    fs::write(&metadata, b"{}").expect("write");
    assert!(refusal(&data).contains("partition.json is damaged"));
    fs::write(&metadata, &whole["partition.json"]).expect("write");
    fs::remove_file(&log_end).expect("remove");
    assert!(refusal(&data).contains("log-end is missing"));
    fs::write(&log_end, vec![0; 8_192]).expect("write");
    assert!(refusal(&data).contains("log-end is damaged"));
    // Without both, and the loss accepted: the data is there.
    fs::remove_file(&metadata).expect("remove");
    let node = start(&data, &["--accept-data-loss"]);
    assert_eq!(
        (get(&node, "a"), get(&node, "b")),
        (Some("1".into()), Some("2".into()))
    );
    stop(node);
    assert!(files(&data).contains_key("log-end.damaged"));
    let node = start(&data, &[]);
    assert_eq!(get(&node, "b"), Some("2".into()));
    stop(node);
}

/// The files of a partition as a version without `log-end` left them: names and bytes. In
/// `tests/old_directories` those that are not text are in hexadecimal.
fn old_files(directory: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/old_directories")
        .join(directory);
    let file_of = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str());
        let (name, text) = (name.expect("a name"), fs::read(path).expect("read"));
        match name.strip_suffix(".hex") {
            Some(name) => (name.to_owned(), bytes_of_hex(&text)),
            None => (name.to_owned(), text),
        }
    };
    let entries = fs::read_dir(folder).expect("a folder");
    entries
        .map(|entry| file_of(&entry.expect("an entry").path()))
        .collect()
}

fn bytes_of_hex(text: &[u8]) -> Vec<u8> {
    let digits: Vec<u8> = text
        .iter()
        .filter_map(|digit| char::from(*digit).to_digit(16))
        .map(|digit| u8::try_from(digit).expect("four bits"))
        .collect();
    digits
        .chunks_exact(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

/// The old directories, and what is in them.
const OLD: [(&str, &[(&str, &str)]); 2] = [
    ("first-run", &[("a", "one"), ("b", "two")]),
    (
        "after-restart",
        &[("a", "four"), ("b", "two"), ("c", "three")],
    ),
];

#[test]
fn a_version_without_log_end_left_a_directory_that_is_taken_over() {
    for (name, content) in OLD {
        let folder = Folder::new("old-directory");
        let data = folder.join("data");
        fs::create_dir(&data).expect("make");
        fs::write(data.join("lock"), b"").expect("write");
        fs::create_dir(partition(&data)).expect("make");
        for (file_name, bytes) in old_files(name) {
            fs::write(partition(&data).join(file_name), bytes).expect("write");
        }
        let mut copies = Vec::new();
        for _ in 0..2 {
            let node = start(&data, &[]);
            copies.push(node.status()["partitions"][0]["copy"].clone());
            for (key, value) in content {
                assert_eq!(get(&node, key).as_deref(), Some(*value), "{key} of {name}");
            }
            stop(node);
        }
        assert_eq!(copies[0], copies[1], "the id that was drawn lasts");
        // From now on its log ends where `log-end` says.
        let newest = logs(&data).pop().expect("a log");
        fs::remove_file(partition(&data).join(&newest)).expect("remove");
        assert!(refusal(&data).contains(&newest));
    }
}

fn assert_holds(lsm: &Lsm, content: &[(&str, &str)], name: &str) {
    for (key, value) in content {
        let entry = lsm.get(key.as_bytes());
        let is_there = entry.is_some_and(
            |entry| matches!(entry.value, Value::Inline(found) if found == value.as_bytes()),
        );
        assert!(is_there, "{key} of {name}");
    }
}

/// On a full disk such a directory is read, and taken over by the first write that there is room
/// for.
#[test]
fn a_directory_without_log_end_is_read_on_a_full_disk() {
    let start = |disk: &SimDisk| {
        let options = RecoveryOptions {
            engine: Options {
                memtable_bytes: 64 * 1024,
                hash_seed: 1,
            },
            fresh_history: HistoryId([1; 16]),
            fresh_copy: CopyId([2; 16]),
            fsync: Fsync::Always,
            accept_data_loss: false,
            log_file_bytes: 4_096,
        };
        recover(disk.clone(), options, &mut |_| {})
    };
    for (name, content) in OLD {
        for shortage in [
            Shortage::Room,
            Shortage::RoomForAnything,
            Shortage::RoomAhead,
        ] {
            let disk = SimDisk::with_files(&old_files(name).into_iter().collect());
            disk.set_shortage(Some(Shortage::Descriptors));
            let refusal = start(&disk).map(drop).expect_err("nothing can be opened");
            assert!(refusal.to_string().contains("ulimit -n"), "{refusal}");
            disk.set_shortage(Some(shortage));
            for _ in 0..2 {
                let RecoveredPartition { lsm, .. } = start(&disk).expect("all can be read");
                assert_holds(&lsm, content, name);
                // It is small: there is room for it, and for no log.
                let is_made = shortage == Shortage::RoomAhead;
                assert_eq!(disk.files().contains_key("log-end"), is_made);
                disk.crash();
            }
            let RecoveredPartition {
                mut lsm, mut store, ..
            } = start(&disk).expect("all can be read");
            lsm.keep_log_behind(lsm.last_version());
            let (mut cursor, mut batch) = (lsm.log_end(), LogBatch::default());
            lsm.set(b"new", NewValue::Inline(b"v"), None);
            lsm.read_log(&mut cursor, 1_000, u64::MAX, &mut batch);
            let error = store.append(&batch).expect_err("there is no room");
            assert!(error.is_passing(), "{error}");
            disk.set_shortage(None);
            store.append(&batch).expect("there is room");
            store.sync().expect("there is room");
            disk.crash();
            let RecoveredPartition { lsm, .. } = start(&disk).expect("it is taken over");
            assert_holds(&lsm, content, name);
            assert_holds(&lsm, &[("new", "v")], name);
            assert!(disk.files().contains_key("log-end"));
        }
    }
}

#[test]
fn files_of_a_later_generation_that_nothing_names_are_left_alone() {
    let folder = Folder::new("later-generation");
    let data = folder.join("data");
    let node = start(&data, &[]);
    put(&node, "a", b"1");
    stop(node);
    let newest = logs(&data).pop().expect("a log");
    let unknown = partition(&data).join(format!("g7-{newest}"));
    fs::copy(partition(&data).join(&newest), &unknown).expect("copy");
    let before = fs::read(&unknown).expect("read");
    let node = start(&data, &[]);
    assert_eq!(get(&node, "a").as_deref(), Some("1"));
    stop(node);
    assert!(fs::read(&unknown).expect("it is still there") == before);
}

/// Which files are in force `partition.json` says: without it, neither those nor any other are
/// removed.
#[test]
fn files_of_a_generation_that_nothing_names_are_not_removed() {
    let folder = Folder::new("generation");
    let data = folder.join("data");
    let node = start(&data, &[]);
    put(&node, "a", b"1");
    stop(node);
    stop(start(&data, &[]));
    // As a version without `log-end` left it, after all data was replaced once.
    fs::remove_dir_all(partition(&data)).expect("remove");
    fs::create_dir(partition(&data)).expect("make");
    for (name, bytes) in old_files("after-restart") {
        if name != "partition.json" {
            fs::write(partition(&data).join(format!("g1-{name}")), bytes).expect("write");
        }
    }
    let before = files(&data);
    assert!(refusal(&data).contains("partition.json is missing"));
    assert!(files(&data) == before);
    let node = start(&data, &["--accept-data-loss"]);
    assert_eq!(get(&node, "c").as_deref(), Some("three"));
    stop(node);
}

/// A node that went down while it made a partition has told no node that it has it.
#[test]
fn a_partition_that_was_being_made_is_not_there_after_a_crash() {
    let folder = Folder::new("half-made");
    let data = folder.join("data");
    stop(start(&data, &[]));
    fs::create_dir(data.join("partition-1")).expect("make");
    let node = start(&data, &[]);
    let health = node.request("GET", "/health", &[], b"").json();
    assert_eq!(health["partitions"], serde_json::json!([0]), "{health}");
    let order = br#"{"id":1,"role":"leader"}"#;
    let answer = node.request("POST", "/partition/assign", &[], order);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let written = node.request("PUT", "/kv/a?partition=1", &[], b"v");
    assert_eq!(written.status, 201, "{}", written.text());
    stop(node);
    let node = start(&data, &[]);
    let read = node.request("GET", "/kv/a?partition=1", &[], b"");
    assert_eq!(read.text(), "v");
    stop(node);
}
