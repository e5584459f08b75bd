//! How often the two ends of a link speak, and how long silence is tolerated.

/// Time between two frames of a link that has nothing else to send.
pub const HEARTBEAT_MS: u64 = 1_000;

/// A peer that was silent for ten heartbeats is gone: its link ends.
pub const SILENCE_MS: u64 = 10_000;

/// A peer that missed two heartbeats counts as not heard, though its link goes on.
pub const UNHEARD_MS: u64 = 2 * HEARTBEAT_MS + HEARTBEAT_MS / 4;
