//! Busy clients do not hold up others, and merging keeps up with writes.

use std::collections::VecDeque;
use std::io::{Read, Write};

use crate::common::{Client, Node, request_bytes};

/// The most rounds that another connection had while a request waited.
pub(crate) fn rounds_of_others(node: &Node, request: &[u8]) -> u64 {
    let mut answered = [0_u64; CONNECTIONS];
    // Of requests sent and not answered: how many were sent at once, and what was answered then.
    let mut waiting: [VecDeque<(usize, [u64; CONNECTIONS])>; CONNECTIONS] =
        std::array::from_fn(|_| VecDeque::new());
    let (mut most, mut pipeliners) = (0, Pipeliners::start(node));
    while answered[0] < 30_000 {
        pipeliners.sweep(|index, mut count| {
            let more = count;
            if let Some((_, then)) = waiting[index].front() {
                answered[index] += count as u64;
                most = most.max(
                    answered
                        .iter()
                        .zip(then)
                        .map(|(now, then)| now - then)
                        .max()
                        .unwrap_or(0),
                );
                while let Some((sent, _)) = waiting[index].front_mut().filter(|_| count > 0) {
                    let done = count.min(*sent);
                    (*sent, count) = (*sent - done, count - done);
                    if *sent == 0 {
                        waiting[index].pop_front();
                    }
                }
            }
            waiting[index].push_back((more, answered));
            request.repeat(more)
        });
    }
    most / PIPELINED as u64
}

/// However fast writes come, merging keeps up: a turn carries out no more of them than it pays for.
#[test]
fn merging_keeps_up_with_pipelined_writes() {
    let node = Node::start(&[]);
    let mut layers_max = 0;
    std::thread::scope(|scope| {
        let node = &node;
        let writers: Vec<_> = (0..8)
            .map(|seed| scope.spawn(move || write_pipelined(node, seed)))
            .collect();
        while !writers
            .iter()
            .all(std::thread::ScopedJoinHandle::is_finished)
        {
            let layers = node.status()["partitions"][0]["levels"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            layers_max = layers_max.max(
                layers
                    .iter()
                    .filter_map(|level| level["layers"].as_u64())
                    .sum(),
            );
        }
    });
    assert!(layers_max > 2, "something is merged");
    assert!(layers_max < 16, "{layers_max} layers wait to be merged");
}

fn write_pipelined(node: &Node, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut client = node.connect();
    for _ in 0..250 {
        let put = |_| {
            request_bytes(
                "PUT",
                &format!("/kv/{}", rng.u32(..5_000)),
                &[],
                &[b'v'; 15_000],
            )
        };
        client.send(&(0..PIPELINED).flat_map(put).collect::<Vec<u8>>());
        for _ in 0..PIPELINED {
            assert!(client.response(false).status < 300);
        }
    }
}

const CONNECTIONS: usize = 64;

const PIPELINED: usize = 16;

/// Connections that each have some requests under way, always.
struct Pipeliners {
    clients: Vec<Client>,
    /// The end of what was read: an answer may begin there.
    ends: Vec<Vec<u8>>,
    is_fresh: [bool; CONNECTIONS],
    buffer: Vec<u8>,
}

impl Pipeliners {
    fn start(node: &Node) -> Self {
        let clients: Vec<Client> = (0..CONNECTIONS).map(|_| node.connect()).collect();
        for client in &clients {
            client.stream.set_nonblocking(true).expect("set");
        }
        Self {
            clients,
            ends: vec![Vec::new(); CONNECTIONS],
            is_fresh: [true; CONNECTIONS],
            buffer: vec![0; 64 * 1024],
        }
    }

    /// Reads what there is of each connection once, and sends what is to follow so many answers;
    /// first of all, some requests.
    fn sweep(&mut self, mut next: impl FnMut(usize, usize) -> Vec<u8>) {
        const BEGIN: &[u8] = b"HTTP/1.1 ";
        for (index, (client, end)) in self.clients.iter_mut().zip(&mut self.ends).enumerate() {
            match client.stream.read(&mut self.buffer) {
                Ok(0) => panic!("closed"),
                Ok(count) => end.extend_from_slice(&self.buffer[..count]),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
            }
            let begun = end
                .windows(BEGIN.len())
                .filter(|bytes| *bytes == BEGIN)
                .count();
            end.drain(..end.len().saturating_sub(BEGIN.len() - 1));
            let count = if std::mem::take(&mut self.is_fresh[index]) {
                PIPELINED
            } else {
                begun
            };
            if count > 0 {
                client.stream.write_all(&next(index, count)).expect("room");
            }
        }
    }
}
