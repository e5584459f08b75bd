//! The examples of the documentation, run as they stand: every `sh` block of the README and of
//! `docs/`. A line that begins with `#` directly below a command is what the command prints; `…`
//! there stands for anything. Blocks marked `bash` are for reading: they install something, or
//! need programs that a test cannot count on.
//!
//! Each section of a document stands alone. The test runs all of them at the same time, twice, each
//! in a shell of its own, and none may leave a file or a process behind.
#![allow(
    clippy::disallowed_methods,
    reason = "tests are the outside: they have clocks and sockets of their own"
)]

mod common;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use common::{Folder, Node, text, wait_for};

/// The port of the node that a reader has running already, from the README's first command.
const FIRST_PORT: &str = "9001";

/// What the ports of other nodes begin with; each stands for a free one.
const PORTS: &str = "90";

/// How the documents call a program that was built, and not installed.
const PROGRAM: &str = "target/release/db-node";

/// A command, and what the document says that it prints.
#[derive(Debug, PartialEq, Eq)]
struct Example {
    command: String,
    expected: Vec<String>,
}

/// A part of a document, up to the next heading: its examples run in one shell.
#[derive(Debug)]
struct Section {
    name: String,
    examples: Vec<Example>,
}

/// The sections of a document that have examples.
fn sections(document: &str, markdown: &str) -> Vec<Section> {
    let mut parts: Vec<(String, String)> = vec![(document.to_owned(), String::new())];
    let mut is_code = false;
    for line in markdown.lines() {
        is_code ^= line.starts_with("```");
        if !is_code && line.starts_with('#') {
            let title = line.trim_start_matches('#').trim();
            parts.push((format!("{document}, {title}"), String::new()));
        }
        let (_, part) = parts.last_mut().expect("the first is there");
        part.push_str(line);
        part.push('\n');
    }
    let section = |(name, text): (String, String)| Section {
        name,
        examples: examples(&text),
    };
    let has_examples = |section: &Section| !section.examples.is_empty();
    parts
        .into_iter()
        .map(section)
        .filter(has_examples)
        .collect()
}

/// The examples of a text, in order.
fn examples(markdown: &str) -> Vec<Example> {
    let blocks = markdown
        .split("\n```sh\n")
        .skip(1)
        .filter_map(|rest| rest.split("\n```").next());
    let mut found: Vec<Example> = Vec::new();
    for block in blocks {
        let (mut is_behind_command, mut goes_on) = (false, false);
        for line in block.lines() {
            match (found.last_mut(), line.strip_prefix('#')) {
                (Some(example), None) if goes_on => {
                    example.command.push('\n');
                    example.command.push_str(line);
                }
                (Some(example), Some(said)) if is_behind_command => {
                    example
                        .expected
                        .push(said.strip_prefix(' ').unwrap_or(said).to_owned());
                }
                (_, None) if !line.trim().is_empty() => {
                    found.push(Example {
                        command: line.to_owned(),
                        expected: Vec::new(),
                    });
                    is_behind_command = true;
                }
                _ => is_behind_command = false,
            }
            // A quote that is open goes on in the next line, as does what ends in a backslash.
            let quotes = found
                .last()
                .map_or(0, |example| example.command.matches('\'').count());
            goes_on = line.ends_with('\\') || quotes % 2 == 1;
        }
    }
    found
}

/// Whether a line is as expected, where `…` stands for anything.
fn is_like(line: &str, expected: &str) -> bool {
    let mut parts = expected.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, inner)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in inner {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Whether lines are as expected, where a line `…` stands for any number of them.
fn are_like(lines: &[&str], expected: &[String]) -> bool {
    match expected.split_first() {
        None => lines.is_empty(),
        Some((first, behind)) if first == "…" => {
            (0..=lines.len()).any(|at| are_like(&lines[at..], behind))
        }
        Some((first, behind)) => {
            lines.first().is_some_and(|line| is_like(line, first)) && are_like(&lines[1..], behind)
        }
    }
}

/// One script of all examples: each writes what it prints and how it ends into files of its own,
/// and one that fails is the last.
fn script(examples: &[Example], folder: &str) -> String {
    let mut script = String::new();
    for (index, Example { command, .. }) in examples.iter().enumerate() {
        let out = format!("{folder}/{index}");
        writeln!(
            script,
            "{{\n{command}\n}} >{out}.out 2>{out}.err\necho $? >{out}.code\n[ $(cat {out}.code) = \
             0 ] || exit"
        )
        .expect("room");
    }
    script
}

/// The ports that a text names: four digits that begin with `PORTS`, apart from other digits.
fn ports_of(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| word.len() == 4 && word.starts_with(PORTS))
        .filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()))
        .map(str::to_owned)
        .collect()
}

