//! Replies that wait for the disk, and all that does not.

use std::time::Duration;

use crate::common::{Folder, Node, assert_error, wait_for};
use crate::damage::{count_numbered, write_numbered};
use crate::system_calls::{Fault, can_inject, checkpoint_version};
use crate::writer::Wire;
use crate::{kill, start, stop, wait_until_ready};

/// Without syncs to wait for, writers are ahead of a disk that cannot follow by a bounded amount,
/// and no more.
#[test]
fn writers_that_outrun_the_disk_are_held_back() {
    if !can_inject() {
        return;
    }
    let folder = Folder::new("outrun");
    // The first write is the header of the log file.
    let mut command = Fault {
        call: "pwritev",
        action: "delay_enter=5000000",
    }
    .command_from(2, &folder);
    command.args(["--fsync", "never"]);
    let mut node = Node::spawn(command);
    wait_until_ready(node.address).expect("ready");
    let value = vec![b'x'; 1 << 20];
    let mut writer = Wire::connect(node.address).expect("connect");
    writer
        .stream
        .set_read_timeout(Some(Duration::from_secs(1)))
        .expect("set");
    let answered = (0..60)
        .take_while(|number| writer.ask("PUT", &format!("/kv/{number}"), &value).is_ok())
        .count();
    assert_eq!(
        answered, 31,
        "what was answered, and the one that is held back, are just over 32 MiB"
    );
    assert_eq!(
        node.request("GET", "/kv/7", &[], b"").body,
        value,
        "reads go on"
    );
    kill(&mut node);
}

/// A node that takes long to read its data says that it lives, how far it is, and that requests
/// must wait.
#[test]
fn loading_is_told_while_it_lasts() {
    if !can_inject() {
        return;
    }
    let folder = Folder::new("slow-load");
    let data = folder.join("data");
    // A checkpoint, which is read in pieces, each of which will take long.
    let node = start(&data, &[]);
    write_numbered(&node, 100);
    // A good part of all there is to read: the log file behind the checkpoint has room for 16 MiB.
    node.request("PUT", "/kv/large", &[], &vec![b'x'; 1 << 20]);
    node.request("POST", "/admin/checkpoint", &[], b"");
    wait_for("the checkpoint", || checkpoint_version(&node) > 0);
    stop(node);
    let fault = Fault {
        call: "pread64",
        action: "delay_enter=400000",
    };
    let mut node = Node::spawn(fault.command_from(1, &folder));
    let ask = |target| node.request("GET", target, &[], b"");
    assert_eq!(ask("/livez").status, 200);
    let readiness = ask("/readyz");
    assert_eq!(readiness.status, 503);
    assert!(
        readiness.text().starts_with("loading: "),
        "{}",
        readiness.text()
    );
    let health = ask("/health");
    assert_eq!(
        (health.status, health.json()["status"].as_str()),
        (503, Some("LOADING"))
    );
    for request in [ask("/get?key=a"), node.request("PUT", "/kv/a", &[], b"1")] {
        assert_error(&request, 503, "loading");
        assert!(request.header("Retry-After").is_some());
    }
    wait_for("some of it to be loaded", || {
        let text = ask("/readyz").text();
        text.starts_with("loading: ") && !text.starts_with("loading: 0 %")
    });
    wait_until_ready(node.address).expect("ready");
    assert_eq!(count_numbered(&node, 100), 100);
    node.signal("TERM");
    assert_eq!(node.wait().code(), Some(0));
    let log = node.rest_of_log();
    assert!(
        log.lines()
            .any(|line| line.contains("loading: ") && line.contains("% of")),
        "{log}"
    );
    // One that is told to stop while it loads does not load to the end first.
    let node = Node::spawn(fault.command_from(1, &folder));
    assert_eq!(node.request("GET", "/readyz", &[], b"").status, 503);
    let log = stop(node);
    assert!(!log.contains(" loaded "), "{log}");
}
