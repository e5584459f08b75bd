//! `GET /`: a page for browsers, a text for all other clients. `.ci/browser` tries the page in a
//! browser.

use std::process::Command;

use crate::common::{Client, Node, Response, assert_error};

/// What Chromium sends.
const BROWSER: &str = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,\
                       image/webp,image/apng,*/*;q=0.8";

fn get_as(client: &mut Client, host: &str) -> Response {
    client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
    client.response(false)
}

/// Runs a command of the text, without curl's own messages.
fn run(command: &str) -> String {
    let command = command.replace("curl ", "curl -sS ");
    let output = Command::new("sh")
        .args(["-c", &command])
        .output()
        .expect("run sh");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {error}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn the_form_follows_accept() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    let (text, html) = ("text/plain; charset=utf-8", "text/html; charset=utf-8");
    for (accept, expected) in [
        (&[][..], text),
        (&["Accept: */*"], text),
        (&["Accept: text/*"], text),
        (&["Accept: application/json"], text),
        (&[BROWSER], html),
        (&["Accept: text/html"], html),
        (&["Accept: TEXT/HTML;q=0.1"], html),
        (&["Accept: text/html;q=0.1, text/plain;q=0.2"], text),
        (&["Accept: text/html, text/plain"], text),
        (&["Accept: text/html, */*"], html),
        (&["Accept: text/html;q=0, */*;q=0.1"], text),
        (&["Accept: text/plain;q=0"], html),
    ] {
        for method in ["GET", "HEAD"] {
            let response = client.request(method, "/", accept, b"");
            assert_eq!(response.status, 200, "{accept:?}");
            assert_eq!(
                response.header("Content-Type"),
                Some(expected),
                "{accept:?}"
            );
            assert_eq!(response.header("Vary"), Some("Accept"));
            assert_eq!(response.header("Cache-Control"), Some("no-cache"));
            assert_eq!(response.header("X-Content-Type-Options"), Some("nosniff"));
            let length: usize = response
                .header("Content-Length")
                .map_or(0, |length| length.parse().expect("a length"));
            assert!(length > 500, "{length} bytes");
            assert!(response.body.len() == length || method == "HEAD");
        }
    }
    let nothing = ["Accept: text/html;q=0, text/plain;q=0"];
    assert_error(
        &client.request("GET", "/", &nothing, b""),
        406,
        "not_acceptable",
    );
    assert_error(
        &client.request("GET", "/?a=b", &[], b""),
        400,
        "unknown_parameter",
    );
    assert_error(
        &client.request("POST", "/", &[], b""),
        405,
        "method_not_allowed",
    );
}

#[test]
fn the_page_is_small_and_may_reach_this_node_alone() {
    let node = Node::start(&[]);
    let page = node.request("GET", "/", &[BROWSER], b"");
    assert!(page.body.len() <= 48 * 1024, "{} bytes", page.body.len());
    assert!(page.text().starts_with("<!doctype html>"));
    let policy = page.header("Content-Security-Policy").expect("a policy");
    for directive in [
        "default-src 'none'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "script-src 'sha256-",
        "style-src 'sha256-",
    ] {
        assert!(policy.contains(directive), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("Referrer-Policy"), Some("no-referrer"));
}

#[test]
fn the_commands_of_the_text_work() {
    let token = "0123456789abcdef";
    let path = std::env::temp_dir().join(format!("db-node-token-{}", std::process::id()));
    std::fs::write(&path, token).expect("write");
    let file = path.to_str().expect("text");
    for options in [&[][..], &["--token-file", file]] {
        let node = Node::start(options);
        let host = node.address.to_string();
        // The page and the text hold no data, so neither needs the token.
        let text = get_as(&mut node.connect(), &host).text();
        let command = |what: &str| {
            let line = text.lines().find(|line| line.starts_with(what));
            let (_, command) = line.expect(what).split_at(what.len());
            assert_eq!(
                command.contains("Authorization"),
                !options.is_empty(),
                "{text}"
            );
            assert!(command.contains(&host), "{text}");
            format!("TOKEN=$(cat {file}); {command}")
        };
        run(&command("store a value"));
        assert_eq!(run(&command("read it")), "hello");
        assert!(run(&command("list keys")).contains("\"greeting\""));
        run(&command("delete it"));
        assert!(run(&command("read it")).contains("not found"));
        assert!(run(&command("status as JSON")).contains("\"uptimeMs\""));
        assert!(run(&command("every request")).contains("\"openapi\""));
        let status = node.request("GET", "/status", &[], b"").status;
        assert_eq!(status, if options.is_empty() { 200 } else { 401 });
    }
    std::fs::remove_file(path).expect("remove");
}

#[test]
fn the_text_says_what_the_node_does() {
    let node = Node::start(&[]);
    let text = node.request("GET", "/", &[], b"").text();
    assert!(text.contains(env!("CARGO_PKG_VERSION")), "{text}");
    assert!(text.contains("state: leader\n"), "{text}");
    assert!(text.contains("in memory only"), "{text}");
    let role = br#"{"id":7,"role":"replica","leader":"http://127.0.0.1:1"}"#;
    node.request("POST", "/partition/assign", &[], role);
    let text = node.request("GET", "/", &[], b"").text();
    assert!(
        text.contains("state: 2 partitions: 0 leader, 7 replica\n"),
        "{text}"
    );

    let replica = Node::start(&["--replica-of", "http://127.0.0.1:1"]);
    let text = replica.request("GET", "/", &[], b"").text();
    assert!(text.contains("state: replica, catching up\n"), "{text}");
    let waiting = Node::start(&["--await-assignment"]);
    let text = waiting.request("GET", "/", &[], b"").text();
    assert!(text.contains("state: waiting for a role"), "{text}");
}

/// A Host goes into commands that are to be copied: only a plain one does, and only one under which
/// the commands are answered.
#[test]
fn a_host_is_repeated_only_if_it_is_one() {
    let node = Node::start(&["--allowed-host", "db-0.example"]);
    let mut client = node.connect();
    for host in ["localhost:9001", "db-0.example"] {
        let text = get_as(&mut client, host).text();
        assert!(
            text.contains(&format!("curl http://{host}/kv/greeting")),
            "{text}"
        );
    }
    for host in ["a;id", "$(id)", "a'b", "[::1]:9001", "", "evil.example"] {
        let response = get_as(&mut client, host);
        if response.status == 200 {
            let expected = format!("curl http://{}/kv/greeting", node.address);
            assert!(response.text().contains(&expected), "{}", response.text());
        } else {
            // A broken Host closes the connection.
            assert_eq!(response.status, 400, "{host}");
            client = node.connect();
        }
    }
}

/// A link on a page of another site leads here, and to nothing that is data.
#[test]
fn links_of_other_sites_lead_to_the_page_alone() {
    let node = Node::start(&[]);
    for site in ["Sec-Fetch-Site: cross-site", "Origin: http://evil.example"] {
        assert_eq!(node.request("GET", "/", &[BROWSER, site], b"").status, 200);
        for path in ["/status", "/scan", "/health", "/kv/a"] {
            let response = node.request("GET", path, &[site], b"");
            assert_error(&response, 403, "foreign_origin");
        }
    }
}
