//! The log on standard error: a reader that is gone or does not read, and a file that is full,
//! neither end nor block the node.

use std::fs::OpenOptions;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};

use crate::common::{Client, Node, assert_error, command, wait_for};

/// Lines that are more than a small pipe holds.
const LINE_COUNT: u64 = 200;

/// Has the node log a line for each order that it gets.
fn cause_lines(client: &mut Client) {
    for epoch in 2..2 + LINE_COUNT {
        let order = format!("{{\"id\":0,\"role\":\"leader\",\"epoch\":{epoch}}}");
        let response = client.request("POST", "/partition/assign", &[], order.as_bytes());
        assert_eq!(response.status, 200, "{}", response.text());
    }
    assert_error(
        &client.request("GET", "/kv/none", &[], b""),
        404,
        "key_not_found",
    );
}

#[test]
fn a_log_that_nobody_reads_ends_nothing() {
    let mut node = Node::start(&["--log", "trace"]);
    node.close_stderr();
    cause_lines(&mut node.connect());
    // It has a line to say about this.
    node.signal("TERM");
    assert_eq!(node.wait().code(), Some(0));
}

#[test]
fn lines_that_a_pipe_has_no_room_for_are_dropped() {
    let mut node = Node::start(&["--log", "trace"]);
    node.shrink_stderr();
    cause_lines(&mut node.connect());
    node.signal("TERM");
    assert_eq!(node.wait().code(), Some(0));
    let log = node.rest_of_log();
    let line_count = u64::try_from(log.lines().count()).expect("a number");
    assert!(line_count < LINE_COUNT, "the pipe never filled up: {log}");
    // What is there is whole.
    assert!(
        log.ends_with('\n') && log.lines().all(|line| line.contains("Z ")),
        "{log}"
    );
}

/// Ends the process if the test fails.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_log_on_a_full_disk_ends_nothing() {
    let full = OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .expect("open /dev/full");
    // What the node says of its address is lost: it gets one that nothing else uses.
    let [.., high, low] = std::process::id().to_be_bytes();
    let address: SocketAddr = format!("127.77.{high}.{low}:9001")
        .parse()
        .expect("an address");
    let mut command = command();
    command.args([
        "--listen",
        &address.to_string(),
        "--replication-listen",
        "off",
    ]);
    command.stdout(Stdio::null()).stderr(Stdio::from(full));
    let mut node = KillOnDrop(command.spawn().expect("start the node"));
    wait_for("the node to listen", || TcpStream::connect(address).is_ok());
    cause_lines(&mut Client::to(address));
    let pid = rustix::process::Pid::from_child(&node.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("kill");
    assert_eq!(node.0.wait().expect("wait").code(), Some(0));
}
