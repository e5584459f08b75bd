//! Limits, time-outs and large values: what is over is told so and ends, what is not is never cut,
//! and other connections are served meanwhile.
#![allow(
    clippy::disallowed_methods,
    reason = "tests are the outside: they have clocks and sockets of their own"
)]

#[path = "../common/mod.rs"]
mod common;
mod connections;
mod fairness;
mod large_values;
mod timeouts;
mod unwanted_bodies;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::Node;

const LARGE_BYTES: usize = 16 << 20;

const CHUNKED: &str = "Transfer-Encoding: chunked";

/// Says that something is over, also when it ends by a panic: others wait for it.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Serves small requests on another connection while `work` runs; says how long the longest took.
fn while_serving_others<T>(node: &Node, what: &str, work: impl FnOnce() -> T) -> T {
    let is_over = AtomicBool::new(false);
    let mut client = node.connect();
    assert!(client.request("PUT", "/kv/small", &[], b"0").status < 300);
    std::thread::scope(|scope| {
        let served = scope.spawn(|| {
            let (mut count, mut longest) = (0_u64, Duration::ZERO);
            // At least one whole round, however fast the work is.
            while !is_over.load(Ordering::Relaxed) || count == 0 {
                let start = Instant::now();
                let value = count.to_string();
                assert_eq!(
                    client
                        .request("PUT", "/kv/small", &[], value.as_bytes())
                        .status,
                    200
                );
                assert_eq!(client.request("GET", "/kv/small", &[], b"").text(), value);
                longest = longest.max(start.elapsed());
                count += 1;
            }
            (count, longest)
        });
        let set_over = SetOnDrop(&is_over);
        let outcome = work();
        drop(set_over);
        let (count, longest) = served.join().expect("the other connection is served");
        eprintln!("{what}: {count} rounds on another connection, the longest took {longest:?}");
        outcome
    })
}
