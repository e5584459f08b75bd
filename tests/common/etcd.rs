//! A real `etcd` as a child process, on ports that are free.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::{Value as Json, json};

use super::{Client, Folder, PATIENCE, let_pass, text};

/// Tries to find ports that nothing else takes meanwhile.
const TRY_MAX: usize = 5;

/// An `etcd` of one member with empty data; killed when dropped.
pub struct Etcd {
    child: Option<Child>,
    pub address: SocketAddr,
    peer: SocketAddr,
    folder: Folder,
}

impl Etcd {
    /// None, and says so, if there is no `etcd` on this machine.
    pub fn start() -> Option<Self> {
        let version = Command::new("etcd").arg("--version").output();
        if version.is_err() {
            eprintln!("etcd is not installed: this test is passed over");
            return None;
        }
        for _ in 0..TRY_MAX {
            let [address, peer] = free_addresses();
            let mut etcd = Self {
                child: None,
                address,
                peer,
                folder: Folder::new("etcd"),
            };
            if etcd.run() {
                return Some(etcd);
            }
        }
        panic!("etcd does not start");
    }

    /// Starts the process, on the data that there is; false if it ends again.
    pub fn run(&mut self) -> bool {
        let (own, peer) = (self.url(), format!("http://{}", self.peer));
        let log = std::fs::File::create(self.folder.join("log")).expect("create");
        let mut command = Command::new("etcd");
        command
            .args(["--data-dir", text(&self.folder.join("data"))])
            .args(["--listen-client-urls", &own])
            .args(["--advertise-client-urls", &own])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let child = self.child.insert(command.spawn().expect("start etcd"));
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if child.try_wait().expect("wait").is_some() {
                return false;
            }
            if is_healthy(self.address) {
                return true;
            }
            let_pass(std::time::Duration::from_millis(20));
        }
        panic!("etcd is not ready: see {}", self.folder.path());
    }

    /// Ends the process at once; its data stays.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends the process, keeps what it has as a backup, and starts it again.
    pub fn back_up(&mut self) {
        self.kill();
        copy(&self.folder.join("data"), &self.folder.join("backup"));
        assert!(self.run());
    }

    /// Ends the process, and starts it again with what the backup has.
    pub fn restore(&mut self) {
        self.kill();
        let data = self.folder.join("data");
        std::fs::remove_dir_all(&data).expect("remove");
        copy(&self.folder.join("backup"), &data);
        assert!(self.run());
    }

    pub fn signal(&self, name: &str) {
        let child = self.child.as_ref().expect("it runs");
        let pid = child.id().to_string();
        let kill = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(kill.expect("run kill").success());
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A call of the JSON gateway that has to succeed.
    pub fn call(&self, path: &str, body: &Json) -> Json {
        let body = body.to_string();
        let answer = Client::to(self.address).request("POST", path, &[], body.as_bytes());
        assert_eq!(answer.status, 200, "{path} {body}: {}", answer.text());
        answer.json()
    }

    /// From now on requests need a user: `root`, or `name`, which may use keys from `first` to
    /// `end` (base64).
    pub fn require_users(&self, name: &str, password: &str, [first, end]: [&str; 2]) {
        for [name, password] in [["root", "root"], [name, password]] {
            let user = json!({"name": name, "password": password});
            self.call("/v3/auth/user/add", &user);
        }
        self.call("/v3/auth/role/add", &json!({"name": "part"}));
        let permission = json!({"permType": "READWRITE", "key": first, "range_end": end});
        let grant = json!({"name": "part", "perm": permission});
        self.call("/v3/auth/role/grant", &grant);
        for [user, role] in [["root", "root"], [name, "part"]] {
            let grant = json!({"user": user, "role": role});
            self.call("/v3/auth/user/grant", &grant);
        }
        self.call("/v3/auth/enable", &json!({}));
    }

    pub fn folder(&self) -> &Path {
        &self.folder.0
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-r").args([from, to]).status();
    assert!(copied.expect("run cp").success());
}

fn free_addresses() -> [SocketAddr; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("bind"));
    listeners.map(|listener| listener.local_addr().expect("an address"))
}

fn is_healthy(address: SocketAddr) -> bool {
    std::net::TcpStream::connect(address).is_ok() && {
        let answer = Client::to(address).request("GET", "/health", &[], b"");
        answer.status == 200
    }
}
