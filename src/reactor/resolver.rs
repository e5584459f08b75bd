//! Looks up host names. The system's resolver blocks, so each look-up has a thread of its own; IP
//! addresses need none.
//!
//! Invariant: at most [`LOOKUPS_MAX`] threads run at a time, so that they open few descriptors;
//! other look-ups wait in order. Each partition has at most one look-up.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};

use mio::Waker;

use super::limits::LOOKUPS_MAX;

/// The number of a question, and the addresses.
type Answer = (u64, io::Result<Vec<SocketAddr>>);

/// Look-ups under way, and what each is for.
#[derive(Debug)]
pub(super) struct Resolver<T> {
    lookups: Lookups,
    /// By the numbers of their questions.
    open: Vec<(u64, T)>,
    last_number: u64,
}

/// Look-ups by number, so that the code exists once.
#[derive(Debug)]
struct Lookups {
    /// Answers of threads, for which the loop never waits. Not a channel: its code is several times
    /// as large.
    answers: Arc<Mutex<VecDeque<Answer>>>,
    waker: Arc<Waker>,
    /// Names that wait.
    waiting: VecDeque<(u64, String)>,
    /// Answers that needed no thread.
    known: VecDeque<Answer>,
    /// Names that are being looked up now.
    count: usize,
}

impl<T> Resolver<T> {
    /// The waker wakes the loop when [`next`](Self::next) has something.
    pub(super) fn new(waker: Arc<Waker>) -> Self {
        let lookups = Lookups {
            answers: Arc::default(),
            waker,
            waiting: VecDeque::new(),
            known: VecDeque::new(),
            count: 0,
        };
        Self {
            lookups,
            open: Vec::new(),
            last_number: 0,
        }
    }

    /// Names that are being looked up now.
    pub(super) fn lookup_count(&self) -> usize {
        self.lookups.count
    }

    /// Asks for the addresses of an authority such as `10.0.0.7:9001` or `db-0:9001`.
    pub(super) fn ask(&mut self, authority: &str, of: T) {
        self.last_number += 1;
        self.open.push((self.last_number, of));
        self.lookups.ask(authority, self.last_number);
    }

    /// The next answer, if there is one.
    pub(super) fn next(&mut self) -> Option<(T, io::Result<Vec<SocketAddr>>)> {
        let (number, addresses) = self.lookups.next()?;
        let at = self.open.iter().position(|(open, _)| *open == number)?;
        let (_, of) = self.open.swap_remove(at);
        Some((of, addresses))
    }
}

impl Lookups {
    fn ask(&mut self, authority: &str, number: u64) {
        if let Ok(address) = authority.parse() {
            self.known.push_back((number, Ok(vec![address])));
        } else {
            self.waiting.push_back((number, authority.to_owned()));
            self.look_up();
        }
    }

    /// Begins look-ups while there are few.
    fn look_up(&mut self) {
        while self.count < LOOKUPS_MAX
            && let Some((number, authority)) = self.waiting.pop_front()
        {
            let (answers, waker) = (Arc::clone(&self.answers), Arc::clone(&self.waker));
            let resolve = move || {
                let addresses = authority.to_socket_addrs().map(Iterator::collect);
                let list = answers.lock();
                let mut list = list.unwrap_or_else(PoisonError::into_inner);
                list.push_back((number, addresses));
                drop(list);
                let _ = waker.wake();
            };
            let thread = std::thread::Builder::new()
                .name("resolve".to_owned())
                .stack_size(256 * 1024)
                .spawn(resolve);
            match thread {
                Ok(_) => self.count += 1,
                Err(error) => self.known.push_back((number, Err(error))),
            }
        }
    }

    #[inline(never)]
    fn next(&mut self) -> Option<Answer> {
        self.known.pop_front().or_else(|| {
            if self.count == 0 {
                return None;
            }
            // A thread that adds an answer just now wakes the loop once more.
            let answer = self.answers.try_lock().ok()?.pop_front()?;
            self.count -= 1;
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
            assert!(resolver.lookup_count() <= LOOKUPS_MAX);
        }
        while answered.contains(&0) {
            // Threads answer when they please.
            match resolver.next() {
                Some((number, _)) => answered[number] += 1,
                None => std::thread::yield_now(),
            }
            assert!(resolver.lookup_count() <= LOOKUPS_MAX);
        }
        assert_eq!(answered, [1; 50]);
        assert_eq!(resolver.lookup_count(), 0);
    }
}
