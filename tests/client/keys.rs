//! `get`, `set` and `delete`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;

use crate::common::member::{Member, assert_follows};
use crate::common::{Folder, Node, text, version_of};
use crate::hostile::answering;
use crate::{ask, ask_on_terminal, ask_with_input, client, refused, said};

/// Each byte once, in an order that is no text.
fn all_bytes() -> Vec<u8> {
    (0..=255).rev().collect()
}

#[test]
fn a_value_is_set_read_and_deleted() {
    let node = Member::start(&[]);
    let url = &node.url();
    let first = said(&ask(url, &["set", "a", "1"]));
    assert_eq!(version_of(first.trim_end()), 1);
    assert_eq!(said(&ask(url, &["get", "a"])), "1");
    assert_eq!(said(&ask(url, &["set", "empty", ""])).lines().count(), 1);
    assert_eq!(said(&ask(url, &["get", "empty"])), "");
    assert_eq!(
        said(&ask(url, &["set", "minus", "--", "-5"]))
            .lines()
            .count(),
        1
    );
    assert_eq!(said(&ask(url, &["get", "minus"])), "-5");
    assert_eq!(said(&ask(url, &["delete", "a"])), "");
    for command in ["get", "delete"] {
        let line = refused(&ask(url, &[command, "a"]), 1);
        assert_eq!(line, "db-node: key not found\n");
    }
}

