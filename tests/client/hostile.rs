//! Peers that answer what no node would: the command ends with 3, one line, and little memory.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::time::Duration;

use crate::common::{Folder, text};
use crate::{ask, refused, said};

/// A peer that reads the head of each request, and then does as told.
fn peer(act: impl Fn(&mut TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n")
                && stream.read(&mut byte).is_ok_and(|count| count > 0)
            {
                head.push(byte[0]);
            }
            act(&mut stream);
            let _ = stream.shutdown(Shutdown::Write);
            // What the client still sends is read, so that it is not reset.
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    });
    address
}

/// A peer that answers with these bytes, and closes.
pub(crate) fn answering(bytes: &[u8]) -> String {
    let bytes = bytes.to_vec();
    let address = peer(move |stream| {
        let _ = stream.write_all(&bytes);
    });
    address.to_string()
}

/// The answer with a version if it has a whole status line of success.
fn with_version(answer: &[u8]) -> Vec<u8> {
    match answer.strip_prefix(b"HTTP/1.1 200 OK\r\n") {
        Some(rest) => [b"HTTP/1.1 200 OK\r\nETag: W/\"1-01234567\"\r\n", rest].concat(),
        None => answer.to_vec(),
    }
}

/// A peer that sends a beginning and then the same again without an end.
fn endless(begin: &'static [u8], again: &'static [u8]) -> String {
    let address = peer(move |stream| {
        let again = again.repeat((1 << 16) / again.len());
        let mut sent = stream.write_all(begin);
        while sent.is_ok() {
            sent = stream.write_all(&again);
        }
    });
    address.to_string()
}

/// Runs a command in little address space: the longest entry that a scan takes, and what growing
/// to it needs.
fn ask_in_little_memory(url: &str, arguments: &str) -> Output {
    let program = env!("CARGO_BIN_EXE_db-node");
    Command::new("bash")
        .args([
            "-c",
            &format!("ulimit -v 600000; exec '{program}' {arguments}"),
        ])
        .env("DB_NODE_URL", url)
        .output()
        .expect("run bash")
}

/// Each command that asks a node, with what it needs.
const COMMANDS: [&[&str]; 10] = [
    &["get", "a"],
    &["get", "a", "--json"],
    &["set", "a", "1"],
    &["set", "a", "1", "--json"],
    &["delete", "a"],
    &["delete", "a", "--json"],
    &["scan"],
    &["status"],
    &["status", "--json"],
    &["watch"],
];

#[test]
fn broken_answers_are_no_answers() {
    for (answer, problem) in [
        (&b""[..], "closed the connection"),
        (b"HTTP/1.1 200 OK\r\nContent-", "closed the connection"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
            "closed the connection",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\nabc",
            "closed",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nabc",
            "is broken",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "is broken",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            "is broken",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nab",
            "is broken",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            "is broken",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
            "is broken",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
            "broken",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
            "closed",
        ),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "is broken"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "is broken"),
        (b"\x15\x03\x01\x00\x02\x02\x50", "is broken"),
        (b"\0\0\0\0", "is broken"),
    ] {
        // With a version, which a value is not written without.
        let with_version = with_version(answer);
        let url = &answering(&with_version);
        for arguments in COMMANDS {
            let output = ask(url, arguments);
            let line = refused(&output, 3);
            assert!(
                line.contains(problem),
                "{arguments:?} {}: {line}",
                answer.escape_ascii()
            );
            assert!(line.contains(url), "{line}");
        }
    }
}

