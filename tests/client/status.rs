//! `status`.

use crate::common::member::{Member, assert_follows};
use crate::common::{Folder, wait_for};
use crate::{ask, refused, said};

/// The cells of the row that begins with these.
fn row<'t>(table: &'t str, begin: &[&str]) -> Vec<&'t str> {
    let rows = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut found = rows.filter(|row| row.starts_with(begin));
    found
        .next()
        .unwrap_or_else(|| panic!("no {begin:?} in {table}"))
}

#[test]
fn roles_versions_and_replicas_are_shown() {
    let folder = Folder::new("client");
    let leader = Member::durable(&folder, &[]);
    let replica = Member::replica_of(&leader, &[]);
    leader.fill(0..100, 1000);
    assert_follows(&replica, &leader);
    leader.wait_for_disk();
    leader.assign(&serde_json::json!({"id": 7, "role": "leader"}));
    let shown = said(&ask(&leader.url(), &["status"]));
    for words in [
        &leader.url(),
        folder.path(),
        "synced: always",
        "up ",
        env!("CARGO_PKG_VERSION"),
    ] {
        assert!(shown.contains(words), "{words} in {shown}");
    }
    assert_eq!(
        row(&shown, &["0", "leader"])[..6],
        ["0", "leader", "leading", "0", "100", "100"]
    );
    assert_eq!(row(&shown, &["7", "leader"])[2], "leading");
    // Both columns tell of the leader's side.
    wait_for("the replica to confirm", || {
        let shown = said(&ask(&leader.url(), &["status"]));
        let lines = shown.lines().skip_while(|line| !line.contains("IN SYNC"));
        let replica = lines
            .skip(1)
            .find(|line| line.trim_start().starts_with("0 "));
        replica.is_some_and(|line| line.contains("yes") && line.ends_with(" 0"))
    });
    let shown = said(&ask(&replica.url(), &["status"]));
    assert_eq!(row(&shown, &["0", "replica"])[2..4], ["in", "sync"]);
    let leader_row = row(&shown, &["0", "leader", &leader.url()]);
    assert!(leader_row.contains(&"yes"), "{shown}");
    let shown = said(&ask(&leader.url(), &["status", "--partition", "7"]));
    assert!(!shown.contains("IN SYNC"), "{shown}");
    let json = said(&ask(
        &leader.url(),
        &["status", "--json", "--partition", "7"],
    ));
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["partitions"].as_array().expect("a list").len(), 2);
    let line = refused(&ask(&leader.url(), &["status", "--partition", "8"]), 4);
    assert!(line.contains("partition 8"), "{line}");
    let shown = said(&ask(&replica.url(), &["status"]));
    assert!(shown.contains("\ndata     in memory only"), "{shown}");
    refused(&ask("127.0.0.1:1", &["status"]), 3);
}
