//! Peers that break the protocol, are silent, or lie, do no harm.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use db_node::lsm::LogPosition;
use db_node::replication::frame::{
    Ack, Continue, DATA_MAX_BYTES, Frame, FrameReader, Heartbeat, Hello, Intent, PROTOCOL_MIN,
    PROTOCOL_VERSION, PeerState, RefusalCode, RefusalFrame, SnapshotStart,
};
use db_node::storage::{CopyId, HistoryId, Lineage};
use serde_json::json;

use crate::common::member::{Member, assert_follows};
use crate::common::{Folder, PATIENCE, text, wait_for};

const TOKEN: &str = "correct-horse-battery-staple";

/// What a peer sends that wants to be fed.
pub(crate) fn hello(token: &str) -> Hello<'_> {
    Hello {
        protocol_version: PROTOCOL_MIN,
        partition: 0,
        copy: CopyId([7; 16]),
        epoch: 0,
        history: HistoryId([0; 16]),
        position: LogPosition::default(),
        token: token.as_bytes(),
    }
}

/// Where a node without data says that it stands.
pub(crate) fn state(intent: Intent, epoch: u64) -> PeerState {
    PeerState {
        intent,
        epoch,
        ordered_epoch: epoch,
        data_epoch: epoch,
        data_ordered_epoch: epoch,
        last_version: 0,
        lineage: Lineage::new(HistoryId([0; 16])),
        address: String::new(),
    }
}

pub(crate) fn encoded(frames: &[Frame<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for frame in frames {
        frame.encode(&mut bytes);
    }
    bytes
}

/// A connection to a node's replication socket.
pub(crate) fn dial(node: &Member) -> TcpStream {
    let port = node.get("/health").json()["replicationPort"]
        .as_u64()
        .and_then(|port| u16::try_from(port).ok());
    let stream = TcpStream::connect((node.address.ip(), port.expect("a port"))).expect("connect");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("set a time-out");
    stream
}

/// Everything that comes until the connection ends, however that is.
pub(crate) fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    match stream.read_to_end(&mut received) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("it is not closed"),
        _ => received,
    }
}

/// Waits until a node has said why it has ended a connection.
#[track_caller]
pub(crate) fn assert_ended(node: &Member, stream: &TcpStream, reason: &str) {
    let address = stream.local_addr().expect("an address");
    node.log
        .assert_has(&format!("replication with {address}: {reason}"));
}

