//! `snapshot`.

use std::fs::Permissions;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;

use crate::common::member::Member;
use crate::common::{Folder, text, version_of, wait_for};
use crate::{ask, ask_on_terminal, client, refused, said};

/// Asserts that a file is a backup of all that a node has.
#[track_caller]
fn assert_restores(backup: &Path, node: &Member) {
    let restored = Member::start(&["--restore", text(backup)]);
    wait_for("the backup to be read", || {
        restored.get("/readyz").status == 200
    });
    assert_eq!(restored.digest()["digest"], node.digest()["digest"]);
}

#[test]
fn a_backup_starts_a_node() {
    let node = Member::start(&[]);
    let (url, folder) = (&node.url(), Folder::new("client"));
    node.fill(0..3000, 1000);
    let path = folder.join("backup.dbn");
    let token = said(&ask(url, &["snapshot", text(&path)]));
    assert_eq!(version_of(token.trim_end()), 3000);
    assert_eq!(std::fs::read_dir(&folder.0).expect("a folder").count(), 1);
    assert_restores(&path, &node);
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

/// Only a regular file is replaced: nodes of devices, pipes and links stay what they are.
#[test]
fn what_is_no_regular_file_is_written_in_place() {
    let node = Member::start(&[]);
    let (url, folder) = (&node.url(), Folder::new("client"));
    node.fill(0..1000, 1000);
    let piped = ask(url, &["snapshot", "-"]);
    assert_eq!(piped.status.code(), Some(0));
    assert!(piped.stderr.is_empty());
    let copy = folder.join("copy");
    std::fs::write(&copy, piped.stdout).expect("write");
    assert_restores(&copy, &node);
    // A pipe with a name.
    let fifo = folder.join("fifo");
    let mode = Mode::from_raw_mode(0o600);
    mknodat(CWD, &fifo, FileType::Fifo, mode, 0).expect("mkfifo");
    let child = (client(url).args(["snapshot", text(&fifo)]))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run");
    std::fs::write(&copy, std::fs::read(&fifo).expect("read")).expect("write");
    assert_restores(&copy, &node);
    assert_eq!(
        version_of(said(&child.wait_with_output().expect("wait")).trim_end()),
        1000
    );
    let kind = |path| std::fs::symlink_metadata(path).expect("there").file_type();
    assert!(kind(&fifo).is_fifo());
    // A link, and the permissions of what it leads to.
    let (file, link) = (folder.join("file"), folder.join("link"));
    std::fs::write(&file, "older").expect("write");
    let chmod = |mode| std::fs::set_permissions(&file, Permissions::from_mode(mode));
    chmod(0o640).expect("chmod");
    std::os::unix::fs::symlink("file", &link).expect("link");
    said(&ask(url, &["snapshot", text(&link)]));
    assert!(kind(&link).is_symlink());
    assert_restores(&file, &node);
    let mode = std::fs::metadata(&file)
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o640);
    // What is protected, and a link to nothing.
    chmod(0o444).expect("chmod");
    let problem = refused(&ask(url, &["snapshot", text(&file)]), 2);
    assert!(problem.contains("permission"), "{problem}");
    std::fs::remove_file(&copy).expect("remove");
    std::fs::remove_file(&file).expect("remove");
    refused(&ask(url, &["snapshot", text(&link)]), 2);
    assert!(kind(&link).is_symlink());
    assert_eq!(std::fs::read_dir(&folder.0).expect("a folder").count(), 2);
    let (code, shown) = ask_on_terminal(url, "snapshot -");
    assert!(code == Some(2) && shown.contains("redirect it"), "{shown}");
}

/// A device: made here, where that is allowed, and not one that others use.
#[test]
fn a_device_stays_a_device() {
    let node = Member::start(&[]);
    let folder = Folder::new("client");
    for (name, minor, code) in [("null", 3, 0), ("full", 7, 2)] {
        let path = folder.join(name);
        let mode = Mode::from_raw_mode(0o600);
        let device = rustix::fs::makedev(1, minor);
        if let Err(error) = mknodat(CWD, &path, FileType::CharacterDevice, mode, device) {
            eprintln!("no device can be made here ({error}): not tried");
            return;
        }
        let output = ask(&node.url(), &["snapshot", text(&path)]);
        assert_eq!(output.status.code(), Some(code), "{name}");
        let kind = std::fs::symlink_metadata(&path).expect("there").file_type();
        assert!(kind.is_char_device());
    }
    assert_eq!(std::fs::read_dir(&folder.0).expect("a folder").count(), 2);
}

/// Ctrl-C leaves nothing behind, nor does what else ends a program.
#[test]
fn an_interrupted_backup_leaves_no_file() {
    for signal in [Signal::INT, Signal::HUP, Signal::QUIT, Signal::TERM] {
        interrupt_backup(signal);
    }
}

fn interrupt_backup(signal: Signal) {
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
        u64::from_str_radix(caught.expect("a line"), 16).expect("digits")
            & (1 << (signal.as_raw() - 1))
            != 0
    });
    rustix::process::kill_process(pid, signal).expect("kill");
    let output = child.wait_with_output().expect("wait");
    refused(&output, 130);
    assert_eq!(std::fs::read_dir(&folder.0).expect("a folder").count(), 0);
    node.thaw();
}
