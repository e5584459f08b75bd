//! Nodes of a cluster as processes, with a real `etcd`: what becomes of them when one fails, and
//! what an operator asks of them. Passed over, and says so, where `etcd` is not installed.
#![allow(
    clippy::disallowed_methods,
    reason = "tests are the outside: they have clocks and sockets of their own"
)]

#[path = "../common/mod.rs"]
mod common;
mod disks;
mod faults;
mod keys;
mod map_polls;
mod moves;
mod operations;
mod proxy;
mod restored;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value as Json, json};

use common::Response;
use common::etcd::Etcd;
use common::member::Member;

const PREFIX: &str = "/db-node/x/";

/// A node of the cluster x.
fn member(etcd: &Etcd, name: &str, more: &[&str]) -> Member {
    let url = etcd.url();
    let arguments = ["--etcd", &url, "--cluster", "x", "--node", name];
    Member::start(&[&arguments[..], &["--lease-ms", "1000"], more].concat())
}

/// Writes a key of the cluster as it is.
fn put(etcd: &Etcd, key: &str, value: &Json) {
    let key = BASE64.encode(format!("{PREFIX}{key}"));
    let value = BASE64.encode(value.to_string());
    etcd.call("/v3/kv/put", &json!({"key": key, "value": value}));
}

/// What etcd has at a key of the cluster.
fn value_of(etcd: &Etcd, key: &str) -> Option<Json> {
    let key = BASE64.encode(format!("{PREFIX}{key}"));
    let answer = etcd.call("/v3/kv/range", &json!({"key": key}));
    let value = answer["kvs"][0]["value"].as_str()?;
    let bytes = BASE64.decode(value).expect("base64");
    Some(serde_json::from_slice(&bytes).expect("JSON"))
}

fn post(member: &Member, path: &str, body: &Json) -> Response {
    member.request("POST", path, &[], body.to_string().as_bytes())
}

#[track_caller]
fn assert_refused(answer: &Response, status: u16, code: &str) {
    let found = answer.json()["code"].clone();
    assert_eq!(
        (answer.status, found),
        (status, json!(code)),
        "{}",
        answer.text()
    );
}
