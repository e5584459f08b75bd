//! A service manager is told what the node does, and holds nothing up.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::common::{Folder, Node, PATIENCE, command, let_pass, text, wait_for};

/// A node that a service manager starts: it listens for what the node has to say.
fn managed(folder: &Folder, socket: &str, arguments: &[&str]) -> Node {
    let mut command = command();
    command
        .args([
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            text(&folder.join("data")),
        ])
        .args(arguments);
    command
        .env("NOTIFY_SOCKET", socket)
        .env("WATCHDOG_USEC", "200000");
    Node::spawn(command)
}

/// The next message with this line in it, and all lines before.
#[track_caller]
fn heard(manager: &UnixDatagram, line: &str) -> String {
    let (mut lines, mut buffer) = (String::new(), [0; 4096]);
    manager
        .set_read_timeout(Some(PATIENCE))
        .expect("set a time-out");
    while !lines.lines().any(|heard| heard == line) {
        let len = manager
            .recv(&mut buffer)
            .unwrap_or_else(|error| panic!("no {line}: {error}; only:\n{lines}"));
        lines.push_str(std::str::from_utf8(&buffer[..len]).expect("text"));
    }
    lines
}

/// READY comes when requests are answered, WATCHDOG again and again, and STOPPING before the end,
/// at paths and abstract names.
#[test]
fn a_service_manager_is_told_what_the_node_does() {
    let folder = Folder::new("notify");
    let path = folder.join("socket");
    let name = format!("db-node-notify-{}", std::process::id());
    let by_name = SocketAddr::from_abstract_name(&name).expect("an address");
    for (socket, manager) in [
        (
            text(&path).to_owned(),
            UnixDatagram::bind(&path).expect("bind"),
        ),
        (
            format!("@{name}"),
            UnixDatagram::bind_addr(&by_name).expect("bind"),
        ),
    ] {
        let mut node = managed(&folder, &socket, &[]);
        let start = heard(&manager, "READY=1");
        assert!(
            start.contains(&format!(
                "STATUS=serving on http://{}, data in ",
                node.address
            )),
            "{start}"
        );
        assert_eq!(
            node.request("PUT", "/kv/k", &[], b"v").status / 100,
            2,
            "ready"
        );
        for _ in 0..3 {
            assert!(
                !heard(&manager, "WATCHDOG=1").contains("READY"),
                "once is enough"
            );
        }
        // A request that is not whole yet keeps the node from its end.
        let mut client = node.connect();
        client.send(b"PUT /kv/slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nsl");
        node.settle();
        node.signal("TERM");
        let stop = heard(&manager, "STOPPING=1");
        assert!(stop.contains("STATUS=stopping"), "{stop}");
        heard(&manager, "WATCHDOG=1");
        client.send(b"ow");
        assert_eq!(client.response(false).status, 201);
        drop(client);
        assert_eq!(node.wait().code(), Some(0));
        std::fs::remove_dir_all(folder.join("data")).expect("remove");
    }
}

/// The manager's socket is missing, or full: the node goes on.
#[test]
fn a_service_manager_that_is_gone_or_deaf_holds_nothing_up() {
    let folder = Folder::new("deaf");
    let deaf = UnixDatagram::bind(folder.join("deaf")).expect("bind");
    for socket in [folder.join("nobody"), folder.join("deaf")] {
        let mut node = managed(&folder, text(&socket), &[]);
        wait_for("the data to be loaded", || {
            node.request("GET", "/readyz", &[], b"").status == 200
        });
        // Its queue is full after some of these.
        let filler = UnixDatagram::unbound().expect("a socket");
        filler.set_nonblocking(true).expect("set");
        while filler.send_to(b"x", folder.join("deaf")).is_ok() {}
        let_pass(Duration::from_millis(300));
        node.settle();
        node.signal("TERM");
        assert_eq!(node.wait().code(), Some(0));
    }
    drop(deaf);
}
