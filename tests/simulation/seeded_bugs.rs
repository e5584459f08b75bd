//! Whether a simulation finds the bugs that are seeded for it.

use std::panic::catch_unwind;

use db_node::seeded_bugs::{SeededBug, switch_on};

use crate::seeds::seeds;

/// Runs seeds with each bug until one run fails. `DB_NODE_TEST_BUG=Name` seeks one bug alone.
pub(crate) fn assert_found(
    bugs: impl Iterator<Item = SeededBug>,
    seed_count: u64,
    run: impl Fn(u64) + std::panic::RefUnwindSafe,
) {
    let chosen = std::env::var("DB_NODE_TEST_BUG").ok();
    let is_chosen = |bug: &SeededBug| {
        let name = format!("{bug:?}");
        chosen.as_ref().is_none_or(|chosen| *chosen == name)
    };
    let mut missed = Vec::new();
    for bug in bugs.filter(is_chosen) {
        switch_on(Some(bug));
        let found = seeds(seed_count).find(|seed| catch_unwind(|| run(seed.0)).is_err());
        switch_on(None);
        match found {
            Some(seed) => eprintln!("{bug:?}: found by seed {}", seed.0),
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
