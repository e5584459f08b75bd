//! How a node starts, and what it says if it cannot.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::access::TokenFile;
use crate::common::{Client, Folder, Node, command, text, wait_for};
use crate::{assert_fails, run};

/// A path in a folder.
fn path(folder: &Folder, name: &str) -> String {
    text(&folder.join(name)).to_owned()
}

/// A node that has loaded its data.
fn start_loaded(arguments: &[&str]) -> Node {
    let node = Node::start(arguments);
    wait_for("the node to load", || {
        node.request("GET", "/readyz", &[], b"").status == 200
    });
    node
}

/// All files below a folder, with what they hold.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.push((path.clone(), Vec::new()));
            found.extend(contents(&path));
        } else {
            found.push((path.clone(), std::fs::read(&path).expect("read")));
        }
    }
    found.sort();
    found
}

/// What `--check` says with these options, and ports that are free unless they are given: exit
/// code, and the line.
fn check(arguments: &[&str]) -> (i32, String) {
    let mut command = command();
    command.args(["--check", "-p", "0"]).args(arguments);
    checked(command)
}

fn checked(mut command: Command) -> (i32, String) {
    let output = command.output().expect("run");
    let code = output.status.code().expect("a code");
    let (said, silent) = match code {
        0 => (output.stdout, output.stderr),
        _ => (output.stderr, output.stdout),
    };
    assert_eq!(silent, b"");
    let line = String::from_utf8(said).expect("text");
    assert!(line.ends_with('\n') && line.lines().count() == 1, "{line}");
    (code, line)
}

#[test]
fn a_check_says_what_a_start_would_find_and_changes_nothing() {
    let folder = Folder::new("check");
    let data = path(&folder, "a/b/data");
    let (code, line) = check(&[]);
    assert_eq!(code, 0, "{line}");
    assert!(
        line.contains("http://127.0.0.1:0, in memory only"),
        "{line}"
    );
    let (code, line) = check(&["--data-dir", &data]);
    assert!(code == 0 && line.contains("empty so far"), "{line}");
    assert_eq!(contents(&folder.0), []);

    // Parents are made as `mkdir -p` makes them.
    let node = start_loaded(&["--data-dir", &data]);
    let mut client = node.connect();
    for key in ["a", "b", "c"] {
        let response = client.request("PUT", &format!("/kv/{key}"), &[], b"v");
        assert_eq!(response.status, 201);
    }
    let backup = path(&folder, "backup");
    let snapshot = client.request("GET", "/snapshot", &[], b"");
    std::fs::write(&backup, &snapshot.body).expect("write");
    let (code, line) = check(&["--data-dir", &data]);
    assert!(code == 0 && line.contains("were not read)"), "{line}");
    // The node that is to be replaced has the port.
    let address = node.address.to_string();
    let (code, line) = check(&["--data-dir", &data, "--listen", &address]);
    let in_use = format!("a node can start once {address} is free, which is in use now: ");
    assert!(code == 0 && line.contains(&in_use), "{line}");
    let (code, line) = check(&["--replication-listen", &address]);
    assert!(code == 0 && line.contains(&in_use), "{line}");
    let (code, line) = check(&["--listen", "192.0.2.1:9001", "--allow-open"]);
    assert!(
        code == 2 && line.contains("cannot listen on 192.0.2.1"),
        "{line}"
    );
    let other = path(&folder, "other");
    assert_eq!(client.request("GET", "/livez", &[], b"").status, 200);
    drop(client);
    drop(node);

    let before = contents(&folder.0);
    let (code, line) = check(&["--data-dir", &data]);
    assert!(
        code == 0 && line.contains("whole, partition 0 at version 3"),
        "{line}"
    );
    let (code, line) = check(&["--restore", &backup, "--data-dir", &other]);
    assert!(
        code == 0 && line.contains("is whole, at version 3"),
        "{line}"
    );
    for (arguments, expected) in [
        (
            &["--data-dir", &data, "--restore", &backup][..],
            "already holds data",
        ),
        (&["--restore", &path(&folder, "none")], "No such file"),
        (&["--restore", "Cargo.toml"], "is not a whole backup"),
        (&["--data-dir", &path(&folder, "backup")], "cannot be made"),
        (
            &["--data-dir", &path(&folder, "backup/x")],
            "cannot be made",
        ),
        (&["--data-dir", &path(&folder, "")], "no data of a node"),
        (&["--log", "loud"], "--log loud"),
    ] {
        let (code, line) = check(arguments);
        assert!(
            code == 2 && line.contains(expected),
            "{arguments:?}: {line}"
        );
    }
    assert_eq!(contents(&folder.0), before);

    // Damage in the middle of the log is found, and what its acceptance would cost.
    let is_log = |(path, _): &&(PathBuf, Vec<u8>)| path.extension().is_some_and(|e| e == "log");
    let (log, bytes) = before.iter().find(is_log).expect("a log file");
    let mut bytes = bytes.clone();
    let at = bytes
        .iter()
        .position(|byte| *byte == b'v')
        .expect("a value");
    bytes[at] ^= 1;
    std::fs::write(log, bytes).expect("write");
    let before = contents(&folder.0);
    let (code, line) = check(&["--data-dir", &data]);
    assert!(code == 2 && line.contains("is damaged at byte"), "{line}");
    let (code, line) = check(&["--data-dir", &data, "--accept-data-loss"]);
    assert!(code == 0 && line.contains("and lost: "), "{line}");
    assert_eq!(contents(&folder.0), before);
}

