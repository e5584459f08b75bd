//! Connections over the limit, that are not read from, or vanish.

use std::time::Duration;

use crate::LARGE_BYTES;
use crate::common::{Client, Node, assert_error, let_pass, request_bytes, wait_for};
use crate::fairness::rounds_of_others;
use crate::large_values::pattern;

#[test]
fn too_many_connections_are_told_so() {
    let node = Node::start(&["--max-connections", "5"]);
    let mut clients: Vec<Client> = (0..5).map(|_| node.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.request("GET", "/livez", &[], b"").status, 200);
    }
    for _ in 0..3 {
        let mut refused = node.connect();
        // Sent before the answer is read: it must not be reset away.
        refused.send(&request_bytes("PUT", "/kv/k", &[], &[b'x'; 10_000]));
        let response = refused.response(false);
        assert_error(&response, 503, "too_many_connections");
        assert_eq!(response.header("Connection"), Some("close"));
        assert!(
            response
                .header("Retry-After")
                .is_some_and(|seconds| seconds.parse::<u32>().is_ok())
        );
        refused.assert_end();
    }
    for client in &mut clients {
        assert_eq!(
            client.request("GET", "/kv/k", &[], b"").status,
            404,
            "those inside are served on"
        );
    }
    clients.pop();
    wait_for("the slot that was freed", || {
        let mut client = node.connect();
        client.send_request("GET", "/livez", &[], b"");
        client.response(false).status == 200
    });
}

#[test]
fn those_turned_away_take_no_slots() {
    let node = Node::start(&["--max-connections", "5"]);
    let mut clients: Vec<Client> = (0..5).map(|_| node.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.request("GET", "/livez", &[], b"").status, 200);
    }
    // They have their answer, and are slow to go.
    let turned_away: Vec<Client> = (0..5)
        .map(|_| {
            let mut client = node.connect();
            assert_error(&client.response(false), 503, "too_many_connections");
            client
        })
        .collect();
    drop(clients.pop());
    clients[0].request("GET", "/livez", &[], b"");
    let mut next = node.connect();
    next.send_request("GET", "/livez", &[], b"");
    let response = next.response(false);
    assert_eq!(response.status, 200, "a slot is free: {}", response.text());
    drop(turned_away);
}

#[test]
fn clients_that_do_not_read_cost_little_and_get_all_in_the_end() {
    const CLIENT_COUNT: usize = 20;
    const REQUEST_COUNT: usize = 5_000;
    const KEY_COUNT: usize = 10;
    let node = Node::start(&[]);
    let values: Vec<Vec<u8>> = (0..KEY_COUNT)
        .map(|index| vec![b'0' + u8::try_from(index).expect("small"); 2_000])
        .collect();
    for (index, value) in values.iter().enumerate() {
        assert_eq!(
            node.request("PUT", &format!("/kv/{index}"), &[], value)
                .status,
            201
        );
    }
    let mut other = node.connect();
    let requests: Vec<u8> = (0..REQUEST_COUNT)
        .flat_map(|index| request_bytes("GET", &format!("/kv/{}", index % KEY_COUNT), &[], b""))
        .collect();
    let before_kib = node.memory_kib("VmRSS");
    let clients: Vec<Client> = (0..CLIENT_COUNT)
        .map(|_| node.connect_with_small_buffer())
        .collect();
    let sending: Vec<_> = clients
        .iter()
        .map(|client| client.send_in_background(requests.clone()))
        .collect();
    // Until the node has done for them all that it can.
    let served = |other: &mut Client| {
        other.request("GET", "/status", &[], b"").json()["loop"]["requests"].as_u64()
    };
    let mut last = None;
    wait_for("the node to stop answering", || {
        let now = served(&mut other);
        let_pass(Duration::from_millis(30));
        let next = served(&mut other);
        let is_still = last == now
            && next == now.map(|count| count + 1)
            && now > Some(10 + CLIENT_COUNT as u64);
        last = next.map(|count| count + 1);
        is_still
    });
    let total = served(&mut other).expect("a number");
    let growth_kib = node.memory_kib("VmRSS").saturating_sub(before_kib);
    eprintln!("{total} requests answered ahead, {growth_kib} KiB more for {CLIENT_COUNT} clients");
    assert!(
        total < (CLIENT_COUNT * REQUEST_COUNT) as u64,
        "nothing was held back: send more"
    );
    assert!(
        growth_kib <= 1024 * CLIENT_COUNT as u64,
        "{growth_kib} KiB for {CLIENT_COUNT} clients"
    );
    assert_eq!(
        other.request("PUT", "/kv/other", &[], b"v").status,
        201,
        "others are served"
    );
    assert_eq!(other.request("GET", "/kv/other", &[], b"").text(), "v");
    std::thread::scope(|scope| {
        for mut client in clients {
            let values = &values;
            scope.spawn(move || {
                for index in 0..REQUEST_COUNT {
                    let response = client.response(false);
                    assert!(
                        response.status == 200 && response.body == values[index % KEY_COUNT],
                        "answer {index}"
                    );
                }
            });
        }
    });
    for thread in sending {
        thread.join().expect("no panic").expect("all is sent");
    }
}

