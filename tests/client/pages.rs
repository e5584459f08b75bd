//! `scan`.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value as Json;

use crate::common::member::Member;
use crate::{ask, ask_on_terminal, client, refused, said};

#[test]
fn all_pages_are_listed_in_order() {
    let node = Member::start(&[]);
    let url = &node.url();
    assert_eq!(said(&ask(url, &["scan"])), "");
    node.fill(0..2500, 10);
    node.put("other", &[], "x");
    let mut keys: Vec<String> = (0..2500).map(|number| format!("key-{number}")).collect();
    keys.sort();
    let listed = said(&ask(url, &["scan", "key-", "--keys-only"]));
    assert_eq!(listed.lines().collect::<Vec<_>>(), keys);
    for limit in [1, 999, 1000, 1001, 2499] {
        let listed = said(&ask(
            url,
            &["scan", "--keys-only", "--limit", &limit.to_string()],
        ));
        assert_eq!(listed.lines().collect::<Vec<_>>(), keys[..limit]);
    }
    let listed = said(&ask(url, &["scan", "key-1"]));
    assert!(
        listed
            .lines()
            .all(|line| line.starts_with("key-1") && line.contains('\t'))
    );
    assert_eq!(said(&ask(url, &["scan", "none"])), "");
    let pages = said(&ask(url, &["scan", "--json"]));
    let of_page = |line: &str| {
        let page: Json = serde_json::from_str(line).expect("JSON");
        page["items"].as_array().expect("items").len()
    };
    assert_eq!(
        pages.lines().map(of_page).collect::<Vec<_>>(),
        [1000, 1000, 501]
    );
    refused(&ask(url, &["scan", "--limit", "0"]), 2);
}

/// What is listed is of the time of the first page, however long the reader takes.
#[test]
fn all_pages_are_of_one_point_in_time() {
    let node = Member::start(&[]);
    node.fill(0..4000, 4000);
    let mut command = client(&node.url());
    let mut child = command
        .arg("scan")
        .stdout(Stdio::piped())
        .spawn()
        .expect("run");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let first = lines.next().expect("a line").expect("text");
    assert!(first.starts_with("key-0\t"));
    for number in 3000..4000 {
        node.request("DELETE", &format!("/kv/key-{number}"), &[], b"");
    }
    assert_eq!(lines.count(), 3999);
    assert_eq!(child.wait().expect("wait").code(), Some(0));
}

#[test]
fn keys_and_values_stay_on_their_line() {
    let node = Member::start(&[]);
    let url = &node.url();
    for (key, value) in [
        ("a%0Ab%09%5C", &b"1\r\n\x1b[2J\\"[..]),
        ("b%FF", b"\xff\0"),
        ("c", "\u{e9}\u{2028}".as_bytes()),
        ("d", b""),
    ] {
        node.request("PUT", &format!("/kv/{key}"), &[], value);
    }
    let expected =
        "a\\nb\\t\\\\\t1\\r\\n\\x1b[2J\\\\\nb\\xff\t\\xff\\x00\nc\t\u{e9}\u{2028}\nd\t\n";
    assert_eq!(said(&ask(url, &["scan"])), expected);
    let values = vec![b'v'; 100_000];
    node.request("PUT", "/kv/e", &[], &values);
    assert_eq!(said(&ask(url, &["scan", "e"])).len(), 100_003);
    let (code, shown) = ask_on_terminal(url, "scan e");
    assert!(
        code == Some(0) && shown.len() < 300 && shown.contains("97.6 KiB"),
        "{shown}"
    );
}

/// `db-node scan | head` is no failure.
#[test]
fn a_closed_pipe_ends_it_quietly() {
    let node = Member::start(&[]);
    node.fill(0..3000, 1000);
    let mut command = client(&node.url());
    command
        .arg("scan")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("run");
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    stdout.read_line(&mut line).expect("read");
    drop(stdout);
    let output = child.wait_with_output().expect("wait");
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
    // A disk that is full is one.
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .expect("open");
    let output = client(&node.url()).arg("scan").stdout(full).output();
    let line = refused(&output.expect("run"), 2);
    assert!(line.contains("cannot write the output"), "{line}");
}

/// Values larger than the buffers, text and not, on one page.
#[test]
fn large_values_are_listed_whole() {
    let node = Member::start(&[]);
    let (text, bytes) = (vec![b'"'; 3 << 20], vec![0xff; 3 << 20]);
    node.request("PUT", "/kv/bytes", &[], &bytes);
    node.request("PUT", "/kv/text", &[], &text);
    let listed = said(&ask(&node.url(), &["scan"]));
    let values: Vec<&str> = listed
        .lines()
        .filter_map(|line| line.split('\t').nth(1))
        .collect();
    assert!(values == ["\\xff".repeat(3 << 20), "\"".repeat(3 << 20)]);
}