/// A command for a process that obeys the modes of files, as root does without these rights.
fn command_without_rights() -> Command {
    let mut setpriv = Command::new("setpriv");
    setpriv
        .arg("--bounding-set=-dac_override,-dac_read_search")
        .arg(command().get_program())
        .env_clear();
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    if is_root { setpriv } else { command() }
}

/// Where a start could not write, the check says so, and names the path.
#[test]
fn a_check_finds_what_cannot_be_written() {
    let folder = Folder::new("check-modes");
    let data = path(&folder, "data");
    let node = start_loaded(&["--data-dir", &data]);
    assert_eq!(node.request("PUT", "/kv/a", &[], b"v").status, 201);
    drop(node);
    let partition = format!("{data}/partition-0");
    let is_log = |(path, _): &(PathBuf, Vec<u8>)| path.extension().is_some_and(|e| e == "log");
    let (log, _) = contents(&folder.0).into_iter().find(is_log).expect("a log");
    let log = text(&log);
    let run = |arguments: &[&str]| {
        let mut command = command_without_rights();
        let always = ["-p", "0", "--data-dir", &data];
        command.args(arguments).args(always);
        command
    };
    for (path, mode) in [
        (data.clone(), 0o555),
        (format!("{data}/lock"), 0o444),
        (partition, 0o555),
        (log.to_owned(), 0o444),
    ] {
        let before = std::fs::metadata(&path).expect("there").permissions();
        let set = |mode| std::fs::set_permissions(&path, mode).expect("set");
        set(Permissions::from_mode(mode));
        let (code, line) = checked(run(&["--check"]));
        // A folder may be found wanting by the start only when it first makes a file there.
        let output = (path == log).then(|| run(&[]).output().expect("run"));
        set(before);
        assert!(
            code == 2 && line.contains(&path) && line.contains("ermission denied"),
            "{path}: {line}"
        );
        if let Some(output) = output {
            let told = String::from_utf8(output.stderr).expect("text");
            assert!(!output.status.success() && told.contains(&path), "{told}");
        }
    }
    let (code, line) = checked(run(&["--check"]));
    assert!(code == 0 && line.contains("whole"), "{line}");
}

