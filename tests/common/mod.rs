//! A real node as a child process, and a client that shows every byte.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(
    unreachable_pub,
    missing_docs,
    reason = "a module of each test binary, which is no one's library"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "tests are the outside: they have clocks and sockets of their own"
)]

pub mod etcd;
pub mod member;
pub mod seeds;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The longest that anything here waits: for slow machines, never for luck.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A node on a port that the system chose; killed when dropped.
pub struct Node {
    child: Child,
    pub address: SocketAddr,
    /// What it logged before it said where it listens.
    pub first_lines: String,
    stderr: Option<BufReader<ChildStderr>>,
}

impl Node {
    pub fn start(arguments: &[&str]) -> Self {
        let mut command = command();
        command.args(["--listen", "127.0.0.1:0"]).args(arguments);
        Self::spawn(command)
    }

    /// Starts what `command` says, which is to become a node.
    pub fn spawn(command: Command) -> Self {
        Self::try_spawn(command)
            .unwrap_or_else(|(_, log)| panic!("the node does not say where it listens: {log}"))
    }

    /// Starts what `command` says, which may become a node; if it ends before it listens: how, and
    /// what it said.
    pub fn try_spawn(mut command: Command) -> Result<Self, (ExitStatus, String)> {
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .expect("start the node");
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut log = String::new();
        let address = loop {
            let mut line = String::new();
            if stderr.read_line(&mut line).expect("read the log") == 0 {
                return Err((child.wait().expect("wait"), log));
            }
            if let Some((_, rest)) = line.split_once("http://") {
                break rest
                    .split([',', ' '])
                    .next()
                    .expect("an address")
                    .parse()
                    .expect("an address");
            }
            log.push_str(&line);
        };
        Ok(Self {
            child,
            address,
            first_lines: log,
            stderr: Some(stderr),
        })
    }

    /// Closes the reading end of the node's standard error.
    pub fn close_stderr(&mut self) {
        self.stderr = None;
    }

    /// Leaves one page of room in the pipe of the node's standard error.
    pub fn shrink_stderr(&mut self) {
        let pipe = self.stderr.as_ref().expect("not closed").get_ref();
        rustix::pipe::fcntl_setpipe_size(pipe, 4096).expect("set the size");
    }

    /// The rest of the log, once the node has ended.
    pub fn rest_of_log(&mut self) -> String {
        let mut text = String::new();
        self.stderr
            .take()
            .expect("not closed")
            .read_to_string(&mut text)
            .expect("read the log");
        text
    }

    /// Reads on behind what was read, in a thread of its own: so the pipe never fills up, and
    /// nothing is dropped.
    pub fn collect_log(&mut self) -> NodeLog {
        let mut stderr = self.stderr.take().expect("not closed");
        let log = NodeLog::default();
        let text = Arc::clone(&log.text);
        std::thread::spawn(move || {
            let mut line = String::new();
            while stderr.read_line(&mut line).is_ok_and(|len| len > 0) {
                text.lock()
                    .expect("no panic")
                    .push_str(&std::mem::take(&mut line));
            }
        });
        log
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn connect(&self) -> Client {
        Client::to(self.address)
    }

    /// A connection that receives into a small buffer, so that the node cannot send far ahead of
    /// what is read.
    pub fn connect_with_small_buffer(&self) -> Client {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
            .expect("a socket");
        socket
            .set_recv_buffer_size(32 * 1024)
            .expect("set the buffer");
        socket.connect(&self.address.into()).expect("connect");
        Client::new(socket.into())
    }

    /// Returns once the node has dealt with what was sent to it before: it has one thread, and
    /// serves first come first.
    pub fn settle(&self) {
        assert_eq!(
            self.request("GET", "/livez", &["Connection: close"], b"")
                .status,
            200
        );
    }

    /// One request on a connection of its own.
    pub fn request(&self, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Response {
        self.connect().request(method, target, headers, body)
    }

    pub fn status(&self) -> serde_json::Value {
        self.request("GET", "/status", &[], b"").json()
    }

    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &pid])
                .status()
                .expect("run kill")
                .success()
        );
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
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("read /proc");
        let line = status
            .lines()
            .find(|line| line.starts_with(field))
            .expect(field);
        line.split_ascii_whitespace()
            .nth(1)
            .expect("a number")
            .parse()
            .expect("a number")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a node says, as it comes.
#[derive(Clone, Default)]
pub struct NodeLog {
    text: Arc<Mutex<String>>,
}

impl NodeLog {
    pub fn text(&self) -> String {
        self.text.lock().expect("no panic").clone()
    }

    /// Lines so far with these words.
    pub fn count(&self, words: &str) -> usize {
        self.text()
            .lines()
            .filter(|line| line.contains(words))
            .count()
    }

