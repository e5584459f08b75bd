//! `completions` and `man`: they know all commands and options, and are what shells and man take.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::ask;
use crate::common::{Folder, command, text};

fn print(arguments: &[&str]) -> String {
    let output = command().args(arguments).output().expect("run");
    crate::said(&output)
}

/// All commands, and all options with the command that they are of, as `help` tells.
fn known() -> (Vec<String>, Vec<String>) {
    let words = |text: String| -> Vec<String> {
        let words = text.lines().filter_map(|line| {
            line.strip_prefix("  ")?
                .split([' ', '\n'])
                .next()
                .map(str::to_owned)
        });
        words.collect()
    };
    let commands: Vec<String> = words(print(&["help"]))
        .into_iter()
        .filter(|word| word.starts_with(char::is_alphabetic))
        .collect();
    let options = commands
        .iter()
        .flat_map(|command| words(print(&["help", command])));
    let options = options.filter(|word| word.starts_with("--")).collect();
    (commands, options)
}

/// Whether a program is there to try something with.
fn has(program: &str) -> bool {
    let found = Command::new("which")
        .arg(program)
        .stdout(Stdio::null())
        .status();
    found.is_ok_and(|status| status.success())
}

/// What a program says about a text that it reads.
fn judge(program: &str, arguments: &[&str], input: &str) -> (bool, String, String) {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("run");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("write");
    drop(stdin);
    let output = child.wait_with_output().expect("wait");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (
        output.status.success(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn all_commands_and_options_are_named() {
    let (commands, options) = known();
    assert!(
        commands.len() == 12 && options.len() > 60,
        "{commands:?} {options:?}"
    );
    let man = print(&["man"]).replace("\\-", "-");
    for text in [
        print(&["completions", "bash"]),
        print(&["completions", "zsh"]),
        man.clone(),
    ] {
        for name in commands.iter().chain(&options) {
            assert!(text.contains(name.as_str()), "{name} in {text}");
        }
    }
    let fish = print(&["completions", "fish"]);
    for name in commands {
        assert!(fish.contains(&format!(" -a {name} ")), "{name}");
    }
    for name in options {
        let long = format!(" -l {} ", name.trim_start_matches('-'));
        assert!(fish.contains(&long), "{name}");
    }
    for name in ["DB_NODE_URL", "DB_NODE_TOKEN_FILE", "EXIT STATUS"] {
        assert!(man.contains(name), "{name}");
    }
}

/// What bash completes a line with, the last word of which is being typed.
fn completed(folder: &Folder, words: &[&str]) -> Vec<String> {
    let scripts = Folder::new("client-scripts");
    let script = scripts.join("bash");
    std::fs::write(&script, print(&["completions", "bash"])).expect("write");
    let last = words.len() - 1;
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let bash = format!(
        "source '{}'; complete -p db-node >/dev/null || exit; COMP_WORDS=({}); COMP_CWORD={last}; \
         _db_node; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        text(&script),
        quoted.join(" ")
    );
    let output = Command::new("bash")
        .args(["--norc", "-uc", &bash])
        .current_dir(&folder.0)
        .output()
        .expect("run bash");
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let said = String::from_utf8(output.stdout).expect("text");
    let words = said.lines().filter(|word| !word.is_empty());
    let mut words: Vec<String> = words.map(str::to_owned).collect();
    words.sort();
    words
}

#[test]
fn bash_completes() {
    let folder = Folder::new("client");
    std::fs::write(folder.join("a file"), "").expect("write");
    for (words, expected) in [
        (
            &["db-node", "s"][..],
            &["scan", "serve", "set", "snapshot", "status"][..],
        ),
        (&["db-node", "--port", "1", "--che"], &["--check"]),
        (&["db-node", "--max-m"], &["--max-memory"]),
        (&["db-node", "serve", "--max-m"], &["--max-memory"]),
        (
            &["db-node", "set", "--if"],
            &["--if-match", "--if-none-match"],
        ),
        (&["db-node", "get", "--if"], &[]),
        (&["db-node", "get", "--j"], &["--json"]),
        (&["db-node", "get", "--url", "-"], &[]),
        (&["db-node", "get", "--token-file", "a"], &["a file"]),
        (&["db-node", "--data-dir", "a"], &["a file"]),
        (&["db-node", "snapshot", "a"], &["a file"]),
        (&["db-node", "get", "a"], &[]),
        (
            &["db-node", "completions", ""],
            &["--help", "bash", "fish", "zsh"],
        ),
        (&["db-node", "help", "wat"], &["watch"]),
    ] {
        let found = completed(&folder, words);
        assert_eq!(found, expected, "{words:?}");
    }
}

/// The scripts for other shells where those are installed, as they are in CI.
#[test]
fn other_shells_take_their_scripts() {
    let folder = Folder::new("client");
    for shell in ["bash", "zsh", "fish"] {
        let path = folder.join(shell);
        std::fs::write(&path, print(&["completions", shell])).expect("write");
        if !has(shell) {
            eprintln!("{shell} is not installed: its completions are not tried");
            continue;
        }
        let (is_good, _, problems) = judge(shell, &["-n", text(&path)], "");
        assert!(is_good && problems.is_empty(), "{shell}: {problems}");
    }
    if has("fish") {
        let path = folder.join("fish");
        for (line, expected) in [
            ("db-node sna", "snapshot"),
            ("db-node get --js", "--json"),
            ("db-node --max-mem", "--max-memory"),
            ("db-node set --cre", "--create"),
        ] {
            let script = format!("source {}; complete -C '{line}'", text(&path));
            let output = Command::new("fish")
                .args(["--no-config", "-c", &script])
                .output();
            let said = String::from_utf8(output.expect("run").stdout).expect("text");
            assert!(
                said.starts_with(expected) && said.lines().count() == 1,
                "{line}: {said}"
            );
        }
    }
    if has("zsh") {
        // The arguments that zsh would take apart, for each command.
        let script = format!(
            "_arguments() {{ print -rl -- \"$@\" }}; _describe() {{ print -rl -- $commands }}; \
             compdef() {{ }}; source {}; words=(db-node set '') CURRENT=3; _db_node; \
             words=(db-node '') CURRENT=2; _db_node; words=(db-node --x) CURRENT=2; _db_node",
            text(&folder.join("zsh"))
        );
        let output = Command::new("zsh")
            .args(["-fc", &script])
            .output()
            .expect("run");
        let said = String::from_utf8(output.stdout).expect("text");
        for expected in ["--create[", "get:write", "--max-memory="] {
            assert!(said.contains(expected), "{expected}: {said}");
        }
    }
}

#[test]
fn the_man_page_is_well_formed() {
    let page = print(&["man"]);
    if has("groff") {
        let (is_good, _, problems) = judge("groff", &["-man", "-ww", "-Tutf8", "-z"], &page);
        assert!(is_good && problems.is_empty(), "{problems}");
    }
    if has("mandoc") {
        // Of the date: a page that a program prints has none.
        let (_, said, _) = judge("mandoc", &["-Tlint", "-Wwarning"], &page);
        let problems: Vec<&str> = said
            .lines()
            .filter(|line| !line.contains("missing date"))
            .collect();
        assert!(problems.is_empty(), "{problems:?}");
    }
    if has("man") {
        let folder = Folder::new("client");
        let path = folder.join("db-node.1");
        std::fs::write(&path, &page).expect("write");
        let output = Command::new("man")
            .args(["--warnings", "-l", text(&path)])
            .env("MANWIDTH", "500")
            .env("LC_ALL", "C.UTF-8")
            .output()
            .expect("run");
        assert!(
            output.stderr.is_empty(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let shown = String::from_utf8(output.stdout).expect("text");
        let shown = shown.split_whitespace().collect::<Vec<_>>().join(" ");
        for line in [
            "--if-none-match TOKEN",
            "db-node set counter 2 --if-match \"$version\"",
            "--data-dir DIR",
            "A value that begins with - stands behind --",
        ] {
            assert!(shown.contains(line), "{line} in {shown}");
        }
    }
    // It stays with the program: no node is asked.
    assert!(ask("nonsense", &["man"]).status.success());
}
