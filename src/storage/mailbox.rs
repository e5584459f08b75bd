//! Hands values from one thread to another, in order.
//!
//! Invariant: the lock is held to add or to take one value, never for work, so that neither thread
//! holds up the other. The code of a channel of the standard library is several times as large.
//!
//! Not here: what ends the exchange; that is one of the values.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Values that were put in, and not taken out yet.
#[derive(Debug)]
pub(super) struct Mailbox<T> {
    content: Mutex<MailboxContent<T>>,
    was_put: Condvar,
}

#[derive(Debug)]
struct MailboxContent<T> {
    values: VecDeque<T>,
    /// Whether a thread waits: only then is a value worth a system call.
    is_awaited: bool,
}

impl<T> Mailbox<T> {
    pub(super) fn new() -> Self {
        let content = MailboxContent {
            values: VecDeque::new(),
            is_awaited: false,
        };
        Self {
            content: Mutex::new(content),
            was_put: Condvar::new(),
        }
    }

    /// Adds a value behind the others.
    pub(super) fn put(&self, value: T) {
        let mut content = self.content();
        content.values.push_back(value);
        let is_awaited = content.is_awaited;
        drop(content);
        if is_awaited {
            self.was_put.notify_one();
        }
    }

    /// Takes the first value, if there is one.
    pub(super) fn take(&self) -> Option<T> {
        self.content().values.pop_front()
    }

    /// Takes the first value, or waits for it; not longer than `timeout`.
    pub(super) fn wait(&self, timeout: Option<Duration>) -> Option<T> {
        let mut content = self.content();
        content.is_awaited = true;
        let waited =
            self.was_put
                .wait_timeout_while(content, timeout.unwrap_or(Duration::MAX), |content| {
                    content.values.is_empty()
                });
        let (mut content, _) = waited.unwrap_or_else(PoisonError::into_inner);
        content.is_awaited = false;
        content.values.pop_front()
    }

    fn content(&self) -> MutexGuard<'_, MailboxContent<T>> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_out_in_the_order_they_went_in() {
        let mailbox = Mailbox::new();
        assert_eq!(mailbox.take(), None);
        mailbox.put(1);
        mailbox.put(2);
        assert_eq!(mailbox.take(), Some(1));
        assert_eq!(mailbox.wait(None), Some(2));
        assert_eq!(mailbox.wait(Some(Duration::ZERO)), None);
    }

    /// Each value is put in when the one before is taken: most of them end a wait.
    #[test]
    fn a_thread_that_waits_is_woken() {
        let (there, back) = (Mailbox::new(), Mailbox::new());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while let Some(number) = there.wait(None).flatten() {
                    back.put(number);
                }
            });
            for number in 0..1_000 {
                there.put(Some(number));
                assert_eq!(back.wait(None), Some(number));
            }
            there.put(None);
        });
    }
}