#[test]
fn hostile_replicas_are_turned_away() {
    let folder = Folder::new("hostile");
    std::fs::write(folder.join("token"), TOKEN).expect("write the token");
    let token_file = folder.join("token");
    let leader = Member::start(&["--token-file", text(&token_file)]);
    let bearer = format!("Authorization: Bearer {TOKEN}");
    assert_eq!(leader.put("k", &[&bearer], "v").status, 201);
    let status = leader.request("GET", "/status", &[&bearer], b"").json();
    let history = status["partitions"][0]["historyId"]
        .as_str()
        .and_then(HistoryId::parse)
        .expect("an id");
    let good = hello(TOKEN);
    let of = |hello: Hello<'_>| encoded(&[Frame::Hello(hello)]);
    let head = |len: u32| [&len.to_le_bytes()[..], &[1, 0, 0, 0, 0, 0, 0, 0]].concat();
    let damaged = |at: usize| {
        let mut bytes = of(good);
        bytes[at] ^= 1;
        bytes
    };
    let future = LogPosition {
        version: 1_000_000,
        checksum: 1,
    };
    let ack = Ack {
        applied_version: u64::MAX,
        durable_version: u64::MAX,
    };
    let http_reason = format!(
        "an HTTP request came: this is the replication port; HTTP is on port {}",
        leader.address.port()
    );
    for (bytes, reason) in [
        (
            vec![b'x'; 5_000],
            "the peer sent a frame with an impossible head",
        ),
        (
            b"GET /kv/k HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
            &*http_reason,
        ),
        (
            head(u32::MAX),
            "the peer sent a frame with an impossible head",
        ),
        (
            head(100_000),
            "the peer sent a frame with an impossible head",
        ),
        (
            damaged(20),
            "the peer sent a frame whose checksum does not hold",
        ),
        (
            damaged(4),
            "the peer sent a frame whose checksum does not hold",
        ),
        (encoded(&[Frame::Ack(ack)]), "a stranger did not say hello"),
        (
            encoded(&[Frame::Records(b"x")]),
            "a stranger did not say hello",
        ),
        (
            of(hello("")),
            "a replica is turned away, and told: the token is missing or wrong",
        ),
        (
            of(hello("wrong-horse-battery-staple")),
            "a replica is turned away, and told: the token is missing or wrong",
        ),
        (
            of(hello(&TOKEN[1..])),
            "a replica is turned away, and told: the token is missing or wrong",
        ),
        // The token comes first: no stranger ends its time as leader.
        (
            of(Hello {
                epoch: u64::MAX,
                ..hello("wrong")
            }),
            "a replica is turned away, and told: the token is missing or wrong",
        ),
        (
            of(Hello {
                protocol_version: 0,
                ..good
            }),
            "a replica is turned away, and told: that node speaks protocol 1 to 3",
        ),
        // A newer protocol: more is to follow the hello.
        (
            encoded(&[
                Frame::Hello(Hello {
                    protocol_version: u16::MAX,
                    ..good
                }),
                Frame::Ack(ack),
            ]),
            "a stranger did not say hello",
        ),
        (
            encoded(&[
                Frame::Hello(Hello {
                    protocol_version: PROTOCOL_VERSION,
                    ..good
                }),
                Frame::PeerState(state(Intent::Follow, 7)),
            ]),
            "a node contradicts its own hello",
        ),
        (
            encoded(&[
                Frame::Hello(Hello {
                    protocol_version: PROTOCOL_VERSION,
                    ..good
                }),
                Frame::PeerState(state(Intent::Follow, 0)),
                Frame::PeerState(state(Intent::Grant, 0)),
            ]),
            "the peer told its state out of its turn",
        ),
        (
            of(Hello {
                epoch: u64::MAX,
                ..good
            }),
            "a replica is turned away, and told: epoch 18446744073709551615 is not believed",
        ),
        (
            of(Hello {
                partition: 3,
                ..good
            }),
            "a replica is turned away, and told: partition 3 is not on that node",
        ),
        (
            of(Hello {
                history,
                position: future,
                ..good
            }),
            "a replica is turned away, and told: this replica is at version 1000000",
        ),
        (
            of(Hello {
                history,
                position: LogPosition {
                    version: 1,
                    checksum: 1,
                },
                ..good
            }),
            "a replica is turned away, and told: this replica has another record",
        ),
        (
            encoded(&[Frame::Hello(good), Frame::Hello(good)]),
            "the replica sent what only a leader sends",
        ),
        (
            encoded(&[Frame::Hello(good), Frame::Records(b"x")]),
            "the replica sent what only a leader sends",
        ),
        (
            encoded(&[Frame::Hello(good), Frame::Ack(ack)]),
            "the replica confirms what it cannot have",
        ),
    ] {
        let start = Instant::now();
        let mut stream = dial(&leader);
        stream.write_all(&bytes).expect("send");
        let received = read_all(&mut stream);
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "{reason}: {:?}",
            start.elapsed()
        );
        assert_ended(&leader, &stream, reason);
        if reason.contains("is turned away") {
            let mut input = &received[..];
            let mut reader = FrameReader::new(DATA_MAX_BYTES);
            let refusal = reader.next(&mut input);
            assert!(matches!(
                refusal,
                Ok(Some(Frame::Refusal(refusal))) if reason.contains(&refusal.text[..20])
            ));
        }
        assert_eq!(leader.request("GET", "/kv/k", &[&bearer], b"").text(), "v");
    }
    assert_eq!(leader.put("k", &[&bearer], "w").status, 200, "it leads");
    assert!(
        !leader.log.text().contains(&TOKEN[1..]),
        "the token is in the log"
    );
    let replica = Member::start(&["--replica-of", &leader.url()]);
    let refused = "the leader refuses this node's token: give both nodes the same --token-file";
    wait_for("a refused token to be the reason", || {
        let ready = replica.request("GET", "/readyz", &[], b"");
        ready.status == 503 && ready.text().contains(refused)
    });
    assert!(replica.log.text().contains(refused));
    let replica = Member::start(&[
        "--replica-of",
        &leader.url(),
        "--token-file",
        text(&token_file),
    ]);
    wait_for("a replica with the token", || {
        replica.request("GET", "/kv/k", &[&bearer], b"").text() == "w"
    });
}

