//! A real node as a child process, and a client that shows every byte.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The longest that anything here waits: for slow machines, never for luck.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A node on a port that the system chose; killed when dropped.
pub struct Node {
    child: Child,
    pub address: SocketAddr,
    log: std::sync::mpsc::Receiver<String>,
}

impl Node {
    pub fn start(arguments: &[&str]) -> Self {
        let mut child = command()
            .args(["--listen", "127.0.0.1:0"])
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .expect("start the node");
        let stderr = child.stderr.take().expect("piped");
        let (sender, log) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let first = log.recv_timeout(PATIENCE).expect("the node says where it listens");
        let (_, rest) = first.split_once("http://").unwrap_or_else(|| panic!("no address in {first:?}"));
        let address = rest.split([',', ' ']).next().expect("an address").parse().expect("an address");
        Self { child, address, log }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("set a time-out");
        stream.set_write_timeout(Some(PATIENCE)).expect("set a time-out");
        stream.set_nodelay(true).expect("set nodelay");
        Client { stream, unread: Vec::new() }
    }

    /// One request on a connection of its own.
    pub fn request(&self, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Response {
        let mut client = self.connect();
        client.send_request(method, target, headers, body);
        client.response(method == "HEAD")
    }

    pub fn status(&self) -> serde_json::Value {
        self.request("GET", "/status", &[], b"").json()
    }

    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().expect("run kill").success());
    }

    /// Waits for the node to end by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "the node does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether the process is still there.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_none()
    }

    /// A line of `/proc/PID/status`, in KiB.
    pub fn memory_kib(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("read /proc");
        let line = status.lines().find(|line| line.starts_with(field)).expect(field);
        line.split_ascii_whitespace().nth(1).expect("a number").parse().expect("a number")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program, without the environment of whoever runs the tests.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_db-node"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DB_NODE_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Waits until `condition` holds.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A connection.
pub struct Client {
    pub stream: TcpStream,
    unread: Vec<u8>,
}

/// A response as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("send");
    }

    pub fn send_request(&mut self, method: &str, target: &str, headers: &[&str], body: &[u8]) {
        let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n").into_bytes();
        for header in headers {
            bytes.extend_from_slice(format!("{header}\r\n").as_bytes());
        }
        let says_length = headers.iter().any(|header| {
            let header = header.to_ascii_lowercase();
            header.starts_with("content-length") || header.starts_with("transfer-encoding")
        });
        if !says_length && (!body.is_empty() || method == "POST" || method == "PUT") {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(body);
        self.send(&bytes);
    }

    pub fn request(&mut self, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Response {
        self.send_request(method, target, headers, body);
        self.response(method == "HEAD")
    }

    fn read_more(&mut self) -> bool {
        let mut buffer = [0; 64 * 1024];
        let count = self.stream.read(&mut buffer).expect("read");
        self.unread.extend_from_slice(&buffer[..count]);
        count > 0
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count {
            assert!(self.read_more(), "the connection ended early: {:?}", String::from_utf8_lossy(&self.unread));
        }
        self.unread.drain(..count).collect()
    }

    fn take_line(&mut self) -> String {
        loop {
            if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.take(end + 2);
                return String::from_utf8(line[..end].to_vec()).expect("a line of text");
            }
            assert!(self.read_more(), "the connection ended early: {:?}", String::from_utf8_lossy(&self.unread));
        }
    }

    /// The next response; `is_head`: to a HEAD request, so without a body.
    pub fn response(&mut self, is_head: bool) -> Response {
        let line = self.take_line();
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{line:?}"));
        let mut headers = Vec::new();
        loop {
            let line = self.take_line();
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line:?}"));
            headers.push((name.to_owned(), value.to_owned()));
        }
        let mut response = Response { status, headers, body: Vec::new() };
        if is_head || status == 204 || status == 304 || status < 200 {
            return response;
        }
        if response.header("Transfer-Encoding") == Some("chunked") {
            loop {
                let size = usize::from_str_radix(&self.take_line(), 16).expect("a chunk size");
                response.body.extend(self.take(size));
                assert_eq!(self.take_line(), "");
                if size == 0 {
                    break;
                }
            }
        } else {
            let length = response.header("Content-Length").expect("a length").parse().expect("a number");
            response.body = self.take(length);
        }
        response
    }

    /// Everything up to the end of the connection; an error (such as a reset) is a failure.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        while self.read_more() {}
        std::mem::take(&mut self.unread)
    }
}
