//! Which build this is. Found out by `build.rs`; nothing here can fail or change.

/// The version, as in `Cargo.toml`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from, as a short hash; none if it was built without git and
/// `DB_NODE_COMMIT`.
pub const COMMIT: Option<&str> = option_env!("DB_NODE_BUILD_COMMIT");

/// Both, for people: `0.1.0 (1a2b3c4d5e6f)`.
pub fn full() -> String {
    match COMMIT {
        Some(commit) => format!("{VERSION} ({commit})"),
        None => VERSION.to_owned(),
    }
}