/// A check and a start agree on the least number of descriptors.
#[test]
fn a_check_counts_descriptors_as_a_start_does() {
    let limited = |limit: usize, arguments: &[&str]| {
        let mut shell = Command::new("sh");
        let script = format!("ulimit -n {limit} && exec \"$0\" \"$@\"");
        shell.arg("-c").arg(script).arg(command().get_program());
        shell.args(["-p", "0"]).args(arguments).env_clear();
        shell
    };
    for off in [&[][..], &["--replication-listen", "off"]] {
        let start = limited(30, off).output().expect("run");
        let refused = assert_fails(&start, 1);
        let (code, line) = checked(limited(30, &[off, &["--check"]].concat()));
        assert_eq!((code, line.trim()), (2, refused.trim()));
        let needed: usize = refused
            .split_once("and ")
            .and_then(|(_, rest)| rest.split_once(" are needed"))
            .and_then(|(number, _)| number.parse().ok())
            .unwrap_or_else(|| panic!("{refused}"));
        // Of a higher limit a little more is kept for partitions to come.
        let (code, line) = checked(limited(needed + 4, &[off, &["--check"]].concat()));
        assert_eq!(code, 0, "{line}");
    }
}

/// Lines that a node logs as warnings.
fn warnings(log: &str) -> Vec<&str> {
    let is_warning = |line: &&str| line.split(' ').nth(1) == Some("WARN");
    log.lines().filter(is_warning).collect()
}

/// Without its disk, a data directory looks new: the start says that it holds no data.
#[test]
fn a_start_from_a_directory_without_data_is_warned_of() {
    let folder = Folder::new("fresh");
    let data = path(&folder, "data");
    let start_and_end = |more: &[&str]| {
        let mut node = start_loaded(&[&["--data-dir", &data], more].concat());
        let response = node.request("PUT", "/kv/a", &[], b"v");
        node.signal("TERM");
        node.wait();
        (
            response.status,
            node.first_lines.clone() + &node.rest_of_log(),
        )
    };
    let (status, log) = start_and_end(&[]);
    let expected =
        format!("data directory {data} holds no data: this node starts empty, and leads");
    assert_eq!(status, 201);
    assert!(
        matches!(&warnings(&log)[..], [line] if line.ends_with(&expected)),
        "{log}"
    );
    let (status, log) = start_and_end(&[]);
    assert_eq!((status, warnings(&log)), (200, Vec::new()), "{log}");
    // A partition that was deleted is missed as well.
    std::fs::remove_dir_all(folder.join("data/partition-0")).expect("remove");
    let (status, log) = start_and_end(&[]);
    assert_eq!(status, 201);
    assert!(log.contains(&expected), "{log}");

    let node_log = |more: &[&str]| {
        let other = path(&folder, "other");
        let mut node = Node::start(&[&["--data-dir", &other], more].concat());
        node.signal("TERM");
        node.wait();
        std::mem::take(&mut node.first_lines)
    };
    let log = node_log(&["--await-assignment"]);
    assert!(log.contains("this node starts empty\n"), "{log}");
    let log = node_log(&["--replica-of", "http://127.0.0.1:1"]);
    assert!(
        log.contains("starts empty, and gets all data from its leader\n"),
        "{log}"
    );
}

