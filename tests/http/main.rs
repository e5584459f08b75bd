//! The key-value API and its HTTP over real sockets: what each request gets, however its bytes are
//! cut, and that a malformed one harms no other.

#![expect(clippy::too_many_lines, reason = "a scenario reads best in one piece")]
#![allow(
    clippy::disallowed_methods,
    reason = "tests are the outside: they have clocks and sockets of their own"
)]

#[path = "../common/mod.rs"]
mod common;
mod conditions;
mod expect_continue;
mod framing;
mod lengths;
mod newcomers;
mod refusals;
mod routes;
mod set_get_delete;
mod status_page;

use common::{Client, Response, assert_error, percent_encoded};

const JSON: &str = "Content-Type: application/json";

const FORM: &str = "Content-Type: application/x-www-form-urlencoded";

const RAW: &str = "Accept: application/octet-stream";

const CHUNKED: &str = "Transfer-Encoding: chunked";

#[track_caller]
fn assert_json(response: &Response, expected: &serde_json::Value) {
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.header("Content-Type"), Some("application/json"));
    assert_eq!(&response.plain_json(), expected);
    let (json, token) = (response.json(), response.token());
    match (expected["version"].as_u64(), expected["deleted"].as_bool()) {
        (Some(_), _) => assert_eq!(token, json["etag"].as_str()),
        // A deletion has a version, too.
        (None, deleted) => assert_eq!(token.is_some(), deleted == Some(true)),
    }
}

#[track_caller]
fn assert_not_found(response: &Response) {
    assert_error(response, 404, "key_not_found");
    assert_eq!(response.json()["error"], "key not found");
}

/// The value of a key as it is stored.
fn stored(client: &mut Client, key: &[u8]) -> Vec<u8> {
    let response = client.request("GET", &format!("/kv/{}", percent_encoded(key)), &[], b"");
    assert_eq!(response.status, 200, "{}", response.text());
    response.body
}
