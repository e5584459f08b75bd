//! The README's examples, run as they stand: every `sh` block with curl in it, in order, in one
//! shell, against a node that was just started. What begins with `#` directly below a command is
//! what it has to print; `…` there stands for anything.
#![allow(
    clippy::disallowed_methods,
    reason = "tests are the outside: they have clocks and sockets of their own"
)]

mod common;

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use common::{Folder, Node, text, wait_for};

/// The ports that the README uses; the first is that of the node that is there already.
const PORTS: [u16; 4] = [9001, 9002, 9003, 9004];

/// How the README calls the program.
const PROGRAM: &str = "target/release/db-node";

/// A command, and what the README says that it prints.
#[derive(Debug, PartialEq, Eq)]
struct Example {
    command: String,
    expected: Vec<String>,
}

/// The examples of a text, in order.
fn examples(readme: &str) -> Vec<Example> {
    let blocks = readme
        .split("\n```sh\n")
        .skip(1)
        .filter_map(|rest| rest.split("\n```").next());
    let mut found: Vec<Example> = Vec::new();
    for block in blocks.filter(|block| block.contains("curl ")) {
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
    let mut script = String::from("trap 'kill $(jobs -p) 2>/dev/null' EXIT\n");
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

/// The shell and what it has started; killed when dropped.
struct Shell(Child);

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = Command::new("kill")
            .args(["--", &format!("-{}", self.0.id())])
            .stderr(Stdio::null())
            .status();
        let _ = self.0.wait();
    }
}

#[test]
fn examples_do_what_they_say() {
    let node = Node::start(&["--replication-listen", "127.0.0.1:0"]);
    let (folder, outputs) = (Folder::new("readme"), Folder::new("readme-out"));
    // Held until all are chosen, so that they differ.
    let listeners: Vec<TcpListener> = PORTS[1..]
        .iter()
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("a port"))
        .collect();
    let chosen = listeners
        .iter()
        .map(|listener| listener.local_addr().expect("an address").port());
    let ports: Vec<(String, String)> = PORTS
        .into_iter()
        .zip([node.address.port()].into_iter().chain(chosen))
        .map(|(written, real)| (format!(":{written}"), format!(":{real}")))
        .collect();
    drop(listeners);
    let readme =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("the README");
    let mut examples = examples(&readme);
    assert!(examples.len() > 40, "only {} found", examples.len());
    for example in &mut examples {
        example.command = example
            .command
            .replace(PROGRAM, env!("CARGO_BIN_EXE_db-node"));
        for (written, real) in &ports {
            example.command = example.command.replace(written, real);
        }
    }
    fs::write(folder.join("logo.png"), [0x89, b'P', b'N', b'G', 0, 0xff]).expect("write");
    fs::write(folder.join("note.txt"), "a note\n").expect("write");
    fs::write(
        folder.join(".curlrc"),
        "silent\nshow-error\nmax-time = 25\n",
    )
    .expect("write");
    let mut shell = Command::new("bash");
    shell
        .args(["-c", &script(&examples, text(&outputs.0))])
        .current_dir(&folder.0)
        .process_group(0);
    shell
        .env("CURL_HOME", folder.path())
        .env("DB_NODE_REPLICATION_LISTEN", "127.0.0.1:0");
    let mut shell = Shell(
        shell
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("bash"),
    );
    let at = |index: usize, kind: &str| {
        fs::read_to_string(outputs.join(&format!("{index}.{kind}"))).unwrap_or_default()
    };
    for (index, Example { command, expected }) in examples.iter().enumerate() {
        wait_for(command, || {
            shell.0.try_wait().is_ok_and(|ended| ended.is_some())
                || at(index, "code").ends_with('\n')
        });
        let mut said = at(index, "out");
        for (written, real) in &ports {
            said = said.replace(real, written);
        }
        let lines: Vec<&str> = said
            .lines()
            .map(|line| line.trim_end_matches('\r'))
            .collect();
        let is_well =
            at(index, "code") == "0\n" && (expected.is_empty() || are_like(&lines, expected));
        assert!(
            is_well,
            "{command}\nsays\n{said}\n{}\nand not\n{}",
            at(index, "err"),
            expected.join("\n")
        );
    }
    // It stops the nodes that it has started.
    shell.0.wait().expect("wait");
}

#[test]
fn examples_are_found_and_compared() {
    let readme = "x\n```sh\ncargo run\n```\n```\ncurl no\n```\n\n```sh\n# why\ncurl a \\\n  b  # \
                  c\n# 1\n# …\n\n# d\ncurl e\n```\n";
    let example = |command: &str, expected: &[&str]| Example {
        command: command.to_owned(),
        expected: expected.iter().map(|&line| line.to_owned()).collect(),
    };
    assert_eq!(
        examples(readme),
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
}
