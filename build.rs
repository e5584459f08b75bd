//! Finds the commit that is built, for `src/version.rs`: `DB_NODE_COMMIT` if it is set (a Docker build has no `.git`), else what git
//! says of the folder this file is in, else nothing. A build never fails for want of it.
//!
//! Packs the texts that go into the binary: the description of the API, and the status page; and
//! leaves out of a release what a panic that ends the process has no use for.

use std::path::{Path, PathBuf};
use std::process::Command;

/// As many digits of a hash as are shown; a part of a longer one says the same.
const HASH_DIGITS: usize = 12;

const DESCRIPTION: &str = "src/api/endpoint/openapi.json";

const PAGE: &str = "src/api/endpoint/status_page/page.html";

/// What stands in the page for each of the files beside it.
const PAGE_PARTS: [(&str, &str); 2] = [
    ("STYLE", "src/api/endpoint/status_page/page.css"),
    ("SCRIPT", "src/api/endpoint/status_page/page.js"),
];

/// How hard to pack: the most.
const PACKING: u8 = 10;

/// Has a linker drop what would unwind the stack, except in the start-up code of C, which refers to
/// its own. `INSERT` makes it an addition to the linker's script.
const NO_UNWINDING: &str = "\
SECTIONS {
  /DISCARD/ : { *(EXCLUDE_FILE(*crt*.o) .eh_frame) *(.gcc_except_table .gcc_except_table.*) }
}
INSERT AFTER .text;
";

fn main() {
    leave_out_unwinding();
    pack("openapi.json", &(compact(&read(DESCRIPTION)) + "\n"));
    let with_part = |page: String, (mark, path): &(&str, &str)| page.replacen(mark, &read(path), 1);
    pack("page.html", &PAGE_PARTS.iter().fold(read(PAGE), with_part));
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=DB_NODE_COMMIT");
    let given = std::env::var("DB_NODE_COMMIT").unwrap_or_default();
    let commit = if given.trim().is_empty() {
        git_commit()
    } else {
        Some(given)
    };
    if let Some(commit) = commit.as_deref().and_then(shown) {
        println!("cargo::rustc-env=DB_NODE_BUILD_COMMIT={commit}");
    }
}

/// The tables to unwind the stack with are 6 % of the binary. A panic aborts (`Cargo.toml`) once it
/// has told where it was, and the names that a backtrace would be printed with are stripped. A
/// build with debug information keeps the tables, and so does one with a linker of its own choice,
/// which may not know scripts (mold).
#[expect(
    clippy::disallowed_methods,
    reason = "a build script hands over what it makes in a file"
)]
fn leave_out_unwinding() {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let is_release = variable("PROFILE") == "release" && variable("DEBUG") == "false";
    let has_own_linker = !variable("RUSTC_LINKER").is_empty()
        || variable("CARGO_ENCODED_RUSTFLAGS").contains("fuse-ld");
    if is_release && !has_own_linker && variable("CARGO_CFG_TARGET_OS") == "linux" {
        let script = PathBuf::from(variable("OUT_DIR")).join("no-unwinding.ld");
        std::fs::write(&script, NO_UNWINDING).expect("write to OUT_DIR");
        for option in [&format!("-T,{}", script.display()), "--no-eh-frame-hdr"] {
            println!("cargo::rustc-link-arg-bin=db-node=-Wl,{option}");
        }
    }
}

/// A file of this project; cargo asks again when it changes.
fn read(path: &str) -> String {
    println!("cargo::rerun-if-changed={path}");
    std::fs::read_to_string(path).expect(path)
}

/// Writes a text for `src/api/endpoint/packed.rs`.
#[expect(
    clippy::disallowed_methods,
    reason = "a build script hands over what it makes in a file"
)]
fn pack(name: &str, text: &str) {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    let packed = miniz_oxide::deflate::compress_to_vec(text.as_bytes(), PACKING);
    std::fs::write(out.join(name).with_extension("deflate"), packed).expect("write to OUT_DIR");
}

/// JSON without white space between its parts.
fn compact(json: &str) -> String {
    let (mut is_string, mut is_escaped) = (false, false);
    let is_kept = |c: &char| {
        let is_between = !is_string && c.is_ascii_whitespace();
        is_string ^= *c == '"' && !is_escaped;
        is_escaped = *c == '\\' && !is_escaped;
        !is_between
    };
    json.chars().filter(is_kept).collect()
}

/// The commit that is checked out here; has cargo ask again when that changes.
fn git_commit() -> Option<String> {
    // In a source archive below somebody else's checkout, git would tell of theirs.
    git(&["ls-files", "--error-unmatch", "Cargo.toml"])?;
    // In a worktree these are in different folders; git knows where. A file that is not there would have every build ask.
    let log = git_path("logs/HEAD");
    // A commit on a branch does not change HEAD, but its log; where no log is kept, some file among the branches.
    let watched = [
        git_path("HEAD"),
        log.or_else(|| git_path("refs/heads")),
        git_path("packed-refs"),
    ];
    for path in watched.into_iter().flatten() {
        println!("cargo::rerun-if-changed={path}");
    }
    git(&["rev-parse", &format!("--short={HASH_DIGITS}"), "HEAD"])
}

/// Where git keeps one of its files, if it is there.
fn git_path(name: &str) -> Option<String> {
    git(&["rev-parse", "--git-path", name]).filter(|path| Path::new(path).exists())
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// What is printed of a commit: one short word.
fn shown(commit: &str) -> Option<String> {
    let word = commit.split_whitespace().next()?;
    let is_hash = word.len() > HASH_DIGITS && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    Some(if is_hash {
        word[..HASH_DIGITS].to_owned()
    } else {
        word.to_owned()
    })
}