/// Takes as long as a node listens to silence.
#[test]
fn silent_peers_are_let_go() {
    let leader = Member::start(&[]);
    leader.fill(0..100, 100);
    let before_kib = leader.memory_kib("VmRSS");
    let greeting = encoded(&[Frame::Hello(hello(""))]);
    let no_hello = "a stranger did not say hello in time";
    let peers = [
        (&greeting[..0], 2, no_hello),
        (&greeting[..7], 2, no_hello),
        (&greeting[..40], 2, no_hello),
        (&greeting[..], 10, "the replica was silent for 10000 ms"),
    ];
    let start = Instant::now();
    let mut streams = peers.map(|(bytes, _, _)| {
        let mut stream = dial(&leader);
        stream.write_all(bytes).expect("send");
        stream
    });
    // One that does not read either.
    for _ in 0..8 {
        leader.fill(0..2, 1 << 20);
    }
    for (stream, (_, seconds, reason)) in streams.iter_mut().zip(peers) {
        read_all(stream);
        assert!(
            (seconds - 1..seconds + 5).contains(&start.elapsed().as_secs()),
            "{reason}: {:?}",
            start.elapsed()
        );
        assert_ended(&leader, stream, reason);
    }
    assert_eq!(leader.partition()["replicas"], json!([]));
    let grown_kib = leader.memory_kib("VmRSS").saturating_sub(before_kib);
    assert!(grown_kib < 40 * 1024, "{grown_kib} KiB more");
}

/// A leader that is none: it tells its port, and answers every hello in the same way. Returns its
/// address.
fn false_leader(answer: Vec<u8>, says_more: bool) -> String {
    let http = TcpListener::bind("127.0.0.1:0").expect("listen");
    let for_replicas = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = format!("http://{}", http.local_addr().expect("an address"));
    let port = for_replicas.local_addr().expect("an address").port();
    // Both end with the test; connections may break at any time.
    thread::spawn(move || {
        for mut stream in http.incoming().flatten() {
            let body = format!("{{\"replicationPort\":{port}}}");
            let _ = stream.read(&mut [0; 4096]);
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
        }
    });
    thread::spawn(move || {
        for mut stream in for_replicas.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&answer);
            if says_more {
                let _ = stream.read_to_end(&mut Vec::new());
            }
        }
    });
    address
}

