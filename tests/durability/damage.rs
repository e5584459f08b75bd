//! Directories that cannot be read whole are refused until the loss is accepted.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::seeds::random_seed;
use crate::common::{Folder, Node, command, text, wait_for};
use crate::system_calls::checkpoint_version;
use crate::{copy_folder, fatal_line, kill, partition_status, start, stop};

/// Runs the program, which is to refuse; returns the line that says why.
#[track_caller]
pub(crate) fn refuses(arguments: &[&str], code: i32) -> String {
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
pub(crate) fn assert_names(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "{part:?} is not in: {line}");
    }
}

/// Where `needle` is in a file.
pub(crate) fn find(file: &Path, needle: &[u8]) -> usize {
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
pub(crate) fn files(data: &Path, prefix: &str, suffix: &str) -> Vec<PathBuf> {
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
pub(crate) fn write_numbered(node: &Node, count: usize) {
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
pub(crate) fn count_numbered(node: &Node, up_to: usize) -> usize {
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
pub(crate) fn directory_with_log(count: usize) -> Folder {
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
fn a_torn_tail_is_cut_and_only_that_is_lost() {
    let seed = random_seed();
    let mut rng = seed.rng();
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
