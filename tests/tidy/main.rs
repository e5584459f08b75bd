//! What keeps the code readable: imports run one way, files stay small and say what they are,
//! nothing is left half done.

#![allow(
    clippy::disallowed_methods,
    reason = "tests are the outside: they have clocks, files and sockets of their own"
)]

mod measures;
mod rings;

use std::fs;
use std::path::{Path, PathBuf};

use measures::Findings;

/// Lines of code in one file; tests at its bottom or in files of their own do not count. Wide
/// enough that no file is split for its length alone.
const FILE_LINE_MAX: usize = 800;

/// A file of the project with its text.
struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// The top-level module it belongs to; `main` for `main.rs`, none for `lib.rs`.
    fn module(&self) -> Option<String> {
        let inside = self.path.strip_prefix("src").ok()?;
        let first = inside.components().next()?.as_os_str().to_str()?;
        let name = first.trim_end_matches(".rs").trim_end_matches("_tests");
        (name != "lib").then(|| name.to_owned())
    }

    fn is_test_file(&self) -> bool {
        !self.path.starts_with("src") || self.path.to_string_lossy().ends_with("_tests.rs")
    }

    /// Unit tests in a file of their own.
    fn is_unit_tests(&self) -> bool {
        let path = self.path.to_string_lossy();
        path.ends_with("_tests.rs") || path.ends_with("/tests.rs")
    }

    /// The text without a test module at its end.
    fn code(&self) -> &str {
        if self.is_test_file() {
            &self.text
        } else {
            self.text
                .split("#[cfg(test)]\nmod tests {")
                .next()
                .unwrap_or_default()
        }
    }

    /// Lines of code, without their comments.
    fn code_lines(&self) -> impl Iterator<Item = &str> {
        self.code()
            .lines()
            .map(|line| line.split("//").next().unwrap_or_default())
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = ["src", "tests", "benches"]
        .iter()
        .map(|name| root.join(name))
        .collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("text");
                found.push(Source {
                    path: path.strip_prefix(root).expect("below the root").to_owned(),
                    text,
                });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 20, "only {} files found", found.len());
    found
}

/// The modules as `lib.rs` lists them, lowest first, and `main` on top.
fn module_order(lib: &str) -> Vec<String> {
    let listed = lib.lines().filter_map(|line| {
        line.trim_start_matches("pub ")
            .strip_prefix("mod ")?
            .strip_suffix(';')
    });
    listed
        .map(str::to_owned)
        .chain(["main".to_owned()])
        .collect()
}

/// Modules of this crate named in a line of code.
fn named_modules<'a>(line: &'a str, order: &'a [String]) -> impl Iterator<Item = &'a str> {
    let behind = |prefix: &'static str| line.split(prefix).skip(1);
    let first_word = |rest: &'a str| {
        rest.split(|c: char| !c.is_alphanumeric() && c != '_')
            .next()
            .unwrap_or_default()
    };
    behind("crate::")
        .chain(behind("db_node::"))
        .map(first_word)
        .filter(|name| order.iter().any(|known| known == name))
}

fn imports_against_the_order(source: &Source, order: &[String]) -> Vec<String> {
    let Some(own) = source.module() else {
        return Vec::new();
    };
    let rank = |name: &str| order.iter().position(|known| known == name);
    let own_rank = rank(&own).unwrap_or_else(|| panic!("{own} is not listed in lib.rs"));
    let mut found = Vec::new();
    for line in source.code_lines() {
        for name in named_modules(line, order) {
            let is_wrong = rank(name) > Some(own_rank)
                || (own == "http" && !matches!(name, "http" | "swar" | "status_codes"))
                || (own == "lsm" && !matches!(name, "lsm" | "allocator" | "swar"))
                || (own == "client" && !matches!(name, "client" | "config" | "http" | "version"));
            if is_wrong {
                found.push(format!(
                    "{}: {own} may not import {name}: {}",
                    source.path.display(),
                    line.trim()
                ));
            }
        }
        if line.contains("crate::{") {
            found.push(format!(
                "{}: one `use crate::…` a module, so that this test can read them",
                source.path.display()
            ));
        }
    }
    found
}

/// Words that may not stand in code, and where they may all the same. Split so that this file does
/// not find itself.
fn forbidden_words() -> Vec<(String, &'static [&'static str])> {
    let word = |parts: &[&str]| parts.concat();
    vec![
        (word(&["to", "do!("]), &[]),
        (word(&["unimple", "mented!("]), &[]),
        (word(&["d", "bg!("]), &[]),
        (word(&["#[", "ignore"]), &[]),
        (word(&["Rc<", "RefCell"]), &[]),
        (word(&["async", " fn"]), &[]),
        (
            word(&["Instant", "::now"]),
            &["src/client", "tests", "benches"],
        ),
        (word(&["System", "Time::now"]), &["src/reactor"]),
        (word(&["clock_", "gettime"]), &["src/reactor"]),
        (
            word(&["std", "::fs"]),
            &[
                "src/storage",
                "src/client",
                "src/config/values.rs",
                "benches",
                "tests",
            ],
        ),
        (word(&["std", "::net::Tcp"]), &["src/client", "tests"]),
        (word(&["unix", "::net"]), &["src/reactor", "tests"]),
        (word(&["mio", "::"]), &["src/reactor", "benches"]),
        (
            word(&["thread", "::sleep"]),
            &["src/client", "tests/common", "benches"],
        ),
    ]
}

