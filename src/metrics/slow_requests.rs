//! Requests that took longer than the threshold of the slow log: how many, and the last few.
//!
//! Invariant: what is kept of a request is bounded and holds nothing of a peer: the name of its
//! route stands for its path, and keys are left out.

use std::collections::VecDeque;

/// Slow requests that are kept.
const KEPT_COUNT: usize = 16;

/// What the time of a request went to; the index into [`SlowRequest::parts_us`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestPart {
    /// Until the turn that executed it.
    Queued,
    /// From the beginning of that turn until it was executed.
    Executed,
    /// Its reply waited for the disk.
    Disk,
    /// Its reply waited for replicas.
    Acks,
    /// Its reply waited for a change of role.
    Role,
    /// Once its reply waited for nothing more.
    Sending,
}

/// Parts of a request's time.
pub const PART_COUNT: usize = 6;

/// A request that was slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowRequest {
    /// Its method.
    pub method: &'static str,
    /// The pattern of its path, such as `/kv/{key}`.
    pub route: &'static str,
    /// Of its answer.
    pub status: u16,
    /// The partition that it is about.
    pub partition: Option<u32>,
    /// When it was answered, in milliseconds since the node started.
    pub at_ms: u64,
    /// From its arrival to its answer, in microseconds.
    pub took_us: u64,
    /// What the time went to, by [`RequestPart`]. Waits go on at the same time.
    pub parts_us: [u64; PART_COUNT],
    /// How many of one connection came and were slow together; this is the last of them.
    pub count: u64,
}

/// Slow requests since the start.
#[derive(Clone, Debug, Default)]
pub struct SlowRequests {
    count: u64,
    recent: VecDeque<SlowRequest>,
}

impl SlowRequests {
    /// Counts a request, and keeps it in the place of the oldest.
    pub fn record(&mut self, request: SlowRequest) {
        self.count += request.count;
        if self.recent.len() == KEPT_COUNT {
            self.recent.pop_front();
        }
        self.recent.push_back(request);
    }

    /// Slow requests since the start.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The last of them, the newest first.
    pub fn recent(&self) -> impl Iterator<Item = &SlowRequest> {
        self.recent.iter().rev()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_the_last_are_kept() {
        let mut slow = SlowRequests::default();
        for number in 0..100 {
            slow.record(SlowRequest {
                method: "GET",
                route: "/kv/{key}",
                status: 200,
                partition: None,
                at_ms: number,
                took_us: 200_000,
                parts_us: [0; PART_COUNT],
                count: 1 + number % 2,
            });
        }
        assert_eq!(slow.count(), 150);
        let kept: Vec<u64> = slow.recent().map(|request| request.at_ms).collect();
        assert_eq!(kept, (84..100).rev().collect::<Vec<u64>>());
        assert_eq!(slow.recent.capacity(), KEPT_COUNT, "memory is bounded");
    }
}
