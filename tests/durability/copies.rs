//! The id of a copy, as real nodes show it: it lasts where nothing can be missing.
//! `recovery/copies.rs` has the rule, on a simulated disk.

use std::fs;
use std::path::Path;

use crate::common::{Folder, Node, text};
use crate::damage::{files, write_numbered};
use crate::{kill, partition_status, start, stop};

fn copy_of(node: &Node) -> String {
    let copy = partition_status(node)["copy"].as_str().map(str::to_owned);
    let copy = copy.expect("a text");
    assert!(
        copy.len() == 32 && copy.contains(|digit| digit != '0'),
        "{copy}"
    );
    copy
}

/// The copy of a start, which is stopped again.
fn copy_at_start(folder: &Path, more: &[&str]) -> String {
    let node = start(folder, more);
    let copy = copy_of(&node);
    stop(node);
    copy
}

#[test]
fn a_copy_in_memory_is_another_one_after_each_start() {
    let copies = [(); 2].map(|()| {
        let mut node = Node::start(&[]);
        let copy = copy_of(&node);
        kill(&mut node);
        copy
    });
    assert_ne!(copies[0], copies[1]);
}

#[test]
fn a_copy_on_disk_lasts_unless_something_may_be_missing() {
    for fsync in ["always", "interval", "never"] {
        let folder = Folder::new("copy");
        let data = folder.join("data");
        let first = copy_at_start(&data, &["--fsync", fsync]);
        let mut node = start(&data, &["--fsync", fsync]);
        assert_eq!(copy_of(&node), first, "{fsync}: after a clean stop");
        kill(&mut node);
        let second = copy_at_start(&data, &["--fsync", fsync]);
        assert_eq!(second == first, fsync == "always", "{fsync}: after a kill");
        assert_eq!(copy_at_start(&data, &[]), second, "{fsync}: it lasts again");
    }
}

#[test]
fn a_backup_and_an_accepted_loss_begin_other_copies() {
    let folder = Folder::new("other-copies");
    let [data, restored] = ["data", "restored"].map(|name| folder.join(name));
    let node = start(&data, &[]);
    write_numbered(&node, 50);
    let first = copy_of(&node);
    let backup = folder.join("backup.dbn");
    let bytes = node.request("GET", "/snapshot", &[], b"").body;
    fs::write(&backup, bytes).expect("write");
    stop(node);

    let second = copy_at_start(&restored, &["--restore", text(&backup)]);
    assert_ne!(second, first);
    assert_eq!(copy_at_start(&restored, &[]), second);

    assert_eq!(
        copy_at_start(&data, &["--accept-data-loss"]),
        first,
        "nothing is lost"
    );
    for log in files(&data, "wal-", ".log") {
        fs::remove_file(log).expect("remove");
    }
    let third = copy_at_start(&data, &["--accept-data-loss"]);
    assert!(third != first && third != second);
    assert_eq!(copy_at_start(&data, &[]), third);
}
