//! The client over time: time-outs, late answers, end points in turn, tokens, and the watch.

use crate::config::EtcdUser;

use super::client::{Channel, Client, ConnectionId, Effect};
use super::{Answer, Failure, Outcome, Request};

const PREFIX: &str = "/db-node/x/";

fn client(user: Option<EtcdUser>) -> Client {
    let endpoints = ["h:1", "h:2", "h:3"].map(str::to_owned).to_vec();
    Client::new(endpoints, user, PREFIX.to_owned(), 7)
}

fn user() -> EtcdUser {
    EtcdUser {
        name: "dbn".to_owned(),
        password: "secret".to_owned(),
    }
}

fn range() -> Request {
    Request::Range {
        prefix: PREFIX.to_owned(),
    }
}

fn write() -> Request {
    Request::Write {
        compares: Vec::new(),
        puts: vec![(format!("{PREFIX}a"), b"1".to_vec())],
        deletes: Vec::new(),
    }
}

fn answer(status: u16, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

/// The answer to a range at a revision, with one key that was changed at another.
fn range_answer(revision: u64, changed: u64) -> Vec<u8> {
    answer(
        200,
        &format!(
            "{{\"header\":{{\"revision\":\"{revision}\"}},\"kvs\":[{{\
             \"key\":\"L2RiLW5vZGUveC9h\",\"mod_revision\":\"{changed}\"}}]}}"
        ),
    )
}

fn written(revision: u64) -> Vec<u8> {
    let header = format!("\"header\":{{\"revision\":\"{revision}\"}}");
    answer(200, &format!("{{{header},\"succeeded\":true}}"))
}

fn token_error() -> Vec<u8> {
    answer(
        401,
        "{\"error\":\"etcdserver: invalid auth token\",\"code\":16}",
    )
}

/// The start of a watch's stream.
const STREAM: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

fn line(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\n\r\n", text.len() + 1).into_bytes()
}

fn created() -> Vec<u8> {
    let created = line("{\"result\":{\"created\":true}}");
    [STREAM, &created].concat()
}

fn changed(revision: u64) -> Vec<u8> {
    line(&format!(
        "{{\"result\":{{\"events\":[{{\"kv\":{{\"mod_revision\":\"{revision}\"}}}}]}}}}"
    ))
}

fn id(channel: Channel, number: u64) -> ConnectionId {
    ConnectionId { channel, number }
}

fn requests(number: u64) -> ConnectionId {
    id(Channel::Requests, number)
}

fn watch(number: u64) -> ConnectionId {
    id(Channel::Watch, number)
}

/// All effects that there are, as short texts.
fn effects(client: &mut Client) -> Vec<String> {
    let mut found = Vec::new();
    while let Some(effect) = client.next_effect() {
        let name = |id: ConnectionId| match id.channel {
            Channel::Requests => format!("r{}", id.number),
            Channel::Watch => format!("w{}", id.number),
        };
        found.push(match effect {
            Effect::Connect { id, authority } => format!("connect {} {authority}", name(id)),
            Effect::Send { id, bytes } => {
                let text = String::from_utf8(bytes).expect("ASCII");
                let path = text.split(' ').nth(1).expect("a path").to_owned();
                let token = text
                    .lines()
                    .find_map(|line| line.strip_prefix("Authorization: "));
                let token = token
                    .map(|token| format!(" as {token}"))
                    .unwrap_or_default();
                format!("send {} {path}{token}", name(id))
            }
            Effect::Close { id } => format!("close {}", name(id)),
            Effect::Outcome(Outcome { ticket, result }) => match result {
                Ok(Answer::Range { revision, .. }) => format!("{ticket}: range at {revision}"),
                Ok(Answer::Written { revision }) => format!("{ticket}: written at {revision}"),
                Ok(Answer::Refused { revision, .. }) => format!("{ticket}: refused at {revision}"),
                Err(failure) => format!("{ticket}: {}", failure.kind()),
            },
            Effect::Hint => "hint".to_owned(),
        });
    }
    found
}

/// A client that has ranged at revision 10, and watches from there; its end point.
fn watching(user: Option<EtcdUser>) -> Client {
    let mut client = client(user);
    client.submit(0, range(), 0);
    client.on_connected(requests(1), 0);
    client.on_bytes(requests(1), &range_answer(10, 4), 0);
    client.on_time(0);
    client.on_connected(watch(1), 0);
    client.on_bytes(watch(1), &created(), 0);
    effects(&mut client);
    client
}

#[test]
fn a_connection_serves_many_requests() {
    let mut client = client(None);
    assert!(client.wants_request(0));
    client.submit(5, range(), 0);
    assert!(!client.wants_request(0));
    let endpoint = client.health().endpoint.to_owned();
    assert_eq!(effects(&mut client), [format!("connect r1 {endpoint}")]);
    client.on_connected(requests(1), 10);
    assert_eq!(effects(&mut client), ["send r1 /v3/kv/range"]);
    assert!(!client.health().is_up);
    client.on_bytes(requests(1), &range_answer(10, 4), 20);
    assert_eq!(effects(&mut client), ["5: range at 10"]);
    assert!(client.health().is_up);
    client.submit(6, write(), 30);
    assert_eq!(effects(&mut client), ["send r1 /v3/kv/txn"]);
    client.on_bytes(requests(1), &written(11), 40);
    assert_eq!(effects(&mut client), ["6: written at 11"]);
}

/// The outcome of a request that was given up is unknown, and its answer must not become that of
/// the next one.
#[test]
fn a_late_answer_is_never_delivered() {
    let mut client = client(None);
    client.submit(1, write(), 0);
    client.on_connected(requests(1), 0);
    effects(&mut client);
    let late = written(11);
    client.on_bytes(requests(1), &late[..20], 600);
    assert_eq!(client.wake_at_ms(600), 700);
    client.on_time(699);
    assert!(effects(&mut client).is_empty());
    client.on_time(700);
    assert_eq!(effects(&mut client), ["close r1", "1: timeout"]);
    assert!(!client.wants_request(700), "a pause");
    let retry_at_ms = client.wake_at_ms(700);
    assert!((750..=800).contains(&retry_at_ms), "{retry_at_ms}");
    assert!(client.wants_request(retry_at_ms));
    client.on_bytes(requests(1), &late[20..], retry_at_ms);
    client.submit(2, write(), retry_at_ms);
    client.on_bytes(requests(1), &late, retry_at_ms);
    client.on_connected(requests(1), retry_at_ms);
    client.on_closed(requests(1), "closed", retry_at_ms);
    let endpoint = client.health().endpoint.to_owned();
    assert_eq!(effects(&mut client), [format!("connect r2 {endpoint}")]);
    client.on_connected(requests(2), retry_at_ms);
    client.on_bytes(requests(1), &late, retry_at_ms);
    assert_eq!(effects(&mut client), ["send r2 /v3/kv/txn"]);
    client.on_bytes(requests(2), &written(12), retry_at_ms);
    assert_eq!(effects(&mut client), ["2: written at 12"]);
}

#[test]
fn bytes_that_were_not_asked_for_close_the_connection() {
    let mut client = client(None);
    client.submit(1, write(), 0);
    client.on_connected(requests(1), 0);
    effects(&mut client);
    // Two answers at once: the second must not be that of the next request.
    let answers = [written(11), written(12)].concat();
    client.on_bytes(requests(1), &answers, 0);
    assert_eq!(effects(&mut client), ["close r1", "1: written at 11"]);
    client.submit(2, write(), 0);
    client.on_connected(requests(2), 0);
    client.on_bytes(requests(2), &written(13), 0);
    effects(&mut client);
    client.on_bytes(requests(2), &written(14), 0);
    assert_eq!(effects(&mut client), ["close r2"]);
    assert!(client.wants_request(0), "no failure");
}

#[test]
fn end_points_take_turns() {
    let mut client = client(None);
    let (mut now_ms, mut seen) = (0, Vec::new());
    for ticket in 0..6 {
        client.submit(ticket, write(), now_ms);
        let number = ticket + 1;
        seen.push(client.health().endpoint.to_owned());
        match ticket % 3 {
            0 => client.on_closed(requests(number), "Connection refused", now_ms),
            1 => client.on_time(now_ms + 300),
            _ => {
                client.on_connected(requests(number), now_ms);
                let body = "{\"code\":14,\"message\":\"etcdserver: no leader\"}";
                client.on_bytes(requests(number), &answer(503, body), now_ms);
            }
        }
        let expected = ["lost", "timeout", "error"][usize::try_from(ticket % 3).expect("small")];
        let found = effects(&mut client);
        assert!(
            found.contains(&format!("{ticket}: {expected}")),
            "{found:?}"
        );
        assert!(!client.wants_request(now_ms));
        now_ms = client.wake_at_ms(now_ms);
        assert!(client.wants_request(now_ms));
    }
    assert_eq!(seen[..3], seen[3..]);
    seen.sort();
    assert_eq!(seen, ["h:1", "h:1", "h:2", "h:2", "h:3", "h:3"]);
    assert!(
        client.health().last_error.contains("no leader"),
        "{:?}",
        client.health()
    );
}

#[test]
fn an_idle_connection_may_be_closed() {
    let mut client = watching(None);
    let endpoint = client.health().endpoint.to_owned();
    client.on_closed(requests(1), "closed", 5);
    assert!(effects(&mut client).is_empty());
    client.submit(1, range(), 5);
    assert_eq!(effects(&mut client), [format!("connect r2 {endpoint}")]);
}

#[test]
fn an_answer_may_be_the_last_of_its_connection() {
    let mut client = client(None);
    client.submit(1, write(), 0);
    client.on_connected(requests(1), 0);
    effects(&mut client);
    let last = String::from_utf8(written(11)).expect("ASCII");
    let last = last.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    client.on_bytes(requests(1), last.as_bytes(), 0);
    assert_eq!(effects(&mut client), ["close r1", "1: written at 11"]);
}

#[test]
fn a_token_is_asked_for_first_and_again_once() {
    let mut client = client(Some(user()));
    client.submit(1, range(), 0);
    client.on_connected(requests(1), 0);
    assert_eq!(effects(&mut client)[1..], ["send r1 /v3/auth/authenticate"]);
    client.on_bytes(requests(1), &answer(200, "{\"token\":\"ivz.12\"}"), 0);
    assert_eq!(effects(&mut client), ["send r1 /v3/kv/range as ivz.12"]);
    client.on_bytes(requests(1), &range_answer(10, 4), 0);
    client.on_time(0);
    client.on_connected(watch(1), 0);
    let found = effects(&mut client);
    assert_eq!(found[0], "1: range at 10");
    assert_eq!(found[2], "send w1 /v3/watch as ivz.12");
    // The token has expired.
    client.submit(2, write(), 0);
    client.on_bytes(requests(1), &token_error(), 0);
    client.on_bytes(requests(1), &answer(200, "{\"token\":\"abc.3\"}"), 0);
    client.on_bytes(requests(1), &written(11), 0);
    assert_eq!(
        effects(&mut client),
        [
            "send r1 /v3/kv/txn as ivz.12",
            "send r1 /v3/auth/authenticate",
            "send r1 /v3/kv/txn as abc.3",
            "2: written at 11"
        ]
    );
    // The new one is refused, too: that is a failure.
    client.submit(3, write(), 0);
    client.on_bytes(requests(1), &token_error(), 0);
    client.on_bytes(requests(1), &answer(200, "{\"token\":\"abc.4\"}"), 0);
    client.on_bytes(requests(1), &token_error(), 0);
    assert_eq!(effects(&mut client)[3..], ["close r1", "3: error"]);
}

#[test]
fn a_password_may_be_wrong_or_not_needed() {
    let mut client = client(Some(user()));
    client.submit(1, range(), 0);
    client.on_connected(requests(1), 0);
    let wrong = "{\"error\":\"etcdserver: authentication failed, invalid user ID or password\",\
                 \"code\":3}";
    client.on_bytes(requests(1), &answer(400, wrong), 0);
    assert_eq!(effects(&mut client)[2..], ["close r1", "1: error"]);
    client.submit(2, range(), 0);
    client.on_connected(requests(2), 0);
    let disabled = "{\"error\":\"etcdserver: authentication is not enabled\",\"code\":9}";
    client.on_bytes(requests(2), &answer(412, disabled), 0);
    client.on_bytes(requests(2), &range_answer(10, 4), 0);
    assert_eq!(
        effects(&mut client)[2..],
        ["send r2 /v3/kv/range", "2: range at 10"]
    );
    // It is not asked for again, until etcd wants one.
    client.submit(3, range(), 0);
    let empty = "{\"error\":\"etcdserver: user name is empty\",\"code\":3}";
    client.on_bytes(requests(2), &answer(400, empty), 0);
    assert_eq!(
        effects(&mut client),
        ["send r2 /v3/kv/range", "send r2 /v3/auth/authenticate"]
    );
}

#[test]
fn a_watch_without_a_valid_token_gets_a_new_one() {
    let mut client = client(Some(user()));
    client.submit(1, range(), 0);
    client.on_connected(requests(1), 0);
    client.on_bytes(requests(1), &answer(200, "{\"token\":\"ivz.12\"}"), 0);
    client.on_bytes(requests(1), &range_answer(10, 4), 0);
    client.on_time(0);
    client.on_connected(watch(1), 0);
    effects(&mut client);
    let reason = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token";
    let canceled = format!("{{\"result\":{{\"canceled\":true,\"cancel_reason\":\"{reason}\"}}}}");
    client.on_bytes(watch(1), &[STREAM, &line(&canceled)].concat(), 0);
    assert_eq!(effects(&mut client), ["close w1", "hint"]);
    assert_eq!(client.wake_at_ms(0), u64::MAX, "a range comes first");
    client.submit(2, range(), 0);
    assert_eq!(effects(&mut client), ["send r1 /v3/auth/authenticate"]);
}

#[test]
fn the_watch_goes_on_behind_the_next_range() {
    let mut client = watching(None);
    assert_eq!(client.wake_at_ms(0), u64::MAX);
    client.on_bytes(watch(1), &changed(12), 50);
    client.on_bytes(watch(1), &changed(13), 50);
    assert_eq!(effects(&mut client), ["hint", "hint"]);
    client.on_closed(watch(1), "closed", 60);
    assert_eq!(effects(&mut client), ["hint"]);
    client.on_time(10_000);
    assert!(effects(&mut client).is_empty(), "a range comes first");
    client.submit(1, range(), 10_000);
    client.on_bytes(requests(1), &range_answer(20, 13), 10_000);
    client.on_time(10_000);
    let found = effects(&mut client);
    assert!(found[2].starts_with("connect w2 h:"), "{found:?}");
    client.on_connected(watch(2), 10_000);
    let Some(Effect::Send { bytes, .. }) = client.next_effect() else {
        panic!("no request");
    };
    let text = String::from_utf8(bytes).expect("ASCII");
    assert!(text.contains("\"start_revision\":\"21\""), "{text}");
    // It must begin in time.
    client.on_bytes(watch(2), STREAM, 10_100);
    assert_eq!(client.wake_at_ms(10_100), 10_700);
    client.on_time(10_700);
    assert_eq!(effects(&mut client), ["close w2", "hint"]);
}

#[test]
fn a_range_of_less_begins_no_watch() {
    let mut client = client(None);
    let part = Request::Range {
        prefix: format!("{PREFIX}a"),
    };
    client.submit(1, part, 0);
    client.on_connected(requests(1), 0);
    client.on_bytes(requests(1), &range_answer(10, 4), 0);
    client.on_time(0);
    assert_eq!(effects(&mut client)[2..], ["1: range at 10"]);
}

/// Changes that ranges show and the watch does not: it is given up.
#[test]
fn a_silent_watch_is_given_up() {
    let mut client = watching(None);
    let range_at = |client: &mut Client, changed_at, now_ms| {
        client.submit(1, range(), now_ms);
        client.on_bytes(requests(1), &range_answer(30, changed_at), now_ms);
        client.on_time(now_ms);
        assert_eq!(effects(client)[1..], ["1: range at 30"]);
    };
    range_at(&mut client, 10, 100);
    assert_eq!(client.wake_at_ms(100), u64::MAX, "nothing new");
    range_at(&mut client, 11, 200);
    assert_eq!(client.wake_at_ms(200), 900);
    client.on_bytes(watch(1), &changed(11), 300);
    assert_eq!(client.wake_at_ms(300), u64::MAX, "a little late");
    assert_eq!(effects(&mut client), ["hint"]);
    range_at(&mut client, 12, 1_000);
    range_at(&mut client, 12, 1_500);
    client.on_time(1_700);
    assert_eq!(effects(&mut client), ["close w1", "hint"]);
}

/// A watch that fails at once is tried less and less often; one that has worked, soon.
#[test]
fn watches_that_fail_wait_longer() {
    let mut client = watching(None);
    assert_eq!(client.health().last_error, "");
    client.on_closed(watch(1), "closed", 100_000);
    assert!(client.health().is_up);
    let told = client.health().last_error.to_owned();
    assert!(told.starts_with("the watch of"), "{told}");
    let mut now_ms = 100_000;
    let mut pauses = Vec::new();
    for number in 2..10 {
        client.submit(1, range(), now_ms);
        client.on_bytes(requests(1), &range_answer(30, 4), now_ms);
        let at_ms = client.wake_at_ms(now_ms);
        pauses.push(at_ms - now_ms);
        now_ms = at_ms;
        client.on_time(now_ms);
        client.on_connected(watch(number), now_ms);
        client.on_bytes(watch(number), &created(), now_ms);
        assert_eq!(client.health().last_error, "");
        client.on_closed(watch(number), "closed", now_ms);
        effects(&mut client);
    }
    assert!(pauses[0] <= 100, "it had lasted: {pauses:?}");
    assert!(pauses.iter().all(|pause| *pause <= 2_000), "{pauses:?}");
    assert!(
        pauses[6..].iter().all(|pause| *pause >= 1_000),
        "{pauses:?}"
    );
}

/// Anything at any time: each request has one outcome, and no event panics.
#[test]
fn any_order_of_events_gives_one_outcome_each() {
    for seed in 0..2_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut client = client(random.bool().then(user));
        let (mut now_ms, mut ticket, mut is_pending) = (0, 0, false);
        let mut known = vec![requests(1), watch(1)];
        for _ in 0..200 {
            now_ms += random.u64(..200);
            if client.wants_request(now_ms) {
                assert!(!is_pending, "seed {seed}");
                ticket += 1;
                let request = if random.bool() { range() } else { write() };
                client.submit(ticket, request, now_ms);
                is_pending = true;
            }
            let on = known[random.usize(..known.len())];
            let bytes = match random.u8(..6) {
                0 => range_answer(now_ms + 1, 4),
                1 => written(5),
                2 => token_error(),
                3 => answer(200, "{\"token\":\"ivz.12\"}"),
                4 => created(),
                _ => changed(random.u64(..)),
            };
            match random.u8(..8) {
                0 => client.on_closed(on, "closed", now_ms),
                1..=3 => client.on_connected(on, now_ms),
                _ => client.on_bytes(on, &bytes[..random.usize(..=bytes.len())], now_ms),
            }
            client.on_time(now_ms);
            while let Some(effect) = client.next_effect() {
                match effect {
                    Effect::Connect { id, .. } => known.push(id),
                    Effect::Outcome(outcome) => {
                        assert!(is_pending && outcome.ticket == ticket, "seed {seed}");
                        is_pending = false;
                        if let Err(Failure::Malformed(problem)) = outcome.result {
                            assert!(!problem.is_empty());
                        }
                    }
                    _ => {}
                }
            }
            assert!(
                client.wake_at_ms(now_ms) > now_ms,
                "seed {seed}: a busy loop"
            );
        }
    }
}