/// The umask does not matter.
#[test]
fn no_other_user_may_read_the_data() {
    let folder = Folder::new("private");
    let data = path(&folder, "a/data");
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "umask 000 && exec \"$0\" \"$@\""])
        .arg(command().get_program())
        .args(["--listen", "127.0.0.1:0", "--data-dir", &data]);
    let mut node = Node::spawn(shell);
    wait_for("the node to load", || {
        node.request("GET", "/readyz", &[], b"").status == 200
    });
    assert_eq!(node.request("PUT", "/kv/a", &[], b"v").status, 201);
    let order = br#"{"id":0,"role":"leader","epoch":3}"#;
    let assigned = node.request("POST", "/partition/assign", &[], order);
    assert_eq!(assigned.status, 200, "{}", assigned.text());
    assert_eq!(
        node.request("POST", "/admin/checkpoint", &[], b"").status,
        202
    );
    let is_checkpoint =
        |(path, _): &(PathBuf, Vec<u8>)| path.extension().is_some_and(|e| e == "dbn");
    wait_for("a checkpoint", || {
        contents(&folder.join("a")).iter().any(is_checkpoint)
    });
    node.signal("TERM");
    node.wait();
    let found = contents(&folder.0);
    for name in ["a", "lock", "log-end", "partition-0", "partition.json"] {
        assert!(found.iter().any(|(path, _)| path.ends_with(name)), "{name}");
    }
    for (path, _) in found {
        let metadata = path.metadata().expect("it is there");
        let expected = if metadata.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(metadata.permissions().mode() & 0o777, expected, "{path:?}");
    }
}

/// A variable that looks like a misspelt one is warned of; the start goes on.
#[test]
fn a_misspelt_variable_is_named() {
    let mut node = command();
    node.args(["--check", "-p", "0"])
        .env("DB_NODE_LISTN", "127.0.0.1:9001");
    let output = node.output().expect("run");
    assert_eq!(output.status.code(), Some(0));
    let warning = String::from_utf8(output.stderr).expect("text");
    assert!(
        warning.contains("DB_NODE_LISTN") && warning.contains("did you mean DB_NODE_LISTEN?"),
        "{warning}"
    );
}

/// What cannot be restored is said alone, before the node says that it listens.
#[test]
fn a_backup_that_cannot_be_restored_is_the_only_line() {
    let folder = Folder::new("restore");
    let data = path(&folder, "data");
    let node = start_loaded(&["--data-dir", &data]);
    node.request("PUT", "/kv/a", &[], b"v");
    let backup = path(&folder, "backup");
    let bytes = node.request("GET", "/snapshot", &[], b"").body;
    std::fs::write(&backup, &bytes).expect("write");
    drop(node);
    for (arguments, code, expected) in [
        (
            &["--restore", &path(&folder, "none")][..],
            2,
            "name a file that GET /snapshot gave",
        ),
        (
            &[
                "--restore",
                &path(&folder, "none"),
                "--data-dir",
                &path(&folder, "new"),
            ],
            2,
            "name a file",
        ),
        (
            &["--restore", &backup, "--data-dir", &data],
            2,
            "already holds data",
        ),
        (&["--restore", "Cargo.toml"], 1, "is not a whole backup"),
    ] {
        let line = assert_fails(&run(arguments), code);
        assert!(line.contains(expected), "{line}");
    }
}

#[test]
fn a_start_says_what_to_do_next() {
    let lines = |arguments: &[&str]| {
        let mut node = Node::start(arguments);
        node.signal("TERM");
        node.wait();
        node.rest_of_log()
    };
    let log = lines(&[]);
    assert!(log.contains("try: curl http://127.0.0.1:"), "{log}");
    assert!(log.contains("/ in a browser"), "{log}");
    assert!(
        log.contains("--data-dir DIR to keep it") && !log.contains("is open"),
        "{log}"
    );
    assert!(log.lines().count() <= 4, "{log}");
    let log = lines(&["--await-assignment"]);
    assert!(log.contains("/status") && !log.contains("/set"), "{log}");
    let folder = Folder::new("greeting-data");
    let log = lines(&["--data-dir", &path(&folder, "data")]);
    assert!(!log.contains("to keep it"), "{log}");
    let open = ["--replication-listen", "0.0.0.0:0", "--allow-open"];
    let log = lines(&open);
    assert!(log.contains("this node is open"), "{log}");
    let token = TokenFile::new("greeting", "correct-horse-battery-staple");
    let log = lines(&[
        "--replication-listen",
        "0.0.0.0:0",
        "--token-file",
        token.path(),
    ]);
    assert!(
        log.contains("Bearer TOKEN") && !log.contains("is open"),
        "{log}"
    );
}

