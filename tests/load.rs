//! The load generator against real nodes: its counts are the node's own, and a server that stands
//! still is seen to. Only with the feature `bench`.
#![cfg(feature = "bench")]
#![allow(
    clippy::disallowed_methods,
    reason = "tests are the outside: they have clocks and sockets of their own"
)]

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use common::{Node, let_pass};
use serde_json::Value as Json;

fn bench(arguments: &[&str]) -> Json {
    let output = Command::new(env!("CARGO_BIN_EXE_db-node-bench"))
        .args(arguments)
        .args(["--json", "-"])
        .output()
        .expect("the load generator");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn requests(node: &Node) -> u64 {
    node.status()["loop"]["requests"]
        .as_u64()
        .expect("a number")
}

#[test]
fn counts_are_those_of_the_node() {
    let node = Node::start(&[]);
    let (address, pid) = (node.address.to_string(), node.pid().to_string());
    let filled = bench(&[
        &address,
        "--fill",
        "--keys",
        "5000",
        "--connections",
        "7",
        "--pipeline",
        "20",
    ]);
    assert_eq!(
        (&filled["answered"], &filled["refused"]),
        (&5000.into(), &0.into()),
        "{filled}"
    );
    assert_eq!(
        node.request("GET", "/digest", &[], b"").json()["keys"],
        5_000
    );
    for protocol in ["raw", "json"] {
        for arguments in [
            vec!["--pipeline", "8"],
            vec!["--rate", "4000"],
            vec!["--order", "zipf:0.9", "--reads", "0.5"],
        ] {
            let before = requests(&node);
            let common = [
                "--protocol",
                protocol,
                "--keys",
                "5000",
                "--requests",
                "2000",
                "--warm-up-seconds",
                "0",
                "--pid",
                &pid,
            ];
            let outcome = bench(&[&[&address[..]], &common[..], &arguments[..]].concat());
            // One is that for the count.
            assert_eq!(requests(&node) - before, 2_000 + 1, "{outcome}");
            assert_eq!(outcome["answered"], 2_000, "{outcome}");
            assert_eq!(
                (&outcome["missing"], &outcome["refused"]),
                (&0.into(), &0.into()),
                "{outcome}"
            );
            assert!(outcome["cpuUsPerRequest"].as_f64() > Some(0.0), "{outcome}");
        }
    }
    let missing = bench(&[
        &address,
        "--keys",
        "10000",
        "--requests",
        "2000",
        "--warm-up-seconds",
        "0",
    ]);
    let share = missing["missing"].as_f64().expect("a number") / 2_000.0;
    assert!(
        (0.4..0.6).contains(&share),
        "half of the keys are there: {missing}"
    );
}

#[test]
fn figures_are_told_by_slices_of_time_and_of_several_processes() {
    let (node, other) = (Node::start(&[]), Node::start(&[]));
    let address = node.address.to_string();
    bench(&[&address, "--fill", "--keys", "100000", "--pipeline", "20"]);
    let run = |pids: &str| {
        let paced = [
            "--rate",
            "2000",
            "--requests",
            "1000",
            "--warm-up-seconds",
            "0",
            "--slice-ms",
            "100",
        ];
        bench(
            &[
                &[&address[..], "--keys", "100000", "--pid", pids],
                &paced[..],
            ]
            .concat(),
        )
    };
    let outcome = run(&node.pid().to_string());
    let series = outcome["series"].as_array().expect("slices");
    let counts: Vec<u64> = series
        .iter()
        .map(|slice| slice["answered"].as_u64().expect("a number"))
        .collect();
    assert_eq!(counts.iter().sum::<u64>(), 1_000, "{counts:?}");
    // Half a second, in slices of a tenth; more if the machine is busy.
    assert!(
        counts.len() >= 5 && counts.iter().all(|count| *count <= 600),
        "{counts:?}"
    );
    let resident = |outcome: &Json| outcome["residentKib"].as_u64().expect("a number");
    let of_both = run(&format!("{},{}", node.pid(), other.pid()));
    assert!(resident(&of_both) > resident(&outcome) + 1_000, "{of_both}");
}

/// In the open loop all that was due while a server stood still has waited, and not just the one
/// request that was on its way.
#[test]
fn a_server_that_stands_still_is_seen_to() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let (mut buffer, mut answered) = (vec![0; 1 << 20], 0);
        let mut text = Vec::new();
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            text.extend_from_slice(&buffer[..count]);
            while let Some(end) = text.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                text.drain(..end + 4);
                answered += 1;
                if answered == 500 {
                    let_pass(Duration::from_millis(400));
                }
                if stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    .is_err()
                {
                    return;
                }
            }
        }
    });
    let common = [
        &address[..],
        "--connections",
        "1",
        "--requests",
        "1000",
        "--warm-up-seconds",
        "0",
    ];
    let outcome = bench(&[&common[..], &["--rate", "1000"]].concat());
    server.join().expect("the server");
    // Of a second the server stood still for 0.4: some 400 requests were due meanwhile, and waited
    // 200 ms in the mean.
    assert_eq!(outcome["answered"], 1_000);
    let mean_us = outcome["latencyUs"]["mean"].as_f64().expect("a number");
    assert!(mean_us > 50_000.0, "a mean of {mean_us} us: {outcome}");
}