fn forbidden(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for (word, places) in forbidden_words() {
        let is_allowed = places.iter().any(|place| source.path.starts_with(place));
        if !is_allowed && source.code_lines().any(|line| line.contains(&word)) {
            found.push(format!("{}: {word}", source.path.display()));
        }
    }
    for mark in [["TO", "DO"].concat(), ["FIX", "ME"].concat()] {
        if source.text.contains(&mark) {
            found.push(format!("{}: {mark}", source.path.display()));
        }
    }
    found
}

fn size_and_documentation(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    if !source.text.starts_with("//! ") {
        found.push(format!(
            "{}: begin with a line of `//!` that says what it is",
            source.path.display()
        ));
    }
    let line_count = source.code().lines().count();
    if line_count > FILE_LINE_MAX && !source.is_test_file() {
        found.push(format!(
            "{}: {line_count} lines; split it",
            source.path.display()
        ));
    }
    found
}

/// Paths in comments that lead nowhere: files and folders in backticks, as seen from the file's own
/// folder, from the one above it, from `src`, or from the root.
fn stale_paths(source: &Source, exists: impl Fn(&Path) -> bool) -> Vec<String> {
    let folder = source.path.parent().unwrap_or(Path::new(""));
    let is_path = |word: &&str| {
        let of_path = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_/.-".contains(c);
        let is_file = word
            .strip_suffix(".rs")
            .is_some_and(|stem| !stem.is_empty());
        (is_file || word.ends_with('/')) && word.chars().all(of_path) && !word.starts_with('/')
    };
    let mut found = Vec::new();
    for line in source.text.lines() {
        let Some((_, comment)) = line.split_once("//") else {
            continue;
        };
        for word in comment.split('`').skip(1).step_by(2).filter(is_path) {
            let above = folder.parent().unwrap_or(folder);
            let places = [folder, above, Path::new("src"), Path::new("")];
            if !places.iter().any(|place| exists(&place.join(word))) {
                found.push(format!("{}: `{word}` is not there", source.path.display()));
            }
        }
    }
    found
}

/// Exceptions from the limits of `measures.rs` and `rings.rs`: what is over a limit today, and by
/// how much at most. `DB_NODE_TEST_REWRITE=1` takes out what is no longer needed, and lowers
/// numbers.
const EXCEPTIONS: &str = "tests/tidy/exceptions.txt";

/// What is over a limit and no exception, and exceptions that are no longer needed.
fn compare(found: &Findings, allowed: &Findings) -> Vec<String> {
    let over = found
        .iter()
        .filter(|(what, number)| allowed.get(*what).is_none_or(|most| most < number));
    let over = over.map(|(what, number)| format!("{what}: {number}; see tests/tidy/measures.rs"));
    let gone = allowed.keys().filter(|what| !found.contains_key(*what));
    let gone = gone.map(|what| format!("{what}: no longer so; take it out of {EXCEPTIONS}"));
    over.chain(gone).collect()
}

/// A line is a number and what it is a number of.
fn parse_exceptions(text: &str) -> Findings {
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let parse = |line: &str| {
        let (number, what) = line.split_once(' ').expect("a number and a text");
        (what.to_owned(), number.parse().expect("a number"))
    };
    lines.map(parse).collect()
}

/// The file with the exceptions that are still needed.
fn shrunk(text: &str, found: &Findings) -> String {
    let keep = |line: &str| {
        let Some((number, what)) = line.split_once(' ').filter(|_| !line.starts_with('#')) else {
            return Some(format!("{line}\n"));
        };
        let number: usize = number.parse().expect("a number");
        found
            .get(what)
            .map(|now| format!("{} {what}\n", number.min(*now)))
    };
    text.lines().filter_map(keep).collect()
}

/// The README, the files beside it, and those in `docs/`.
fn documents(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for folder in ["", "docs/"] {
        for entry in fs::read_dir(root.join(folder)).expect("list it") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let name = path.file_name().and_then(|name| name.to_str());
                found.push(format!("{folder}{}", name.expect("a plain name")));
            }
        }
    }
    assert!(found.len() > 5, "the documents are found");
    found
}

