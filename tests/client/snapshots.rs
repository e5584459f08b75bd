//! `snapshot`.

use std::process::Stdio;

use crate::common::member::Member;
use crate::common::{Folder, text, version_of, wait_for};
use crate::{ask, ask_on_terminal, client, refused, said};

#[test]
fn a_backup_starts_a_node() {
    let node = Member::start(&[]);
    let (url, folder) = (&node.url(), Folder::new("client"));
    node.fill(0..3000, 1000);
    let path = folder.join("backup.dbn");
    let token = said(&ask(url, &["snapshot", text(&path)]));
    assert_eq!(version_of(token.trim_end()), 3000);
    assert_eq!(std::fs::read_dir(&folder.0).expect("a folder").count(), 1);
    let restored = Member::start(&["--restore", text(&path)]);
    wait_for("the backup to be read", || {
        restored.get("/readyz").status == 200
    });
    assert_eq!(restored.digest()["digest"], node.digest()["digest"]);
    // Over an older one, and with JSON.
    let json = said(&ask(url, &["snapshot", "--json", text(&path)]));
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let bytes = std::fs::metadata(&path).expect("there").len();
    assert_eq!(
        (&json["bytes"], &json["etag"]),
        (&bytes.into(), &token.trim_end().into())
    );
    let line = refused(&ask(url, &["snapshot", "/nowhere/backup.dbn"]), 2);
    assert!(line.contains("/nowhere/backup.dbn"), "{line}");
    refused(&ask(url, &["snapshot", folder.path()]), 2);
    assert_eq!(std::fs::read_dir(&folder.0).expect("a folder").count(), 1);
}

#[test]
fn a_terminal_shows_how_far_it_is() {
    let node = Member::start(&[]);
    let folder = Folder::new("client");
    node.fill(0..2000, 10_000);
    let path = folder.join("backup.dbn");
    let arguments = format!("snapshot {}", text(&path));
    let (code, shown) = ask_on_terminal(&node.url(), &arguments);
    assert!(
        code == Some(0) && shown.contains("/s [") && shown.contains("] "),
        "{shown:?}"
    );
    let last = shown.rsplit("\u{1b}[K").next().expect("a last line");
    assert!(
        last.starts_with(text(&path)) && last.contains("MiB, version 2000-"),
        "{last}"
    );
}

/// Ctrl-C leaves nothing behind.
#[test]
fn an_interrupted_backup_leaves_no_file() {
    let node = Member::start(&[]);
    let folder = Folder::new("client");
    node.fill(0..2000, 10_000);
    node.freeze();
    let mut command = client(&node.url());
    command.args(["snapshot", text(&folder.join("backup.dbn"))]);
    let child = command.stderr(Stdio::piped()).spawn().expect("run");
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).expect("a process");
    let status = format!("/proc/{}/status", child.id());
    // It heeds the signal from when it has sent its request on.
    wait_for("it to wait", || {
        let status = std::fs::read_to_string(&status).expect("read");
        let caught = status
            .lines()
            .find_map(|line| line.strip_prefix("SigCgt:\t"));
        u64::from_str_radix(caught.expect("a line"), 16).expect("digits") & 0b10 != 0
    });
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("kill");
    let output = child.wait_with_output().expect("wait");
    refused(&output, 130);
    assert_eq!(std::fs::read_dir(&folder.0).expect("a folder").count(), 0);
    node.thaw();
}
