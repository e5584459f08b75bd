//! Conditions on writes: `If-Match` and `If-None-Match`.

use crate::storage::{Lineage, VersionToken};

/// What a request demands of the current state of its key (RFC 9110, section 13.1). `None` is never
/// demanded of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// `If-Match`: the write goes ahead only if this matches.
    pub if_match: Option<TokenSet>,
    /// `If-None-Match`: the write goes ahead only if this does not match.
    pub if_none_match: Option<TokenSet>,
}

/// The versions of a key that a condition names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSet {
    /// `*`: any version, so long as the key exists.
    Any,
    /// The listed ones.
    Of(Vec<VersionToken>),
}

impl TokenSet {
    /// Whether a key's current version (`None`: it does not exist) is in the set, given the lineage
    /// that it is a version of.
    pub fn contains(&self, current: Option<u64>, lineage: &Lineage) -> bool {
        match (self, current) {
            (_, None) => false,
            (Self::Any, Some(_)) => true,
            (Self::Of(tokens), Some(current)) => tokens
                .iter()
                .any(|token| token.version == current && lineage.holds(*token)),
        }
    }
}

impl Conditions {
    /// Whether nothing is demanded.
    pub fn is_empty(&self) -> bool {
        self.if_match.is_none() && self.if_none_match.is_none()
    }

    pub(super) fn allow(
        &self,
        current: Option<u64>,
        lineage: &Lineage,
    ) -> Result<(), ConditionFailed> {
        let is_in = |set: &Option<TokenSet>| {
            let set = set.as_ref();
            set.map(|set| set.contains(current, lineage))
        };
        if is_in(&self.if_match) == Some(false) || is_in(&self.if_none_match) == Some(true) {
            let current = current.map(|version| lineage.token_of(version));
            Err(ConditionFailed { current })
        } else {
            Ok(())
        }
    }
}

/// The write was refused: fail the request with 412.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConditionFailed {
    /// Version of the key as it is; `None`: it does not exist.
    pub current: Option<VersionToken>,
}