/// A port that is free, below those that the system gives to connections and to port 0: so nothing
/// else takes it before the example does.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 10_000).expect("below 10,000");
    loop {
        let port = 15_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 15_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A free port for each that the examples name, `FIRST_PORT` apart, which is that of `node`.
fn free_ports(examples: &[Example], node: &Node) -> Vec<(String, String)> {
    let mut named = BTreeSet::from([FIRST_PORT.to_owned()]);
    for example in examples {
        named.append(&mut ports_of(&example.command));
    }
    let port_of = |name: String| {
        let port = if name == FIRST_PORT {
            node.address.port()
        } else {
            free_port()
        };
        (name, port.to_string())
    };
    named.into_iter().map(port_of).collect()
}

/// The shell and what it has started; killed when dropped.
struct Shell(Child);

impl Shell {
    fn start(script: &str, place: &Place) -> Self {
        let path = std::env::var("PATH").expect("a path");
        let shell = Command::new("bash")
            .args(["-c", script])
            .current_dir(&place.checkout.0)
            .process_group(0)
            .env("PATH", format!("{}:{path}", text(&place.programs.0)))
            .env("TMPDIR", &place.temporary.0)
            .env("CURL_HOME", &place.programs.0)
            .env("DB_NODE_REPLICATION_LISTEN", "127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        Self(shell.expect("bash"))
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().is_ok_and(|ended| ended.is_some())
    }

    /// Whether processes of the shell are still there.
    fn has_processes(&self) -> bool {
        let group = rustix::process::Pid::from_child(&self.0);
        rustix::process::test_kill_process_group(group).is_ok()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let group = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.0.wait();
    }
}

/// What a reader has: the checkout, programs, and a folder for temporary files.
struct Place {
    checkout: Folder,
    programs: Folder,
    temporary: Folder,
    outputs: Folder,
}

/// The project's folder.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The names in a folder.
fn names_in(folder: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(folder).expect("list it");
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

impl Place {
    fn new(name: &str) -> Self {
        let place = Self {
            checkout: Folder::new(&format!("docs-{name}-checkout")),
            programs: Folder::new(&format!("docs-{name}-programs")),
            temporary: Folder::new(&format!("docs-{name}-temporary")),
            outputs: Folder::new(&format!("docs-{name}-outputs")),
        };
        for path in names_in(root()) {
            let name = path.file_name().expect("a name");
            if name != "target" {
                symlink(&path, place.checkout.0.join(name)).expect("link it");
            }
        }
        let program = place.programs.0.join("db-node");
        symlink(env!("CARGO_BIN_EXE_db-node"), program).expect("link it");
        let settings = "silent\nshow-error\nmax-time = 25\n";
        fs::write(place.programs.0.join(".curlrc"), settings).expect("write");
        place
    }

    fn output(&self, index: usize, kind: &str) -> String {
        fs::read_to_string(self.outputs.join(&format!("{index}.{kind}"))).unwrap_or_default()
    }
}

/// Runs a section, and says what is not as the document says.
fn run(section: &Section, node: &Node, name: &str) -> Result<(), String> {
    let place = Place::new(name);
    let ports = free_ports(&section.examples, node);
    let real_of = |command: &str| {
        let mut command = command.replace(PROGRAM, env!("CARGO_BIN_EXE_db-node"));
        for (written, real) in &ports {
            command = command.replace(written, real);
        }
        command
    };
    let real = |example: &Example| Example {
        command: real_of(&example.command),
        expected: example.expected.clone(),
    };
    let examples: Vec<Example> = section.examples.iter().map(real).collect();
    let before = names_in(&place.checkout.0);
    let mut shell = Shell::start(&script(&examples, text(&place.outputs.0)), &place);
    for (index, Example { command, expected }) in examples.iter().enumerate() {
        wait_for(&format!("{}: {command}", section.name), || {
            shell.has_ended() || place.output(index, "code").ends_with('\n')
        });
        let mut said = place.output(index, "out");
        for (written, real) in &ports {
            said = said.replace(real, written);
        }
        let lines: Vec<&str> = said
            .lines()
            .map(|line| line.trim_end_matches('\r'))
            .collect();
        let is_success = place.output(index, "code") == "0\n";
        if !is_success || !(expected.is_empty() || are_like(&lines, expected)) {
            return Err(format!(
                "{}:\n{command}\nsays\n{said}\n{}\nand not\n{}",
                section.name,
                place.output(index, "err"),
                expected.join("\n")
            ));
        }
    }
    shell.0.wait().expect("wait");
    if names_in(&place.checkout.0) != before {
        return Err(format!("{}: leaves files in the checkout", section.name));
    }
    if !names_in(&place.temporary.0).is_empty() {
        return Err(format!("{}: leaves temporary files", section.name));
    }
    if shell.has_processes() {
        return Err(format!("{}: leaves processes", section.name));
    }
    Ok(())
}

/// The names and texts of the documents.
fn documents() -> Vec<(String, String)> {
    let mut paths = vec![root().join("README.md")];
    let in_docs = names_in(&root().join("docs"));
    paths.extend(
        in_docs
            .into_iter()
            .filter(|path| path.extension().is_some_and(|it| it == "md")),
    );
    let read = |path: PathBuf| {
        let name = path.strip_prefix(root()).expect("in the project");
        (
            text(name).to_owned(),
            fs::read_to_string(&path).expect("read it"),
        )
    };
    paths.into_iter().map(read).collect()
}

#[test]
fn examples_do_what_they_say() {
    let node = Node::start(&["--replication-listen", "127.0.0.1:0"]);
    let sections: Vec<Section> = documents()
        .iter()
        .flat_map(|(name, markdown)| sections(name, markdown))
        .collect();
    let count: usize = sections.iter().map(|section| section.examples.len()).sum();
    assert!(count > 60, "only {count} examples found");
    for round in 0..2 {
        let failures: Vec<String> = std::thread::scope(|scope| {
            let start = |(index, section)| {
                let node = &node;
                scope.spawn(move || run(section, node, &format!("{round}-{index}")))
            };
            let threads: Vec<_> = sections.iter().enumerate().map(start).collect();
            let results = threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"));
            results.filter_map(Result::err).collect()
        });
        assert!(
            failures.is_empty(),
            "round {round}:\n{}",
            failures.join("\n\n")
        );
    }
}

#[test]
fn what_is_left_behind_is_noticed() {
    let node = Node::start(&["--replication-listen", "127.0.0.1:0"]);
    for (command, problem) in [
        ("true", None),
        ("false", Some("says")),
        ("touch left", Some("files in the checkout")),
        ("mktemp", Some("temporary files")),
        ("sleep 60 &", Some("processes")),
    ] {
        let section = Section {
            name: command.to_owned(),
            examples: vec![Example {
                command: command.to_owned(),
                expected: Vec::new(),
            }],
        };
        let outcome = run(&section, &node, "left");
        match problem {
            None => assert_eq!(outcome, Ok(())),
            Some(problem) => assert!(outcome.is_err_and(|said| said.contains(problem))),
        }
    }
}

/// Links between the documents, and to files and headings, lead somewhere.
#[test]
fn links_lead_somewhere() {
    let anchor_of = |heading: &str| -> String {
        let title = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = title
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    let mut count = 0;
    for (document, markdown) in documents() {
        let folder = root().join(&document);
        let folder = folder.parent().expect("a folder");
        for link in markdown
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            if link.contains("://") || link.contains(' ') {
                continue;
            }
            count += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let path = if path.is_empty() {
                root().join(&document)
            } else {
                folder.join(path)
            };
            assert!(path.exists(), "{document} links to {link}: no such file");
            if !anchor.is_empty() {
                let target = fs::read_to_string(&path).expect("read it");
                let mut headings = target.lines().filter(|line| line.starts_with('#'));
                let is_there = headings.any(|heading| anchor_of(heading) == anchor);
                assert!(is_there, "{document} links to {link}: no such heading");
            }
        }
    }
    assert!(count > 10, "only {count} links found");
}

/// The table of alerts is that of the rules.
#[test]
fn alerts_are_documented_as_they_are() {
    let rules = fs::read_to_string(root().join("packaging/alerts.yaml")).expect("the rules");
    let page = fs::read_to_string(root().join("docs/metrics.md")).expect("the page");
    let field = |rule: &str, name: &str| {
        let line = rule.lines().find_map(|line| line.trim().strip_prefix(name));
        line.expect("each rule has it").trim_matches('"').to_owned()
    };
    let rules: Vec<&str> = rules.split("- alert:").skip(1).collect();
    assert!(rules.len() > 20, "only {} rules found", rules.len());
    for rule in rules {
        let expression = field(rule, "expr: ").replace('|', "\\|");
        let duration = match field(rule, "for: ").as_str() {
            "0m" => String::new(),
            duration => format!(", for {duration}"),
        };
        let row = format!(
            "| `{expression}`{duration} | {} |",
            field(rule, "summary: ")
        );
        assert!(page.contains(&row), "docs/metrics.md has no row\n{row}");
    }
}

/// The README is an entrance: what is longer belongs into `docs/`.
#[test]
fn the_readme_is_short() {
    let readme = fs::read_to_string(root().join("README.md")).expect("the README");
    let count = readme.split_whitespace().count();
    assert!(count <= 1500, "the README has {count} words");
}

#[test]
fn examples_are_found_and_compared() {
    let markdown = "x\n```sh\ncargo run\n```\n```\ncurl no\n```\n\n```bash\ncurl no\n```\n## A\n\n\
                    ```sh\n# why\ncurl a \\\n  b  # c\n# 1\n# …\n\n# d\ncurl e\n```\n";
    let example = |command: &str, expected: &[&str]| Example {
        command: command.to_owned(),
        expected: expected.iter().map(|&line| line.to_owned()).collect(),
    };
    let found = sections("doc", markdown);
    let names: Vec<&str> = found.iter().map(|section| section.name.as_str()).collect();
    assert_eq!(names, ["doc", "doc, A"]);
    assert_eq!(found[0].examples, [example("cargo run", &[])]);
    assert_eq!(
        found[1].examples,
        [
            example("curl a \\\n  b  # c", &["1", "…"]),
            example("curl e", &[])
        ]
    );
    for (line, expected, is_so) in [
        ("abc", "abc", true),
        ("abc", "ab", false),
        ("abc", "a…", true),
        ("abc", "…b…", true),
        ("abc", "…b", false),
        ("a1b2c", "a…b…c", true),
        ("a1b2c", "a…c…b…", false),
    ] {
        assert_eq!(is_like(line, expected), is_so, "{line} {expected}");
    }
    let lines = |expected: &[&str]| {
        expected
            .iter()
            .map(|&line| line.to_owned())
            .collect::<Vec<_>>()
    };
    assert!(are_like(&["a", "b", "c"], &lines(&["a", "…", "c"])));
    assert!(are_like(&["a"], &lines(&["a", "…"])));
    assert!(!are_like(&["a", "b"], &lines(&["a"])));
    assert!(!are_like(&["a"], &lines(&["…", "b"])));
    let ports = ports_of("localhost:9001 --port 9002 19003 90044 9o05");
    assert_eq!(ports.into_iter().collect::<Vec<_>>(), ["9001", "9002"]);
}
