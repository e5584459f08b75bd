//! What may ask a node: tokens, hosts, origins.

use std::path::PathBuf;

use crate::common::{Node, assert_error, command};
use crate::{assert_fails, run};

const TOKEN: &str = "correct-horse-battery-staple";

/// A file that goes when this does.
pub(crate) struct TokenFile(PathBuf);

impl TokenFile {
    pub(crate) fn new(name: &str, content: &str) -> Self {
        let path = std::env::temp_dir().join(format!("db-node-{name}-{}", std::process::id()));
        std::fs::write(&path, content).expect("write the token");
        Self(path)
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().expect("a path")
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn web_pages_of_other_sites_are_refused() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    client.request("PUT", "/kv/k", &[], b"v");
    let own = format!("Origin: http://{}", node.address);
    let host = format!("Host: {}", node.address);
    let mut ask = |method: &str, target: &str, headers: &[&str]| {
        // Host is the test's own here, so these are written out.
        let headers = headers.join("\r\n");
        client.send(
            format!("{method} {target} HTTP/1.1\r\n{headers}\r\nContent-Length: 0\r\n\r\n")
                .as_bytes(),
        );
        client.response(method == "HEAD")
    };
    for foreign in [
        "Origin: http://evil.example",
        "Origin: null",
        "Origin: http://127.0.0.1:1",
        "Origin: http://localhost.evil.example",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
    ] {
        for (method, target) in [
            ("GET", "/kv/k"),
            ("POST", "/set?key=k"),
            ("DELETE", "/kv/k"),
            ("GET", "/status"),
            ("GET", "/health"),
            ("POST", "/admin/freeze"),
            ("GET", "/nothing"),
        ] {
            assert_error(
                &ask(method, target, &[&host, foreign]),
                403,
                "foreign_origin",
            );
        }
    }
    assert_eq!(
        ask(
            "GET",
            "/kv/k",
            &[&host, &own, "Sec-Fetch-Site: same-origin"]
        )
        .text(),
        "v"
    );
    assert_eq!(
        ask("GET", "/kv/k", &[&host, "Sec-Fetch-Site: none"]).text(),
        "v"
    );

    for foreign in [
        "evil.example",
        "evil.example:9001",
        "127.0.0.1.evil.example",
        "localhost.evil.example:80",
    ] {
        let foreign = format!("Host: {foreign}");
        assert_error(&ask("GET", "/kv/k", &[&foreign]), 421, "host_not_allowed");
        assert_error(
            &ask("DELETE", "/kv/k", &[&foreign]),
            421,
            "host_not_allowed",
        );
        // A supervisor names the node as it likes.
        for path in ["/health", "/livez", "/readyz", "/leader"] {
            assert_eq!(ask("GET", path, &[&foreign]).status, 200, "{path}");
        }
        assert_eq!(ask("GET", "/replica", &[&foreign]).status, 503);
    }
    // The authority of the target is the host, whatever Host says.
    assert_error(
        &ask("GET", "http://evil.example/kv/k", &[&host]),
        421,
        "host_not_allowed",
    );
    for good in [
        "localhost",
        "LOCALHOST:1",
        "127.0.0.1",
        "[::1]:9001",
        "10.1.2.3:80",
    ] {
        assert_eq!(
            ask("GET", "/kv/k", &[&format!("Host: {good}")]).text(),
            "v",
            "{good}"
        );
    }
}

#[test]
fn hosts_can_be_allowed() {
    let node = Node::start(&[
        "--allowed-host",
        "db.example",
        "--allowed-host",
        "other.example",
    ]);
    for (host, status) in [
        ("db.example", 200),
        ("DB.example:9001", 200),
        ("other.example", 200),
        ("a.db.example", 421),
        ("localhost", 200),
    ] {
        let mut client = node.connect();
        client.send(format!("GET /status HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        assert_eq!(client.response(false).status, status, "{host}");
    }
}

/// What a proxy copies from the browser of a page that is allowed does not keep it out; a page that
/// is not allowed stays out.
#[test]
fn origins_can_be_allowed() {
    let node = Node::start(&[
        "--allowed-origin",
        "https://app.example",
        "--allowed-origin",
        "http://localhost:3000",
    ]);
    let mut client = node.connect();
    let copied = |origin: &str, site: &str| {
        [
            format!("Origin: {origin}"),
            format!("Sec-Fetch-Site: {site}"),
        ]
    };
    for site in ["same-origin", "same-site", "cross-site"] {
        for origin in ["https://app.example", "http://localhost:3000"] {
            let headers = copied(origin, site);
            let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
            let put = client.request("PUT", "/kv/k", &headers, b"v");
            assert!(matches!(put.status, 200 | 201), "{origin} {site}");
        }
        for origin in ["http://app.example", "https://evil.example", "null"] {
            let headers = copied(origin, site);
            let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
            let put = client.request("PUT", "/kv/k", &headers, b"v");
            assert_error(&put, 403, "foreign_origin");
            assert!(put.text().contains("--allowed-origin"), "{}", put.text());
        }
    }
    let config = &node.status()["config"];
    let expected = ["https://app.example", "http://localhost:3000"];
    assert_eq!(config["allowedOrigins"], serde_json::json!(expected));
}

#[test]
fn the_token_is_asked_for() {
    let file = TokenFile::new("token", &format!("{TOKEN}\n"));
    let node = Node::start(&["--token-file", file.path()]);
    let mut client = node.connect();
    let right = format!("Authorization: Bearer {TOKEN}");
    let wrong = [
        String::new(),
        "Authorization: Bearer".to_owned(),
        "Authorization: Bearer ".to_owned(),
        "Authorization: Bearer wrong-horse-battery-staple".to_owned(),
        format!("Authorization: Bearer {}", &TOKEN[..TOKEN.len() - 1]),
        format!("Authorization: Bearer {TOKEN}x"),
        format!("Authorization: Basic {TOKEN}"),
        format!("Authorization: {TOKEN}"),
        format!("X-Authorization: Bearer {TOKEN}"),
    ];
    let asked = [
        ("PUT", "/kv/k"),
        ("GET", "/kv/k"),
        ("POST", "/set?key=k"),
        ("GET", "/get?key=k"),
        ("DELETE", "/delete?key=k"),
        ("GET", "/status"),
        ("POST", "/admin/freeze"),
        ("POST", "/admin/compact"),
        // Not even what there is.
        ("GET", "/nothing"),
    ];
    for (method, target) in asked {
        for header in &wrong {
            let headers: Vec<&str> = [header.as_str()]
                .into_iter()
                .filter(|header| !header.is_empty())
                .collect();
            let response = client.request(method, target, &headers, b"key=k&value=v");
            assert_error(&response, 401, "unauthorized");
            assert!(
                response
                    .header("WWW-Authenticate")
                    .is_some_and(|value| value.starts_with("Bearer"))
            );
            assert!(!response.text().contains(TOKEN));
        }
    }
    assert_eq!(
        client.request("PUT", "/kv/k", &[&right], b"v").json()["version"],
        1,
        "nothing was written before"
    );
    assert_eq!(
        client
            .request("GET", "/kv/k", &[&right.replace("Bearer", "bearer")], b"")
            .text(),
        "v"
    );
    assert_eq!(
        client.request("GET", "/nothing", &[&right], b"").status,
        404
    );
    assert!(
        !client
            .request("GET", "/status", &[&right], b"")
            .text()
            .contains(TOKEN)
    );
    for public in ["/health", "/livez", "/readyz"] {
        assert_eq!(
            client.request("GET", public, &[], b"").status,
            200,
            "{public}"
        );
    }
}

#[test]
fn an_open_node_must_be_meant() {
    let refused = assert_fails(&run(&["--listen", "0.0.0.0:0"]), 2);
    for way_out in ["--token-file", "--allow-open"] {
        assert!(refused.contains(way_out), "{refused}");
    }
    let file = TokenFile::new("open", TOKEN);
    for meant in [&["--allow-open"][..], &["--token-file", file.path()]] {
        let mut command = command();
        command.args(["--listen", "0.0.0.0:0"]).args(meant);
        let mut node = Node::spawn(command);
        node.address.set_ip([127, 0, 0, 1].into());
        assert_eq!(node.request("GET", "/livez", &[], b"").status, 200);
    }
}