#[test]
fn what_cannot_start_says_why_in_one_line() {
    let node = Node::start(&[]);
    let taken = node.address.to_string();
    let line = assert_fails(&run(&["--listen", &taken]), 1);
    assert!(line.contains(&taken) && line.contains("--listen"), "{line}");
    assert_eq!(node.request("GET", "/livez", &[], b"").status, 200);
    let short = TokenFile::new("short", "short");
    for (arguments, named) in [
        (&["--lsiten", "127.0.0.1:0"][..], "--listen"),
        (&["--listen"], "--listen"),
        (&["--listen", "nonsense"], "--listen"),
        (&["--max-connections", "0"], "--max-connections"),
        (&["--max-value-bytes", "-1"], "--max-value-bytes"),
        (&["--idle-timeout-ms", "1s"], "--idle-timeout-ms"),
        (&["--token-file", "/nowhere/token"], "--token-file"),
        (&["--token-file", short.path()], "--token-file"),
        (&["--log", "loud"], "--log"),
        (&["--allowed-host", "http://x"], "--allowed-host"),
        (&["-x"], "--help"),
        (&["word"], "db-node help"),
    ] {
        let line = assert_fails(&run(arguments), 2);
        assert!(line.contains(named), "{arguments:?}: {line}");
    }
    let output = command()
        .env("DB_NODE_MAX_CONNECTIONS", "many")
        .output()
        .expect("run");
    assert!(assert_fails(&output, 2).contains("DB_NODE_MAX_CONNECTIONS"));
    let output = command().env("DB_NODE_DATA_DIR", "").output().expect("run");
    assert!(assert_fails(&output, 2).contains("DB_NODE_DATA_DIR: its value is empty"));
}

#[test]
fn help_and_version() {
    for flag in ["--help", "-h"] {
        let output = run(&[flag]);
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(text.lines().count() <= 50, "more than one screen:\n{text}");
        assert!(
            text.lines().all(|line| line.chars().count() <= 90),
            "too wide a screen:\n{text}"
        );
        for option in [
            "--listen",
            "--token-file",
            "--max-value-bytes",
            "--allow-open",
            "--version",
            "DB_NODE_",
        ] {
            assert!(text.contains(option), "{option}");
        }
    }
    for flag in ["--version", "-V"] {
        let output = run(&[flag]);
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
        let commit = db_node::COMMIT.map_or(String::new(), |commit| format!(" ({commit})"));
        let expected = format!("db-node {}{commit}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(String::from_utf8(output.stdout).expect("text"), expected);
    }
}

/// Touching a huge page for the first time would hold the loop for milliseconds.
#[test]
fn no_memory_is_backed_with_huge_pages() {
    let node = Node::start(&[]);
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("read /proc");
    // Kernels without huge pages do not say.
    if let Some(line) = status.lines().find(|line| line.starts_with("THP_enabled:")) {
        assert_eq!(line.split_whitespace().last(), Some("0"), "{line}");
    }
}

fn thread_count(node: &Node) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", node.pid()))
        .expect("read /proc")
        .count()
}

#[test]
fn one_thread_does_everything() {
    let node = Node::start(&["--memtable-bytes", "64KiB"]);
    assert_eq!(thread_count(&node), 1);
    let mut clients: Vec<Client> = (0..50).map(|_| node.connect()).collect();
    for round in 0..40 {
        for (index, client) in clients.iter_mut().enumerate() {
            client.send_request("PUT", &format!("/kv/{round}-{index}"), &[], &[b'v'; 200]);
        }
        assert_eq!(thread_count(&node), 1);
        for client in &mut clients {
            assert_eq!(client.response(false).status, 201);
        }
    }
    assert_eq!(thread_count(&node), 1);
}