#[test]
fn connections_that_vanish_leave_nothing_behind() {
    let node = Node::start(&[]);
    assert_eq!(
        node.request("PUT", "/kv/k", &[], &pattern(9, LARGE_BYTES))
            .status,
        201
    );
    let open_descriptors = || {
        std::fs::read_dir(format!("/proc/{}/fd", node.pid()))
            .expect("read /proc")
            .count()
    };
    let (descriptors, before_kib) = (open_descriptors(), node.memory_kib("VmRSS"));
    let half = vec![b'h'; 2 << 20];
    for round in 0..100 {
        let mut client = node.connect_with_small_buffer();
        match round % 5 {
            0 => {}
            1 => client.send(b"GET /kv/k HT"),
            2 => client.send_request("GET", ["/kv/k", "/get?key=k"][round % 2], &[], b""),
            3 => client.send_request("PUT", "/kv/new", &["Content-Length: 4000000"], &half),
            _ => {
                client.send_request(
                    "POST",
                    "/set",
                    &["Content-Length: 4000000"],
                    b"{\"key\":\"new\",\"value\":\"half",
                );
            }
        }
        node.settle();
        if round % 2 == 0 {
            // Closing then resets the connection.
            socket2::SockRef::from(&client.stream)
                .set_linger(Some(Duration::ZERO))
                .expect("set linger");
        }
    }
    wait_for("all of them to be noticed", || {
        node.status()["loop"]["connections"] == 1
    });
    wait_for("all descriptors to be closed", || {
        open_descriptors() <= descriptors
    });
    let growth_kib = node.memory_kib("VmRSS").saturating_sub(before_kib);
    assert!(growth_kib <= 8 * 1024, "{growth_kib} KiB stayed");
    assert_eq!(node.request("GET", "/kv/new", &[], b"").status, 404);
    assert_eq!(node.status()["partitions"][0]["lastVersion"], 1);
}

/// Backups that their clients stop reading cost little memory, and there are only so many; the
/// others are served.
#[test]
fn backups_that_are_not_read_cost_little() {
    let node = Node::start(&[]);
    let value = pattern(1, 1 << 20);
    for number in 0..40 {
        assert_eq!(
            node.request("PUT", &format!("/kv/{number}"), &[], &value)
                .status,
            201
        );
    }
    node.settle();
    let before_kib = node.memory_kib("VmRSS");
    let mut readers: Vec<Client> = (0..4).map(|_| node.connect_with_small_buffer()).collect();
    for reader in &mut readers {
        reader.send_request("GET", "/snapshot", &[], b"");
        assert_eq!(reader.response_head().status, 200);
    }
    assert_error(
        &node.request("GET", "/snapshot", &[], b""),
        503,
        "too_many_snapshots",
    );
    assert_eq!(node.status()["partitions"][0]["pinnedSnapshots"], 4);
    assert_eq!(node.request("GET", "/kv/7", &[], b"").body, value);
    let grown_kib = node.memory_kib("VmRSS").saturating_sub(before_kib);
    assert!(
        grown_kib < 8 * 1024,
        "{grown_kib} KiB for four backups of 40 MiB"
    );
    drop(readers);
    wait_for("the snapshots to be let go", || {
        node.status()["partitions"][0]["pinnedSnapshots"] == 0
    });
    assert_eq!(node.request("HEAD", "/snapshot", &[], b"").status, 200);
}

/// Connections that each ask for so much that a turn ends within the requests of one: a connection
/// that is cut off gets on in its turn, and is not passed by those that asked later.
#[test]
fn who_is_cut_off_is_not_passed_by() {
    for (method, body) in [("GET", &b""[..]), ("PUT", &[b'v'; 300])] {
        let request = request_bytes(method, "/kv/key", &[], body);
        let most = rounds_of_others(&Node::start(&[]), &request);
        // Their own, one in which they are cut off, and what comes of looking at one after the
        // other.
        assert!(most <= 4, "others had {most} rounds of {method} meanwhile");
    }
}
