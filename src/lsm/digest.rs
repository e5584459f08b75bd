//! A digest of all content at one version, for comparing nodes: equal content has an equal digest,
//! whatever layers it lies in.
//!
//! SipHash-2-4 with 128 bits and a fixed key, over the live entries in the order of their keys,
//! each as: length of the key (2 bytes), key, version (8), expiry in Unix ms (8; 0: none), length
//! of the value (8), value; all integers little-endian. It finds differences that happen by
//! accident, not forgeries.
//!
//! Invariant: a step does bounded work, however many entries there are and however large a value
//! is.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher24};

use crate::lsm::log::record::{Blob, Value};
use crate::lsm::snapshot::{Scan, ScanState, Snapshot};
use crate::lsm::work;

/// The result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    /// The version that the content is of.
    pub version: u64,
    /// Live keys.
    pub key_count: u64,
    /// The digest.
    pub digest: u128,
}

/// Computes a digest, a bounded piece at a time.
#[derive(Debug)]
pub struct Digester {
    version: u64,
    scan: Scan,
    hasher: SipHasher24,
    key_count: u64,
    /// A large value and how much of it is digested.
    large: Option<(Blob, usize)>,
}

impl Digester {
    /// The digest of a snapshot.
    pub fn new(snapshot: Snapshot) -> Self {
        let (version, scan) = (snapshot.version(), snapshot.into_scan(&[]));
        Self {
            version,
            scan,
            hasher: SipHasher24::new(),
            key_count: 0,
            large: None,
        }
    }

    /// Does at most about `budget` units of work; returns the digest at the end.
    pub fn step(&mut self, budget: usize) -> Option<Digest> {
        let mut left = budget.max(1);
        while left > 0 {
            if let Some((blob, digested)) = &mut self.large {
                let end = blob.len().min(*digested + left);
                self.hasher.write(&blob[*digested..end]);
                left -= end - *digested;
                *digested = end;
                if end == blob.len() {
                    self.large = None;
                }
                continue;
            }
            let (state, spent) = self.scan.step(left);
            left = left.saturating_sub(spent);
            match state {
                ScanState::Searching => {}
                ScanState::Found => left = left.saturating_sub(self.add_entry()),
                ScanState::End => {
                    let digest = self.hasher.finish128().as_u128();
                    return Some(Digest {
                        version: self.version,
                        key_count: self.key_count,
                        digest,
                    });
                }
            }
        }
        None
    }

    /// Adds the entry that the scan has found; returns the work.
    fn add_entry(&mut self) -> usize {
        let Some(entry) = self.scan.entry() else {
            return 0;
        };
        self.key_count += 1;
        let key_len = u16::try_from(entry.key.len()).expect("a key of legal length");
        let expires_at_ms = entry.expires_at_ms.unwrap_or(0);
        self.hasher.write(&key_len.to_le_bytes());
        self.hasher.write(entry.key);
        self.hasher.write(&entry.version.to_le_bytes());
        self.hasher.write(&expires_at_ms.to_le_bytes());
        self.hasher.write(&(entry.value.len() as u64).to_le_bytes());
        let inline_bytes = match entry.value {
            Value::Tombstone => 0,
            Value::Inline(bytes) => {
                self.hasher.write(bytes);
                bytes.len()
            }
            Value::Large(blob) => {
                self.large = Some((Blob::clone(blob), 0));
                0
            }
        };
        work::of_entry(inline_bytes)
    }
}
