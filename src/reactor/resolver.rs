//! Looks up host names. The system's resolver blocks, so each look-up has a thread of its own; IP
//! addresses need none.
//!
//! Invariant: at most [`LOOKUPS_MAX`] threads run at a time, so that they open few descriptors;
//! other look-ups wait in order. Each partition has at most one look-up.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use mio::Waker;

use super::limits::LOOKUPS_MAX;

/// What addresses were asked for, and the addresses.
type Answer<T> = (T, io::Result<Vec<SocketAddr>>);

/// Look-ups under way.
#[derive(Debug)]
pub(super) struct Resolver<T> {
    sender: Sender<Answer<T>>,
    receiver: Receiver<Answer<T>>,
    waker: Arc<Waker>,
    /// Names that wait, and what each is for.
    waiting: VecDeque<(String, T)>,
    /// Answers that needed no thread.
    known: VecDeque<Answer<T>>,
    /// Names that are being looked up now.
    pub(super) lookup_count: usize,
}

impl<T: Clone + Send + 'static> Resolver<T> {
    /// The waker wakes the loop when [`next`](Self::next) has something.
    pub(super) fn new(waker: Arc<Waker>) -> Self {
        let (sender, receiver) = channel();
        Self {
            sender,
            receiver,
            waker,
            waiting: VecDeque::new(),
            known: VecDeque::new(),
            lookup_count: 0,
        }
    }

    /// Asks for the addresses of an authority such as `10.0.0.7:9001` or `db-0:9001`.
    pub(super) fn ask(&mut self, authority: &str, of: T) {
        if let Ok(address) = authority.parse() {
            self.known.push_back((of, Ok(vec![address])));
        } else {
            self.waiting.push_back((authority.to_owned(), of));
            self.look_up();
        }
    }

    /// Begins look-ups while there are few.
    fn look_up(&mut self) {
        while self.lookup_count < LOOKUPS_MAX
            && let Some((authority, of)) = self.waiting.pop_front()
        {
            let (sender, waker) = (self.sender.clone(), Arc::clone(&self.waker));
            let asked_for = of.clone();
            let resolve = move || {
                let addresses = authority.to_socket_addrs().map(Iterator::collect);
                let _ = sender.send((of, addresses));
                let _ = waker.wake();
            };
            let thread = std::thread::Builder::new()
                .name("resolve".to_owned())
                .stack_size(256 * 1024)
                .spawn(resolve);
            match thread {
                Ok(_) => self.lookup_count += 1,
                Err(error) => self.known.push_back((asked_for, Err(error))),
            }
        }
    }

    /// The next answer, if there is one.
    pub(super) fn next(&mut self) -> Option<Answer<T>> {
        self.known.pop_front().or_else(|| {
            let answer = self.receiver.try_recv().ok()?;
            self.lookup_count -= 1;
            self.look_up();
            Some(answer)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Many names at once: few threads, and every question is answered once.
    #[test]
    fn few_names_are_looked_up_at_a_time() {
        let poll = mio::Poll::new().expect("a poll");
        let waker = Waker::new(poll.registry(), mio::Token(0)).expect("a waker");
        let mut resolver = Resolver::new(Arc::new(waker));
        let mut answered = [0; 50];
        for number in 0..answered.len() {
            resolver.ask("localhost:1", number);
            assert!(resolver.lookup_count <= LOOKUPS_MAX);
        }
        while answered.contains(&0) {
            // Threads answer when they please; the test ends with the last of them.
            let Ok((number, _)) = resolver.receiver.recv() else {
                break;
            };
            answered[number] += 1;
            resolver.lookup_count -= 1;
            resolver.look_up();
            assert!(resolver.lookup_count <= LOOKUPS_MAX);
        }
        assert_eq!(answered, [1; 50]);
        assert_eq!(resolver.lookup_count, 0);
    }
}