#[test]
fn measures_stay_within_their_limits() {
    let sources = sources();
    let mut found = measures::findings(&sources);
    for ring in rings::rings(&sources) {
        for module in &ring {
            found.insert(format!("files in the ring of src/{module}"), ring.len());
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for document in documents(root) {
        let text = fs::read_to_string(root.join(&document)).expect("a document");
        let wide_count = measures::wide_line_count(&text);
        if wide_count > 0 {
            found.insert(format!("wide lines in {document}"), wide_count);
        }
    }
    let path = root.join(EXCEPTIONS);
    let text = fs::read_to_string(&path).expect("the list of exceptions");
    if std::env::var_os("DB_NODE_TEST_REWRITE").is_some() {
        fs::write(&path, shrunk(&text, &found)).expect("write the list");
    } else {
        assert_none(&compare(&found, &parse_exceptions(&text)));
    }
}

#[test]
fn exceptions_may_only_shrink() {
    let of = |text: &str| parse_exceptions(text);
    let now = of("70 a\n12 b\n");
    assert!(compare(&now, &of("70 a\n13 b\n")).is_empty());
    assert_eq!(
        compare(&now, &of("69 a\n13 b\n")).len(),
        1,
        "more than allowed"
    );
    assert_eq!(compare(&now, &of("70 a\n")).len(), 1, "not allowed");
    assert_eq!(
        compare(&now, &of("70 a\n12 b\n1 c\n")).len(),
        1,
        "no longer needed"
    );
    assert_eq!(shrunk("# x\n70 a\n13 b\n1 c\n", &now), "# x\n70 a\n12 b\n");
}

fn assert_none(problems: &[String]) {
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn imports_run_one_way() {
    let sources = sources();
    let lib = sources
        .iter()
        .find(|source| source.path == Path::new("src/lib.rs"))
        .expect("src/lib.rs");
    let order = module_order(&lib.text);
    for name in &order[..order.len() - 1] {
        assert!(
            lib.text.contains(&format!("//! - [`{name}`]: ")),
            "the code map in lib.rs lacks {name}"
        );
    }
    let problems: Vec<String> = sources
        .iter()
        .filter(|source| source.path.starts_with("src"))
        .flat_map(|source| imports_against_the_order(source, &order))
        .collect();
    assert_none(&problems);
}

#[test]
fn nothing_is_left_half_done_or_in_the_wrong_place() {
    assert_none(&sources().iter().flat_map(forbidden).collect::<Vec<_>>());
}

#[test]
fn files_are_small_and_say_what_they_are() {
    assert_none(
        &sources()
            .iter()
            .flat_map(size_and_documentation)
            .collect::<Vec<_>>(),
    );
}

#[test]
fn paths_in_comments_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let exists = |path: &Path| root.join(path).exists();
    let stale = |source: &Source| stale_paths(source, exists);
    assert_none(&sources().iter().flat_map(stale).collect::<Vec<_>>());
}

/// The checks above on made-up files, each of which must fail.
#[test]
fn the_checks_can_fail() {
    let order = module_order("pub mod http;\npub mod lsm;\npub mod api;\npub mod client;\n");
    assert_eq!(order, ["http", "lsm", "api", "client", "main"]);
    let source = |path: &str, text: &str| Source {
        path: path.into(),
        text: text.to_owned(),
    };
    for (path, text, problem_count) in [
        ("src/lsm/mod.rs", "use crate::api::Api;\n", 1),
        ("src/lsm/mod.rs", "use crate::lsm::chunk;\n", 0),
        ("src/http/body.rs", "fn f() { crate::lsm::g() }\n", 1),
        (
            "src/api/endpoint/kv.rs",
            "use crate::lsm::Lsm; // not crate::main::x\n",
            0,
        ),
        ("src/api/endpoint/kv.rs", "use crate::{lsm, http};\n", 1),
        ("src/client/mod.rs", "use crate::lsm::Lsm;\n", 1),
        ("src/client/mod.rs", "use crate::http::BodyDecoder;\n", 0),
        (
            "src/lsm/mod.rs",
            "#[cfg(test)]\nmod tests {\n use crate::api::Api;\n}\n",
            0,
        ),
    ] {
        let found = imports_against_the_order(&source(path, text), &order);
        assert_eq!(found.len(), problem_count, "{path}: {text}: {found:?}");
    }
    for (word, _) in forbidden_words() {
        assert_eq!(
            forbidden(&source("src/lsm/mod.rs", &format!("x {word} y"))).len(),
            1,
            "{word}"
        );
        assert_eq!(
            forbidden(&source("src/lsm/mod.rs", &format!("// x {word} y"))).len(),
            0,
            "{word}"
        );
    }
    assert_eq!(
        size_and_documentation(&source("src/a.rs", "fn f() {}\n")).len(),
        1
    );
    let only = |known: &'static str| move |path: &Path| path == Path::new(known);
    for (text, known, problem_count) in [
        ("// See 'wal.rs'.\n", "src/lsm/wal.rs", 0),
        ("// See 'lsm/wal.rs'.\n", "src/lsm/wal.rs", 0),
        ("// In 'storage/', not 'x.rs'.\n", "src/storage/", 1),
        ("let path = \"'x.rs'\";\n", "", 0),
        ("//! 'a.b.rs' and '.rs' and '/' and 'A/'\n", "", 1),
    ] {
        // Quotes stand for backticks, so that this file is not found.
        let text = &text.replace('\'', "`");
        let found = stale_paths(&source("src/lsm/mod.rs", text), only(known));
        assert_eq!(found.len(), problem_count, "{text}: {found:?}");
    }
    let long = format!("//! Long.\n{}", "x\n".repeat(FILE_LINE_MAX));
    assert_eq!(size_and_documentation(&source("src/a.rs", &long)).len(), 1);
}
