//! Requests for `/cluster/map` that wait for a change: so many, and no more.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::common::etcd::Etcd;
use crate::common::{Client, assert_error, wait_for};
use crate::member;

const POLLS_MAX: usize = 1_024;

#[test]
fn so_many_requests_wait_for_the_map_and_no_more() {
    let Some(etcd) = Etcd::start() else { return };
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).expect("as many descriptors as there may be");
    let node = member(&etcd, "n0", &[]);
    wait_for("a map", || {
        node.get("/cluster/map").json()["revision"].as_u64() > Some(0)
    });
    let target = "/cluster/map?since=9000000000&timeout=300";
    let poll = || {
        let mut client = node.connect();
        client.send_request("GET", target, &[], b"");
        client
    };
    let count = || node.get("/status").json()["loop"]["watchers"].as_u64();
    let waits = |expected: usize| {
        wait_for("all to wait", || count() == u64::try_from(expected).ok());
    };
    let mut clients: Vec<Client> = (0..POLLS_MAX).map(|_| poll()).collect();
    waits(POLLS_MAX);
    for _ in 0..3 {
        let answer = poll().response(false);
        assert_error(&answer, 503, "too_many_polls");
        assert!(answer.header("Retry-After").is_some());
    }
    assert_eq!(node.get("/cluster/map").status, 200);
    // One that has gone makes room for one.
    clients.pop();
    waits(POLLS_MAX - 1);
    clients.push(poll());
    waits(POLLS_MAX);
    assert_error(&poll().response(false), 503, "too_many_polls");
}
