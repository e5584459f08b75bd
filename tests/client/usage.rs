//! What is typed: commands, options, and what is said about wrong ones.

use std::process::Output;

use crate::common::command;
use crate::{ask, refused, said};

fn run(arguments: &[&str]) -> Output {
    command().args(arguments).output().expect("run")
}

#[test]
fn wrong_command_lines_name_the_right_one() {
    for (arguments, named) in [
        (&["gte", "a"][..], "did you mean get?"),
        (&["snapshto", "x"], "did you mean snapshot?"),
        (&["statsu"], "did you mean status?"),
        (&["word"], "db-node help"),
        (&["put", "a", "1"], "did you mean set?"),
        (&["ping"], "did you mean status?"),
        (&["-v"], "did you mean --version?"),
        (&["--url", ":9600", "get", "a"], "db-node get KEY --url"),
        (&["--json", "get", "a"], "stand behind the command"),
        (&["--timeout=5", "get", "a"], "stand behind the command"),
        (&["set", "n", "-5"], "db-node set n -- -5\n"),
        (&["set", "n", "-12.5"], "db-node set n -- -12.5\n"),
        (
            &["get", "a", "--partition", "x"],
            "--partition: give a number",
        ),
        (&["bench"], "db-node-bench"),
        (&[""], "db-node help"),
        (&["get"], "get [OPTIONS] KEY"),
        (&["get", "a", "b"], "quote"),
        (&["set", "a"], "KEY VALUE|-|@FILE"),
        (&["status", "x"], "too much"),
        (&["get", "a", "--jsn"], "--json"),
        (&["get", "a", "--ttl", "5"], "--ttl is an option of set"),
        (&["get", "a", "--frobnicate"], "db-node help get"),
        (&["get", "a", "--url"], "--url"),
        (&["get", "a", "--json=yes"], "--json"),
        (&["get", "a", "-x"], "-x"),
        (&["get", "a", "--timeout", "0"], "--timeout"),
        (&["get", "a", "--timeout", "1e99"], "--timeout"),
        (&["get", "a", "--timeout", "NaN"], "--timeout"),
        (&["scan", "--limit", "many"], "--limit"),
        (&["help", "gte"], "did you mean get?"),
        (&["completions", "csh"], "bash, zsh or fish"),
        (&["serve", "--prot", "1"], "--port"),
    ] {
        let line = refused(&run(arguments), 2);
        assert!(line.contains(named), "{arguments:?}: {line}");
    }
    let line = refused(&ask("nonsense", &["get", "a"]), 2);
    assert!(
        line.contains("DB_NODE_URL") && !line.contains("--url"),
        "{line}"
    );
    let line = refused(&ask("nonsense", &["get", "a", "--url", "wrong"]), 2);
    assert!(
        line.contains("--url") && !line.contains("DB_NODE_URL"),
        "{line}"
    );
}

#[test]
fn help_and_version_tell_about_all_commands() {
    let overview = said(&run(&["help"]));
    let commands: Vec<&str> = overview
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next())
        .filter(|word| word.chars().all(char::is_alphabetic))
        .collect();
    assert_eq!(commands[..3], ["serve", "get", "set"]);
    assert_eq!(commands.len(), 12, "{commands:?}");
    for command in &commands {
        let help = said(&run(&["help", command]));
        assert!(
            help.lines().all(|line| line.chars().count() <= 100),
            "{help}"
        );
        assert_eq!(said(&run(&[command, "--help"])), help, "{command}");
        assert_eq!(said(&run(&[command, "-h"])), help);
    }
    assert!(said(&run(&["set", "--help"])).contains("--if-none-match"));
    assert_eq!(said(&run(&["help", "serve"])), said(&run(&["--help"])));
    assert!(said(&run(&["--help"])).contains("db-node help"));
    assert_eq!(said(&run(&["version"])), said(&run(&["--version"])));
}

/// `serve` is the server, and no command still means it.
#[test]
fn serve_is_the_default() {
    for arguments in [&["serve"][..], &[]] {
        let mut command = command();
        command.args(arguments).args(["--listen", "127.0.0.1:0"]);
        let node = crate::common::Node::spawn(command);
        let url = node.address.to_string();
        said(&ask(&url, &["set", "a", "1"]));
    }
    let output = run(&["serve", "--listen", "nonsense"]);
    assert!(refused(&output, 2).contains("--listen"));
}