    #[track_caller]
    pub fn assert_has(&self, words: &str) {
        wait_for(words, || self.count(words) > 0);
    }
}

/// A folder that goes when this does, unless a test has failed in it.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("db-node-{name}-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).expect("make a folder");
        Self(path)
    }

    pub fn path(&self) -> &str {
        text(&self.0)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("left as it is: {}", self.path());
        } else {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

/// The program, without the environment of the user that runs the tests.
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
#[track_caller]
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A socket on a port that the system chose, which a program that is started may inherit, and its
/// address.
pub fn inherited_listener() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).expect("bind");
    socket.listen(16).expect("listen");
    socket.set_cloexec(false).expect("keep it open");
    let address = socket.local_addr().expect("an address").as_socket();
    (socket, address.expect("of IP"))
}

/// Lets time pass where a slow peer, or nothing happening, is what is tested; never to wait for
/// something.
pub fn let_pass(time: Duration) {
    std::thread::sleep(time);
}

/// A connection.
pub struct Client {
    pub stream: TcpStream,
    unread: Vec<u8>,
    /// The part of `unread` that was taken.
    taken: usize,
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
        self.headers
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The version token that the answer carries as its entity tag.
    pub fn token(&self) -> Option<&str> {
        let tag = self.header("ETag")?;
        let token = tag
            .strip_prefix('"')
            .and_then(|tag| tag.strip_suffix('"'))
            .unwrap_or_else(|| panic!("no quotes: {tag}"));
        version_of(token);
        Some(token)
    }

    /// The version in the entity tag.
    pub fn tag_version(&self) -> Option<u64> {
        self.token().map(version_of)
    }

    /// The body without its tokens; see [`without_tokens`].
    pub fn plain_json(&self) -> serde_json::Value {
        without_tokens(self.json())
    }
}

/// The version in a token such as `17-1a2b3c4d`.
#[track_caller]
pub fn version_of(token: &str) -> u64 {
    let (version, history) = token
        .split_once('-')
        .unwrap_or_else(|| panic!("no token: {token}"));
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    assert!(
        history.len() == 8 && history.bytes().all(is_digit),
        "no token: {token}"
    );
    version.parse().expect("a version")
}

/// Takes `etag` or `position` out wherever there is a `version`; it has to be the token of that.
#[track_caller]
pub fn without_tokens(mut json: serde_json::Value) -> serde_json::Value {
    take_tokens(&mut json);
    json
}