#[test]
fn json_is_that_of_the_node() {
    let node = Member::start(&[]);
    let url = &node.url();
    let json = |arguments: &[&str], code: i32| {
        let output = ask(url, arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert_eq!(output.stdout.split(|byte| *byte == b'\n').count(), 2);
        serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("JSON")
    };
    let written = json(&["set", "a", "1", "--json"], 0);
    let read = json(&["get", "--json", "a"], 0);
    assert_eq!(
        (&read["value"], &read["etag"]),
        (&"1".into(), &written["etag"])
    );
    assert_eq!(json(&["delete", "a", "--json"], 0)["deleted"], true);
    assert_eq!(json(&["delete", "a", "--json"], 1)["deleted"], false);
    assert_eq!(json(&["get", "a", "--json"], 1)["code"], "key_not_found");
}

#[test]
fn keys_are_bytes() {
    let node = Member::start(&[]);
    let url = &node.url();
    let long = vec![b'%'; 4096];
    for key in [
        &b"user/1"[..],
        b"..",
        b"a b+c%2F?x=1&y#z",
        b"100%",
        b"\xff\xfe/\x01\n\r\t",
        "d\u{e9}j\u{e0}".as_bytes(),
        &long,
    ] {
        let with = |command: &str, value: &str| -> Vec<OsString> {
            let words = [
                command.into(),
                OsString::from_vec(key.to_vec()),
                value.into(),
            ];
            words.into_iter().filter(|word| !word.is_empty()).collect()
        };
        said(&ask(url, &with("set", "value")));
        assert_eq!(
            said(&ask(url, &with("get", ""))),
            "value",
            "{}",
            key.escape_ascii()
        );
        let json = said(&ask(url, &with("get", "--json")));
        assert!(json.contains("\"value\":\"value\""), "{json}");
        assert_eq!(said(&ask(url, &with("delete", ""))), "");
        refused(&ask(url, &with("get", "")), 1);
    }
    assert_eq!(node.digest()["keys"], 0);
    let line = refused(&ask(url, &["get", ""]), 2);
    assert!(line.contains("1 to 4096 bytes"), "{line}");
    let line = refused(&ask(url, &["get", &"k".repeat(4097)]), 4);
    assert!(line.contains("key is too long"), "{line}");
}

#[test]
fn values_of_all_bytes_come_from_arguments_files_and_input() {
    let node = Member::start(&[]);
    let (url, folder) = (&node.url(), Folder::new("client"));
    // An argument cannot have a zero byte.
    let argument: Vec<u8> = all_bytes().into_iter().filter(|byte| *byte != 0).collect();
    let words = [
        "set".into(),
        "argument".into(),
        OsString::from_vec(argument.clone()),
    ];
    said(&ask(url, &words));
    assert_eq!(ask(url, &["get", "argument"]).stdout, argument);
    let file = folder.join("value");
    std::fs::write(&file, all_bytes()).expect("write");
    said(&ask(url, &["set", "file", &format!("@{}", text(&file))]));
    said(&ask_with_input(url, &["set", "input", "-"], all_bytes()));
    for key in ["file", "input"] {
        assert_eq!(ask(url, &["get", key]).stdout, all_bytes());
        assert_eq!(node.get(&format!("/kv/{key}")).body, all_bytes());
    }
    let line = refused(&ask(url, &["set", "a", "@/nowhere/value"]), 2);
    assert!(line.contains("/nowhere/value"), "{line}");
}

/// The largest value that a node takes by default, with and without a known length.
#[test]
fn large_values_go_in_and_out() {
    let node = Member::start(&[]);
    let (url, folder) = (&node.url(), Folder::new("client"));
    let value: Vec<u8> = all_bytes().repeat(64 * 1024);
    let file = folder.join("value");
    std::fs::write(&file, &value).expect("write");
    let path = format!("@{}", text(&file));
    said(&ask(url, &["set", "file", &path]));
    said(&ask_with_input(url, &["set", "input", "-"], value.clone()));
    for key in ["file", "input"] {
        assert!(ask(url, &["get", key]).stdout == value, "{key}");
    }
    std::fs::write(&file, [&value[..], b"1"].concat()).expect("write");
    let too_long = [
        ask(url, &["set", "more", &path]),
        ask_with_input(
            url,
            &["set", "more", "-"],
            [value, vec![0; 1 << 20]].concat(),
        ),
    ];
    for output in too_long {
        let line = refused(&output, 4);
        assert!(line.contains("413") && line.contains("16 MiB"), "{line}");
    }
}

#[test]
fn conditions_and_times_to_live() {
    let node = Member::start(&[]);
    let url = &node.url();
    let token = said(&ask(url, &["set", "a", "1", "--create"]));
    let token = token.trim_end();
    for arguments in [
        &["set", "a", "2", "--create"][..],
        &["set", "a", "2", "--if-none-match", "*"],
        &["set", "a", "2", "--if-none-match", token],
        &["set", "b", "2", "--if-match", "*"],
        &["set", "a", "2", "--if-match", "1-00000000"],
        &["delete", "a", "--if-match", "1-00000000"],
    ] {
        let line = refused(&ask(url, arguments), 1);
        assert!(line.contains("condition"), "{arguments:?}: {line}");
    }
    assert_eq!(said(&ask(url, &["get", "a"])), "1");
    let quoted = format!("\"{token}\"");
    let token = said(&ask(url, &["set", "a", "2", "--if-match", &quoted]));
    said(&ask(url, &["delete", "a", "--if-match", token.trim_end()]));
    said(&ask(url, &["set", "c", "1", "--ttl", "60"]));
    let response = node.get("/kv/c");
    let left: f64 = response
        .header("X-TTL")
        .expect("a time")
        .parse()
        .expect("seconds");
    assert!((1.0..=60.0).contains(&left), "{left}");
    said(&ask(url, &["set", "c", "1", "--ttl=0.05"]));
    crate::common::wait_for("it to expire", || {
        ask(url, &["get", "c"]).status.code() == Some(1)
    });
    for (flag, value) in [
        ("--ttl", "soon"),
        ("--ttl", "-1"),
        ("--ttl", "1\r\nX-Min-Acks: 3"),
        ("--if-match", "1\r\nX-Min-Acks: 3"),
        ("--if-none-match", "a\"b"),
        ("--if-match", ""),
    ] {
        let line = refused(&ask(url, &["set", "d", "1", flag, value]), 2);
        assert!(line.contains(flag), "{line}");
    }
    let both = ["set", "d", "1", "--create", "--if-none-match", "*"];
    refused(&ask(url, &both), 2);
    refused(&ask(url, &["get", "d"]), 1);
}

#[test]
fn on_a_terminal_text_is_shown_and_other_bytes_are_not() {
    let node = Member::start(&[]);
    let url = &node.url();
    let (code, shown) = ask_on_terminal(url, "set a one");
    assert!(
        code == Some(0) && shown.starts_with("created, version 1-"),
        "{shown}"
    );
    let (_, shown) = ask_on_terminal(url, "set a two");
    assert!(shown.starts_with("replaced, version 2-"), "{shown}");
    assert_eq!(ask_on_terminal(url, "get a"), (Some(0), "two\n".to_owned()));
    for value in [&b"a\x1b[2Jb"[..], &all_bytes(), &vec![b'x'; 2 << 20]] {
        node.request("PUT", "/kv/b", &[], value);
        let (code, shown) = ask_on_terminal(url, "get b");
        assert_eq!(code, Some(0));
        assert!(
            shown.contains("redirect it") && !shown.contains(['\u{1b}', '\0']),
            "{shown:?}"
        );
        assert!(ask(url, &["get", "b"]).stdout == value);
    }
    assert_eq!(
        ask_on_terminal(url, "delete a"),
        (Some(0), "deleted\n".to_owned())
    );
    let (code, shown) = ask_on_terminal(url, "get a");
    assert_eq!((code, &*shown), (Some(1), "db-node: key not found\n"));
}

/// Writes go to the leader that a replica names; reads stay.
#[test]
fn a_replica_is_left_for_its_leader_once() {
    let leader = Member::start(&[]);
    let replica = Member::replica_of(&leader, &[]);
    leader.put("a", &[], "1");
    assert_follows(&replica, &leader);
    let url = &replica.url();
    assert_eq!(said(&ask(url, &["get", "a"])), "1");
    said(&ask(url, &["set", "a", "2"]));
    assert_eq!(leader.get("/kv/a").text(), "2");
    let large = vec![0; 4 << 20];
    said(&ask_with_input(url, &["set", "large", "-"], large.clone()));
    assert!(leader.get("/kv/large").body == large);
    said(&ask(url, &["delete", "a"]));
    assert_eq!(leader.get("/kv/a").status, 404);
    // A leader that follows another node again is not followed.
    let second = Member::replica_of(&replica, &[]);
    let line = refused(&ask(&second.url(), &["set", "a", "3"]), 4);
    assert!(
        line.contains("421") && line.contains(&leader.url()),
        "{line}"
    );
    assert_eq!(leader.get("/kv/a").status, 404);
}

#[test]
fn partitions_are_named() {
    let node = Member::start(&[]);
    let url = &node.url();
    let made = node.assign(&serde_json::json!({"id": 7, "role": "leader"}));
    assert_eq!(made.status, 200);
    said(&ask(url, &["set", "a", "seven", "--partition", "7"]));
    assert_eq!(said(&ask(url, &["get", "a", "--partition=7"])), "seven");
    refused(&ask(url, &["get", "a"]), 1);
    let line = refused(&ask(url, &["get", "a", "--partition", "8"]), 4);
    assert!(
        line.contains("404") && line.contains("partition 8"),
        "{line}"
    );
    refused(&ask(url, &["get", "a", "--partition", "x"]), 2);
}

#[test]
fn a_token_opens_a_node() {
    let folder = Folder::new("client");
    let (right, wrong) = (folder.join("right"), folder.join("wrong"));
    std::fs::write(&right, "0123456789abcdef\n").expect("write");
    std::fs::write(&wrong, "fedcba9876543210\n").expect("write");
    let node = Node::start(&["--token-file", text(&right)]);
    let url = &format!("http://{}", node.address);
    let line = refused(&ask(url, &["set", "a", "1"]), 4);
    assert!(line.contains("--token-file"), "{line}");
    refused(
        &ask(url, &["set", "a", "1", "--token-file", text(&wrong)]),
        4,
    );
    said(&ask(url, &["set", "a", "1", "--token-file", text(&right)]));
    let by_environment = client(url)
        .env("DB_NODE_TOKEN_FILE", &right)
        .args(["get", "a"])
        .output();
    assert_eq!(said(&by_environment.expect("run")), "1");
    let line = refused(&ask(url, &["get", "a", "--token-file", "/nowhere"]), 2);
    assert!(line.contains("--token-file"), "{line}");
    let mode = std::fs::metadata(&right)
        .expect("there")
        .permissions()
        .mode();
    assert_ne!(mode & 0o400, 0, "it was only read");
}

/// What a node calls its leader may be another host, which has no business with the token.
#[test]
fn a_token_is_sent_to_other_hosts_only_if_allowed() {
    let folder = Folder::new("client");
    let token = folder.join("token");
    std::fs::write(&token, "0123456789abcdef\n").expect("write");
    let node = Node::start(&["--token-file", text(&token)]);
    let port = node.address.port();
    let set = |host: &str, options: &[&str]| {
        let answer = format!(
            "HTTP/1.1 421 X\r\nX-Leader: http://{host}:{port}\r\nContent-Length: 2\r\n\r\n{{}}"
        );
        let mut arguments = vec!["set", "a", host];
        arguments.extend(options);
        ask(&answering(answer.as_bytes()), &arguments)
    };
    let with_token = ["--token-file", text(&token)];
    let line = refused(&set("localhost", &with_token), 4);
    for words in [
        &*format!("http://localhost:{port}"),
        "--url",
        "--follow-leader",
    ] {
        assert!(line.contains(words), "{words}: {line}");
    }
    let output = set("localhost", &[&with_token[..], &["--json"]].concat());
    assert_eq!(
        (output.status.code(), &*output.stdout),
        (Some(4), &b"{}\n"[..])
    );
    // Without one it is asked, and wants it.
    let line = refused(&set("localhost", &[]), 4);
    assert!(line.contains("401"), "{line}");
    said(&set("127.0.0.1", &with_token));
    let allowed = [&with_token[..], &["--follow-leader"]].concat();
    said(&set("localhost", &allowed));
    let read = [&["get", "a"][..], &with_token].concat();
    assert_eq!(said(&ask(&node.address.to_string(), &read)), "localhost");
}

#[test]
fn urls_are_taken_as_people_write_them() {
    let node = Node::start(&[]);
    let port = node.address.port();
    for url in [
        format!("http://127.0.0.1:{port}"),
        format!("http://localhost:{port}/"),
        format!("localhost:{port}"),
        format!("127.0.0.1:{port}"),
        format!(":{port}"),
        port.to_string(),
    ] {
        said(&ask("unused:1", &["set", "a", "1", "--url", &url]));
        assert_eq!(said(&ask(&url, &["get", "a"])), "1", "{url}");
    }
    for wrong in [
        "https://localhost:9001",
        "nonsense",
        "http://localhost",
        "a b:1",
        ":0",
    ] {
        let line = refused(&ask(wrong, &["get", "a"]), 2);
        assert!(line.contains("DB_NODE_URL"), "{wrong}: {line}");
    }
}