#[test]
fn answers_that_mean_nothing_are_no_answers() {
    let url = &answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n<html");
    let folder = Folder::new("client");
    let path = folder.join("backup.dbn");
    let to_file = ["snapshot", text(&path)];
    let commands = || {
        let snapshots = [&to_file[..], &["snapshot", "-"]];
        // A stream of changes may have other text in it, which is passed over.
        let others = COMMANDS.into_iter().filter(|words| words[0] != "watch");
        others.chain(snapshots)
    };
    for arguments in commands() {
        let output = ask(url, arguments);
        let line = refused(&output, 3);
        assert!(line.contains("is it a db-node?"), "{arguments:?}: {line}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    // With a tag, which another server has, too; with one of a node, but encoded.
    for fields in [
        "ETag: \"60a1-5e8f0b7c2a900\"\r\n",
        "ETag: \"7-01234567\"\r\nContent-Encoding: gzip\r\n",
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\n{{}}");
        let url = &answering(answer.as_bytes());
        for arguments in commands() {
            let output = ask(url, arguments);
            refused(&output, 3);
            assert!(output.stdout.is_empty(), "{arguments:?}");
        }
    }
    // A version alone makes no backup.
    let answer = b"HTTP/1.1 200 OK\r\nETag: \"7-01234567\"\r\nContent-Length: 2\r\n\r\n{}";
    for arguments in [["snapshot", text(&path)], ["snapshot", "-"]] {
        let line = refused(&ask(&answering(answer), &arguments), 3);
        assert!(line.contains("is no backup"), "{line}");
    }
    assert_eq!(std::fs::read_dir(&folder.0).expect("a folder").count(), 0);
    // Deeper than any parser should follow, numbers that are none, text that is none.
    let bodies = [
        "[".repeat(30_000),
        "{\"items\":[{\"key\":1}]}".to_owned(),
        "{\"items\":[{\"key\":\"a\",\"keyEncoding\":\"base64\"}]}".to_owned(),
        "{\"items\":[{]}".to_owned(),
        format!("{{\"items\":[{}]}}", "{\"a\":".repeat(1000)),
    ];
    for body in bodies {
        let length = body.len();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        let url = answering(&[head.as_bytes(), body.as_bytes()].concat());
        refused(&ask(&url, &["scan"]), 3);
        refused(&ask(&url, &["status"]), 3);
    }
    let event = b"HTTP/1.1 200 OK\r\n\r\ndata: {\"op\":\"set\"}\n\n";
    refused(&ask(&answering(event), &["watch"]), 3);
}

/// A next page that does not go on would be asked for without an end.
#[test]
fn pages_that_go_round_in_a_ring_end() {
    let body = "{\"items\":[{\"key\":\"a\"}],\"next\":\"a\",\"position\":\"1-00000000\"}";
    let length = body.len();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
    let line = refused(&ask(&answering(answer.as_bytes()), &["scan"]), 3);
    assert!(line.contains("is broken"), "{line}");
}

#[test]
fn errors_without_a_reason_are_errors_of_the_node() {
    let escape = r#"{"error":"a\u001b[2J\nb"}"#;
    let escape = format!(
        "HTTP/1.1 500 X\r\nContent-Length: {}\r\n\r\n{escape}",
        escape.len()
    );
    for (answer, code, said) in [
        ("HTTP/1.1 404 X\r\nContent-Length: 4\r\n\r\nhtml", 4, "404"),
        ("HTTP/1.1 302 X\r\nContent-Length: 0\r\n\r\n", 4, "302"),
        ("HTTP/1.1 502 X\r\nContent-Length: 9\r\n\r\n", 4, "502"),
        (
            "HTTP/1.1 421 X\r\nX-Leader: nonsense\r\nContent-Length: 0\r\n\r\n",
            4,
            "421",
        ),
        (
            "HTTP/1.1 421 X\r\nX-Leader: http://127.0.0.1:1\r\nContent-Length: 0\r\n\r\n",
            3,
            "is a replica; its leader http://127.0.0.1:1 cannot be reached",
        ),
        (&escape, 4, "a[2Jb"),
    ] {
        let line = refused(
            &ask(&answering(answer.as_bytes()), &["set", "a", "1"]),
            code,
        );
        assert!(line.contains(said), "{answer}: {line}");
        assert!(!line.contains('\u{1b}'), "{line}");
    }
}

#[test]
fn endless_answers_end_in_bounded_memory() {
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\n";
    const STREAM: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";
    for (begin, again, arguments) in [
        (OK, &b"x: y\r\n"[..], "get a"),
        (b"HTTP/1.1 ", b"2", "get a"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", "get a"),
        (STREAM, b"a", "set a 1"),
        (STREAM, b"a", "delete a"),
        (STREAM, b" ", "status"),
        (STREAM, b" ", "scan"),
        (
            b"HTTP/1.1 200 OK\r\n\r\n{\"items\":[{\"key\":\"",
            b"k",
            "scan",
        ),
        (b"HTTP/1.1 200 OK\r\n\r\ndata: ", b"x", "watch"),
    ] {
        let url = endless(begin, again);
        let arguments = format!("{arguments} --timeout 20");
        let output = ask_in_little_memory(&url, &arguments);
        let line = refused(&output, 3);
        assert!(line.contains("is broken"), "{arguments}: {line}");
    }
    // An error of any length is an error.
    let url = endless(b"HTTP/1.1 500 X\r\n\r\n", b"x");
    refused(&ask_in_little_memory(&url, "get a"), 4);
}

#[test]
fn a_silent_peer_is_not_waited_for_without_an_end() {
    let silent = peer(|_| crate::common::let_pass(Duration::from_secs(20))).to_string();
    for arguments in COMMANDS {
        let arguments = [arguments, &["--timeout", "0.1"]].concat();
        let line = refused(&ask(&silent, &arguments), 3);
        assert!(
            line.contains("100 ms") && line.contains("--timeout"),
            "{line}"
        );
    }
    let half = peer(|stream| {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf";
        let _ = stream.write_all(&with_version(answer));
        crate::common::let_pass(Duration::from_secs(20));
    });
    let output = ask(&half.to_string(), &["get", "a", "--timeout", "0.1"]);
    let line = refused(&output, 3);
    assert!(line.contains("100 ms"), "{line}");
    for url in ["127.0.0.1:1", "no-such-host.invalid:9001"] {
        let line = refused(&ask(url, &["get", "a"]), 3);
        assert!(line.contains(url) && line.contains("--url"), "{line}");
    }
}

/// Interim answers, and ends that are those of the connection.
#[test]
fn unusual_answers_are_understood() {
    for answer in [
        "HTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nvalue",
        "HTTP/1.1 200 OK\r\n\r\nvalue",
        "HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nvalue",
        "HTTP/1.1 200 X\r\ntransfer-encoding: Chunked\r\n\r\n2;a=b\r\nva\r\n3\r\nlue\r\n0\r\n\r\n",
    ] {
        // The last head gets a version.
        let (begin, body) = answer.rsplit_once(" 200 ").expect("a status");
        let (reason, rest) = body.split_once("\r\n").expect("a line");
        let version = "ETag: \"1-01234567\"";
        let answer = format!("{begin} 200 {reason}\r\n{version}\r\n{rest}");
        assert_eq!(
            said(&ask(&answering(answer.as_bytes()), &["get", "a"])),
            "value"
        );
    }
    let status =
        "{\"partitions\":[{\"id\":\"x\",\"levels\":7,\"replicas\":[1,{}],\"new\":[]}],\"up\":0}";
    let length = status.len();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{status}");
    assert!(said(&ask(&answering(answer.as_bytes()), &["status"])).contains("PARTITION"));
}

#[test]
fn a_truncated_snapshot_leaves_no_file() {
    let folder = Folder::new("client");
    let path = folder.join("backup.dbn");
    for answer in [
        &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\ndbnodchk\r\n"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndbno\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\ndbnodchk1",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndbnodchkabcdef",
        b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n",
    ] {
        let output = ask(
            &answering(&with_version(answer)),
            &["snapshot", text(&path)],
        );
        let code = if answer.starts_with(b"HTTP/1.1 503") {
            4
        } else {
            3
        };
        refused(&output, code);
        assert_eq!(std::fs::read_dir(&folder.0).expect("a folder").count(), 0);
    }
    // What was there stays.
    std::fs::write(&path, "older").expect("write");
    refused(&ask(&answering(b""), &["snapshot", text(&path)]), 3);
    assert_eq!(std::fs::read(&path).expect("read"), b"older");
}