#[track_caller]
fn take_tokens(json: &mut serde_json::Value) {
    match json {
        serde_json::Value::Object(fields) => {
            let version = fields.get("version").and_then(serde_json::Value::as_u64);
            let texts = [fields.remove("etag"), fields.remove("position")];
            let tokens: Vec<_> = texts.iter().flatten().collect();
            match (version, &tokens[..]) {
                (None, []) => {}
                (Some(version), [token]) => {
                    assert_eq!(version_of(token.as_str().expect("text")), version);
                }
                _ => panic!("{tokens:?} beside version {version:?} of {fields:?}"),
            }
            fields.values_mut().for_each(take_tokens);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(take_tokens),
        _ => {}
    }
}

impl Client {
    /// A connection to something that need not be a node.
    pub fn to(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect(address).expect("connect"))
    }

    fn new(stream: TcpStream) -> Self {
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("set a time-out");
        stream
            .set_write_timeout(Some(PATIENCE))
            .expect("set a time-out");
        stream.set_nodelay(true).expect("set nodelay");
        Self {
            stream,
            unread: Vec::new(),
            taken: 0,
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("send");
    }

    /// Sends from another thread, for more than the sockets hold.
    pub fn send_in_background(
        &self,
        bytes: Vec<u8>,
    ) -> std::thread::JoinHandle<std::io::Result<()>> {
        let mut stream = self.stream.try_clone().expect("clone");
        std::thread::spawn(move || stream.write_all(&bytes))
    }

    /// Says that nothing more will be sent.
    pub fn finish_sending(&self) {
        self.stream.shutdown(Shutdown::Write).expect("shut down");
    }

    pub fn send_request(&mut self, method: &str, target: &str, headers: &[&str], body: &[u8]) {
        self.send(&request_bytes(method, target, headers, body));
    }

    pub fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[&str],
        body: &[u8],
    ) -> Response {
        self.send_request(method, target, headers, body);
        self.response(method == "HEAD")
    }

    fn read_more(&mut self) -> bool {
        if self.taken > 0 {
            self.unread.drain(..self.taken);
            self.taken = 0;
        }
        let mut buffer = [0; 16 * 1024];
        // A read with a time-out ends early when the process is stopped and goes on (signal(7)).
        let count = loop {
            match self.stream.read(&mut buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                outcome => break outcome.expect("read"),
            }
        };
        self.unread.extend_from_slice(&buffer[..count]);
        count > 0
    }

    fn read_more_or_fail(&mut self) {
        assert!(
            self.read_more(),
            "the connection ended early: {:?}",
            String::from_utf8_lossy(&self.unread)
        );
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() - self.taken < count {
            self.read_more_or_fail();
        }
        let start = self.taken;
        self.taken += count;
        self.unread[start..self.taken].to_vec()
    }

    fn take_line(&mut self) -> String {
        loop {
            if let Some(end) = self.unread[self.taken..]
                .windows(2)
                .position(|pair| pair == b"\r\n")
            {
                let line = self.take(end + 2);
                return String::from_utf8(line[..end].to_vec()).expect("a line of text");
            }
            self.read_more_or_fail();
        }
    }

    /// The status and the headers of the next response, final or interim.
    pub fn response_head(&mut self) -> Response {
        let line = self.take_line();
        assert!(line.starts_with("HTTP/1.1 "), "{line:?}");
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .unwrap_or_else(|| panic!("{line:?}"));
        let mut headers = Vec::new();
        loop {
            let line = self.take_line();
            if line.is_empty() {
                return Response {
                    status,
                    headers,
                    body: Vec::new(),
                };
            }
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line:?}"));
            headers.push((name.to_owned(), value.to_owned()));
        }
    }

    /// The next response; `is_head`: to a HEAD request, so without a body.
    pub fn response(&mut self, is_head: bool) -> Response {
        let response = self.response_of_anyone(is_head);
        assert_eq!(
            response.header("Date").map(str::len),
            Some("Sun, 06 Nov 1994 08:49:37 GMT".len())
        );
        response
    }

    /// The next chunk of a body in chunks; none at its end.
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let size = usize::from_str_radix(&self.take_line(), 16).expect("a chunk size");
        let chunk = self.take(size);
        assert_eq!(self.take_line(), "");
        (size > 0).then_some(chunk)
    }

    /// The same, of a node or of something in between.
    pub fn response_of_anyone(&mut self, is_head: bool) -> Response {
        let mut response = self.response_head();
        if is_head || status_without_body(response.status) {
            return response;
        }
        if response.header("Transfer-Encoding") == Some("chunked") {
            assert_eq!(response.header("Content-Length"), None);
            while let Some(chunk) = self.chunk() {
                response.body.extend(chunk);
            }
        } else {
            let length = response
                .header("Content-Length")
                .expect("a length")
                .parse()
                .expect("a number");
            response.body = self.take(length);
        }
        response
    }

    /// Everything up to the end of the connection; an error (such as a reset) is a failure.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        while self.read_more() {}
        std::mem::take(&mut self.unread)
    }

    /// Asserts that the connection ends here, without another byte and without a reset.
    pub fn assert_end(&mut self) {
        let rest = self.read_to_end();
        assert!(
            rest.is_empty(),
            "unexpected: {:?}",
            String::from_utf8_lossy(&rest)
        );
    }
}

fn status_without_body(status: u16) -> bool {
    status < 200 || status == 204 || status == 304
}

/// A request with Host, and with Content-Length if there is a body and `headers` do not frame it.
pub fn request_bytes(method: &str, target: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n").into_bytes();
    for header in headers {
        bytes.extend_from_slice(format!("{header}\r\n").as_bytes());
    }
    let is_framed = headers.iter().any(|header| {
        let header = header.to_ascii_lowercase();
        header.starts_with("content-length") || header.starts_with("transfer-encoding")
    });
    if !is_framed && (!body.is_empty() || method == "POST" || method == "PUT") {
        bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// `body` in chunks of `chunk_bytes`, the last one empty.
pub fn chunked(body: &[u8], chunk_bytes: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len() + body.len() / chunk_bytes * 16 + 16);
    for chunk in body.chunks(chunk_bytes) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

/// Everything percent-encoded.
pub fn percent_encoded(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, byte| text + &format!("%{byte:02X}"))
}

/// Asserts that a response is the error it should be: status, JSON, and its three fields.
#[track_caller]
pub fn assert_error(response: &Response, status: u16, code: &str) {
    let text = response.text();
    assert_eq!(response.status, status, "{text}");
    assert_eq!(response.header("Content-Type"), Some("application/json"));
    let json = response.json();
    assert_eq!(json["success"], false, "{text}");
    assert_eq!(json["code"], code, "{text}");
    assert!(
        json["error"]
            .as_str()
            .is_some_and(|message| !message.is_empty()),
        "{text}"
    );
    assert_eq!(
        json.as_object().map(serde_json::Map::len),
        Some(3),
        "{text}"
    );
}
