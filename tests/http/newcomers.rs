//! What is typed on the first day, mistakes included, and what is answered.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::common::{Client, Folder, Node, assert_error};
use crate::stored;

/// A node with a key in it.
fn node_with_a_key() -> (Node, Client) {
    let node = Node::start(&[]);
    let mut client = node.connect();
    assert_eq!(client.request("PUT", "/kv/k", &[], b"v").status, 201);
    (node, client)
}

/// On a terminal the next prompt begins a line of its own. Nothing else changes: a value is sent as
/// it was stored.
#[test]
fn every_json_answer_is_one_line_with_its_end() {
    let (_node, mut client) = node_with_a_key();
    let large = vec![b'x'; 100_000];
    assert_eq!(client.request("PUT", "/kv/large", &[], &large).status, 201);
    let batch = br#"{"ops":[{"op":"get","key":"large"},{"op":"delete","key":"none"}]}"#;
    let assignment = br#"{"id":7,"role":"replica","leader":"http://127.0.0.1:1"}"#;
    for (method, target, body) in [
        ("POST", "/set?key=a", &b"1"[..]),
        ("PUT", "/kv/a", b"2"),
        ("GET", "/get?key=a", b""),
        ("GET", "/get?key=large", b""),
        ("GET", "/get?key=none", b""),
        ("POST", "/get?key=a", b""),
        ("DELETE", "/delete?key=a", b""),
        ("DELETE", "/delete?key=a", b""),
        ("GET", "/kv/none", b""),
        ("POST", "/batch", br#"{"ops":[{"op":"get","key":"k"}]}"#),
        ("POST", "/batch", batch),
        ("GET", "/scan", b""),
        ("GET", "/scan?limit=1", b""),
        ("GET", "/watch?timeout=0", b""),
        ("GET", "/watch?timeout=x", b""),
        ("GET", "/health", b""),
        ("GET", "/status", b""),
        ("GET", "/digest", b""),
        ("GET", "/openapi.json", b""),
        ("POST", "/admin/freeze", b""),
        ("POST", "/admin/freeze", b""),
        ("POST", "/admin/compact", b""),
        ("POST", "/admin/checkpoint", b""),
        ("POST", "/partition/assign", assignment),
        ("DELETE", "/partition/7?discard=true", b""),
        ("DELETE", "/partition/7", b""),
        ("GET", "/nothing", b""),
        ("PATCH", "/get", b""),
        ("BREW", "/get", b""),
    ] {
        let response = client.request(method, target, &[], body);
        let text = response.text();
        assert_eq!(
            response.header("Content-Type"),
            Some("application/json"),
            "{method} {target}"
        );
        assert!(
            text.ends_with("}\n") && !text.ends_with("\n\n"),
            "{method} {target}: {text:?}"
        );
        let json: Result<Json, _> = serde_json::from_str(&text);
        assert!(json.is_ok(), "{method} {target}: {text}");
        if let Some(length) = response.header("Content-Length") {
            assert_eq!(length, text.len().to_string(), "{method} {target}");
        }
    }
    let whole = client.request("GET", "/get?key=k", &[], b"");
    let head = client.request("HEAD", "/get?key=k", &[], b"");
    assert_eq!(
        head.header("Content-Length"),
        Some(&*whole.body.len().to_string())
    );
    assert_eq!(stored(&mut client, b"k"), b"v");
    assert_eq!(stored(&mut client, b"large"), large);
    let raw = ["Accept: application/octet-stream"];
    let response = client.request("GET", "/get?key=k", &raw, b"");
    assert_eq!(response.body, b"v");
}

/// Runs the curl line that an answer ends with; returns its status.
fn run_line(message: &str, folder: &Folder) -> String {
    let (_, line) = message
        .split_once("ry: ")
        .unwrap_or_else(|| panic!("no line: {message}"));
    let with_status = line.replacen(
        "curl ",
        "curl -s -o answer -w '%{http_code}' --max-time 10 ",
        1,
    );
    let with_status = with_status.replace(" -o backup.dbn", "");
    let output = Command::new("sh")
        .args(["-c", &with_status])
        .current_dir(&folder.0)
        .stderr(Stdio::inherit())
        .output()
        .expect("sh");
    assert!(output.status.success(), "{line}");
    String::from_utf8(output.stdout).expect("a status")
}

/// Every path with every method that it does not take: the answer has a curl line, and that works
/// as it is. So does the one of a path that is none.
#[test]
fn a_wrong_path_or_method_is_answered_with_a_line_that_works() {
    let (node, mut client) = node_with_a_key();
    let folder = Folder::new("lines");
    let document = client.request("GET", "/openapi.json", &[], b"").json();
    let paths = document["paths"].as_object().expect("paths").keys();
    let mut messages = BTreeMap::new();
    let mut tell = |method: &str, path: &str| {
        let host = format!("Host: {}\r\nContent-Length: 0", node.address);
        client.send(format!("{method} {path} HTTP/1.1\r\n{host}\r\n\r\n").as_bytes());
        let response = client.response(false);
        if response.status >= 400
            && matches!(
                response.json()["code"].as_str(),
                Some("method_not_allowed" | "not_found")
            )
        {
            let message = response.json()["error"].as_str().expect("text").to_owned();
            let line = message.split_once("ry: ").expect("a line").1.to_owned();
            messages.insert(line, message);
        }
    };
    for path in paths {
        let path = path.replace("{key}", "k").replace("{id}", "1");
        for method in ["PATCH", "TRACE", "PUT"] {
            tell(method, &path);
        }
        tell("GET", &format!("{path}/"));
        tell("GET", &path.to_uppercase());
        tell("PUT", &format!("{path}x"));
    }
    for path in [
        "/help", "/ping", "/get/k", "/kv", "/healthz", "/set/", "/SET",
    ] {
        tell("GET", path);
    }
    assert!(messages.len() > 20, "{messages:?}");
    for (line, message) in messages {
        let status = run_line(&message, &folder);
        // A line may be about a key, a role or a partition that this node does not have.
        assert!(
            ["200", "201", "202", "204", "404", "409", "503"].contains(&&*status),
            "{line}: {status}"
        );
        let answer = std::fs::read_to_string(folder.join("answer")).unwrap_or_default();
        assert!(
            !answer.contains("\"code\":\"not_found\""),
            "{line}: {answer}"
        );
    }
}

/// What is said leads on, and destroys nothing.
#[test]
fn a_refusal_speaks_of_what_was_sent() {
    let (_node, mut client) = node_with_a_key();
    for (method, target, fields, expected) in [
        ("GET", "/partition/0", &[][..], "/status?partition=0'"),
        ("POST", "/set", &[], r#"{\"key\":\"k\",\"value\":\"v\"}"#),
        ("GET", "/get", &[], r#"such as {\"key\":\"k\"}"#),
        ("GET", "/get?key=k&partition=x", &[], "send ?partition=0"),
        ("GET", "/health?partition=x", &[], "send ?partition=0"),
        (
            "GET",
            "/get?key=k",
            &["X-Partition-ID: x"],
            "send X-Partition-ID: 0",
        ),
        ("GET", "/frobnicate", &[], "To see all paths, try: curl"),
    ] {
        let response = client.request(method, target, fields, b"");
        let text = response.text();
        assert!(
            response.status >= 400 && text.contains(expected) && !text.contains("DELETE http"),
            "{method} {target}: {text}"
        );
    }
}

#[test]
fn a_body_that_is_none_is_answered_with_one_that_works() {
    let (_node, mut client) = node_with_a_key();
    let form = ["Content-Type: application/x-www-form-urlencoded"];
    for (target, body) in [
        ("/set", "hello"),
        ("/set", "hello world"),
        ("/set", "\"a\""),
        ("/set", "[1]"),
        ("/set", "a&b"),
        (
            "/set",
            "a text that is longer than the name of any field, and still has no equals sign",
        ),
        ("/get", "hello"),
        ("/delete", "hello"),
    ] {
        let method = if target == "/delete" {
            "DELETE"
        } else {
            "POST"
        };
        let response = client.request(method, target, &form, body.as_bytes());
        assert_error(&response, 400, "bad_form");
        let text = response.text();
        assert!(
            text.contains("neither JSON nor key=") && text.contains("send key=k"),
            "{text}"
        );
    }
    let response = client.request("POST", "/set", &form, b"hello=1");
    assert_error(&response, 400, "bad_request");
    assert!(
        response.text().contains("unknown field"),
        "{}",
        response.text()
    );
    for body in [
        "{'key':1}",
        "{'key':'a','value':'b'}",
        "{\"key\":'a'}",
        "{\"key\":\"a\",'value':\"b\"}",
        "{key:a}",
        "{\"key\":\"a\",value:1}",
        "{\\\"key\\\":\\\"a\\\"}",
        "{\"ttl\":'5'}",
    ] {
        let response = client.request("POST", "/set", &form, body.as_bytes());
        assert_error(&response, 400, "bad_json");
        let text = response.text();
        assert!(text.contains("are in double quotes"), "{body}: {text}");
    }
    for body in ["{'ops':[]}", "{\"ops\":[{'op':1}]}"] {
        let response = client.request("POST", "/batch", &form, body.as_bytes());
        assert_error(&response, 400, "bad_json");
        assert!(
            response.text().contains("in double quotes"),
            "{}",
            response.text()
        );
    }
}

/// The client of another protocol gets its answer and the end, long before any time-out.
#[test]
fn another_protocol_is_answered_at_once() {
    let (node, mut client) = node_with_a_key();
    for begin in [
        &b"PING\r\n"[..],
        b"*1\r\n$4\r\nPING\r\n",
        b"get a\r\n",
        b"GET /\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0\0\0\x08\x04\xd2\x16\x2f",
    ] {
        let began = Instant::now();
        let mut other = node.connect();
        other.send(begin);
        let response = other.response(false);
        assert_error(&response, 400, "bad_request");
        assert_eq!(response.header("Connection"), Some("close"));
        other.assert_end();
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{}",
            begin.escape_ascii()
        );
    }
    let mut other = node.connect();
    other.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_error(&other.response(false), 505, "version_not_supported");
    // A request in two pieces, cut anywhere.
    let whole = b"GET /kv/k HTTP/1.1\r\nHost: h\r\n\r\n";
    let host = node.address.to_string();
    let whole = String::from_utf8_lossy(whole).replace("Host: h", &format!("Host: {host}"));
    for cut in 1..whole.len() {
        client.send(&whole.as_bytes()[..cut]);
        node.settle();
        client.send(&whole.as_bytes()[cut..]);
        assert_eq!(client.response(false).text(), "v", "cut at {cut}");
    }
}