#[test]
fn a_false_leader_does_no_harm() {
    let leader = Member::start(&[]);
    leader.fill(0..50, 100);
    leader.lead(1);
    let replica = Member::start(&["--await-assignment"]);
    replica.follow(&leader, 1);
    assert_follows(&replica, &leader);
    let digest = replica.digest();
    let before_kib = replica.memory_kib("VmRSS");
    let own = replica.partition()["historyId"]
        .as_str()
        .and_then(HistoryId::parse)
        .expect("an id");
    let ours = |epoch: u64| {
        Frame::Continue(Continue {
            epoch,
            last_version: 50,
            lineage: Lineage::new(own),
        })
    };
    let theirs = Lineage::new(HistoryId([8; 16])).begin(HistoryId([9; 16]), 60);
    // A controller named epoch 9 for its data, so it says.
    let ordered = Frame::PeerState(PeerState {
        last_version: 60,
        lineage: theirs.clone(),
        ..state(Intent::Report, 9)
    });
    let other = Frame::Continue(Continue {
        epoch: 1,
        last_version: 90,
        lineage: theirs.clone(),
    });
    let snapshot = |epoch: u64, version: u64| {
        Frame::SnapshotStart(SnapshotStart {
            epoch,
            version,
            about_bytes: u64::MAX,
            lineage: theirs.clone(),
        })
    };
    let far = Frame::Heartbeat(Heartbeat {
        last_version: u64::MAX,
        time_ms: u64::MAX,
    });
    let evil = Frame::Refusal(RefusalFrame {
        code: RefusalCode::Busy,
        text: "go\u{1b}[31m\r\naway",
    });
    let (noise, zeros) = (vec![0xa5; DATA_MAX_BYTES], vec![0; DATA_MAX_BYTES]);
    for (answer, reason) in [
        (
            noise.clone(),
            "the peer sent a frame with an impossible head",
        ),
        (
            encoded(&[Frame::Records(b"x")]),
            "the leader sent a frame out of its turn",
        ),
        (
            encoded(&[Frame::Hello(hello(""))]),
            "the leader sent a frame out of its turn",
        ),
        (
            encoded(&[ours(1), ours(1)]),
            "the leader sent a frame out of its turn",
        ),
        (
            encoded(&[ours(0)]),
            "the leader is of epoch 0, and epoch 1 has begun: assign it anew",
        ),
        (
            encoded(&[other]),
            "the leader goes on from what this node does not have",
        ),
        (
            encoded(&[ours(1), far, Frame::Records(&zeros)]),
            "the log does not continue what is here",
        ),
        (
            encoded(&[ours(1), Frame::Records(&noise)]),
            "the log does not continue what is here",
        ),
        (encoded(&[snapshot(1, 60)]), "this replica holds version 50"),
        (
            // No controller named the epoch.
            encoded(&[snapshot(9, 60)]),
            "this replica holds version 50",
        ),
        (
            encoded(&[snapshot(9, 0)]),
            "the leader began empty and this replica holds version 50",
        ),
        (
            encoded(&[
                ordered.clone(),
                snapshot(9, 60),
                Frame::SnapshotData(&noise),
            ]),
            "the snapshot is damaged",
        ),
        (
            encoded(&[
                ordered.clone(),
                snapshot(9, 60),
                Frame::SnapshotData(&zeros),
            ]),
            "the snapshot is damaged",
        ),
        (
            encoded(&[ordered.clone(), snapshot(9, 60), Frame::Records(&noise)]),
            "the leader sent a frame out of its turn",
        ),
        (encoded(&[evil]), "the leader refuses: go [31m  away"),
    ] {
        let address = false_leader(answer, true);
        let response =
            replica.assign(&json!({"id": 0, "role": "replica", "leader": address, "epoch": 1}));
        assert_eq!(response.status, 200, "{}", response.text());
        replica
            .log
            .assert_has(&format!("replication with {address}: {reason}"));
        assert_eq!(replica.digest(), digest, "{reason}");
        assert_eq!(replica.partition()["epoch"], 1, "{reason}");
    }
    // One that goes away in the middle of a snapshot.
    let address = false_leader(encoded(&[ordered, snapshot(9, 60)]), false);
    assert_eq!(
        replica
            .assign(&json!({"id": 0, "role": "replica", "leader": address, "epoch": 1}))
            .status,
        200
    );
    replica
        .log
        .assert_has(&format!("replication with {address}: the "));
    assert_eq!(replica.get("/kv/key-7").status, 200);
    assert_eq!(
        replica.get("/readyz").status,
        503,
        "of its data only a part may be what the leader has"
    );
    let grown_kib = replica.memory_kib("VmRSS").saturating_sub(before_kib);
    assert!(grown_kib < 16 * 1024, "{grown_kib} KiB more");
    replica.follow(&leader, 1);
    leader.fill(0..10, 50);
    assert_follows(&replica, &leader);
    assert_eq!(replica.partition()["pinnedSnapshots"], 0);
}
