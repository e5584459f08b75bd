//! A request and its answer on a connection of their own, over a blocking socket.
//!
//! Invariants:
//! 1. Each wait has an end: for a connection, for the head of an answer, for each next piece of its
//!    body.
//! 2. Memory for an answer is one buffer, beside what a command collects up to a limit of its own.
//! 3. A request is sent to another node only if the first one has answered 421 and names it, and
//!    only once.
//! 4. The token is sent to the host that the user has named, and to another one only where the user
//!    allows it.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::config::{Token, parse_peer};

use super::answer_body::{AnswerBody, AnswerHead, BrokenAnswer};
use super::failure::{CommandError, ExitReason};
use super::json::{field, parse};
use super::output::Output;
use super::request::{ClientRequest, Upload};
use super::text::{one_line, owned, push, put, time_text};

/// Longest head of an answer, and what is read at a time.
const BUFFER_BYTES: usize = 64 * 1024;

/// Longest body of an error answer that is shown.
const ERROR_MAX_BYTES: usize = 64 * 1024;

/// Most interim answers before the final one.
const INTERIM_MAX: usize = 16;

/// How long a node is waited for that was asked whether it takes a long upload.
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// The node that is asked.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// Such as `http://127.0.0.1:9001`.
    pub(crate) url: String,
    pub(crate) token: Option<Token>,
    /// A leader on another host gets the token, too.
    pub(crate) follows_leader: bool,
    pub(crate) partition: Option<u64>,
    /// How long to wait for a connection, and for a node that is silent.
    pub(crate) patience: Duration,
    /// A signal asks to stop.
    pub(crate) is_interrupted: Arc<AtomicBool>,
}

/// An answer: its head was read, its body is read as it comes.
#[derive(Debug)]
pub(crate) struct Answer<'e> {
    pub(crate) status: u16,
    /// As in [`AnswerHead`].
    pub(crate) token: String,
    leader: String,
    body: AnswerBody,
    /// How long a silence between two pieces may be.
    pub(crate) patience: Duration,
    incoming: Incoming<'e>,
}

/// The receiving end of a connection.
#[derive(Debug)]
struct Incoming<'e> {
    stream: TcpStream,
    endpoint: &'e Endpoint,
    url: String,
    buffer: Vec<u8>,
    /// The part of the buffer that is to be read.
    start: usize,
    end: usize,
}

impl Endpoint {
    /// Sends a request, to the leader if the node says that it is another one; returns an answer of
    /// success.
    #[inline(never)]
    pub(crate) fn ask(&self, mut request: ClientRequest) -> Result<Box<Answer<'_>>, CommandError> {
        let mut answer = self.ask_once(&self.url, &mut request)?;
        if answer.status == 421
            && let Ok(leader) = parse_peer(&answer.leader)
        {
            let is_same_host = host_of(&leader).eq_ignore_ascii_case(host_of(&self.url));
            if self.token.is_some() && !self.follows_leader && !is_same_host {
                return Err(answer.into_refusal(format_args!(
                    "the leader is {leader}: name it with --url, or let the token be sent there \
                     with --follow-leader"
                )));
            }
            answer = self.ask_once(&leader, &mut request)?;
        }
        if (200..=299).contains(&answer.status) {
            Ok(answer)
        } else {
            Err(answer.into_error())
        }
    }

    #[inline(never)]
    fn ask_once(
        &self,
        url: &str,
        request: &mut ClientRequest,
    ) -> Result<Box<Answer<'_>>, CommandError> {
        let mut incoming = Incoming {
            stream: self.connect(url)?,
            endpoint: self,
            url: owned(url),
            buffer: vec![0; BUFFER_BYTES],
            start: 0,
            end: 0,
        };
        let head = self.head(url, request);
        let mut sent = incoming.send_bytes(head.as_bytes());
        if sent.is_ok()
            && let Some(upload) = &mut request.upload
        {
            if upload.rest.is_some()
                && let Some(head) = incoming.head(Instant::now() + CONTINUE_WAIT, true)?
                && head.status != 100
            {
                return Ok(incoming.answer(head));
            }
            sent = incoming.send(upload);
        }
        match (incoming.head(Instant::now() + self.patience, false), sent) {
            (_, Err(error)) if error.reason() == ExitReason::Usage => Err(error),
            // A node that refuses an upload answers and closes: sending fails then.
            (Ok(Some(head)), _) => Ok(incoming.answer(head)),
            (_, Err(error)) | (Err(error), _) => Err(error),
            (Ok(None), _) => Err(incoming.silent(self.patience)),
        }
    }

    fn connect(&self, url: &str) -> Result<TcpStream, CommandError> {
        let named = &self.url;
        let unreached_leader = |error: &io::Error| {
            CommandError::no_answer(format_args!(
                "{named} is a replica; its leader {url} cannot be reached: {error}"
            ))
        };
        let addresses = authority_of(url).to_socket_addrs();
        let addresses = addresses.map_err(|error| {
            if url != named {
                return unreached_leader(&error);
            }
            CommandError::no_answer(format_args!("{url} has no address: {error}; see --url"))
        })?;
        let mut last_error = io::Error::from(ErrorKind::AddrNotAvailable);
        for address in addresses {
            match TcpStream::connect_timeout(&address, self.patience) {
                Ok(stream) => {
                    // Both fail on a time of zero only.
                    let _ = stream.set_nodelay(true);
                    let _ = stream.set_write_timeout(Some(self.patience));
                    return Ok(stream);
                }
                Err(error) => last_error = error,
            }
        }
        if url != named {
            return Err(unreached_leader(&last_error));
        }
        Err(CommandError::no_answer(format_args!(
            "no node is reached at {url}: {last_error}; start one with db-node serve, or name \
             another with --url"
        )))
    }

    /// The head of a request.
    fn head(&self, url: &str, request: &ClientRequest) -> String {
        let mut head = String::new();
        let ClientRequest {
            method,
            target,
            fields,
            ..
        } = request;
        let authority = authority_of(url);
        put(
            &mut head,
            format_args!(
                "{method} {target} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n{fields}"
            ),
        );
        if let Some(token) = &self.token {
            let token = std::str::from_utf8(token.expose()).unwrap_or_default();
            put(&mut head, format_args!("Authorization: Bearer {token}\r\n"));
        }
        if let Some(partition) = self.partition
            && !request.is_about_node
        {
            put(&mut head, format_args!("X-Partition-ID: {partition}\r\n"));
        }
        if let Some(upload) = &request.upload {
            match upload.bytes {
                None => push(&mut head, "Transfer-Encoding: chunked\r\n"),
                Some(bytes) => put(&mut head, format_args!("Content-Length: {bytes}\r\n")),
            }
            if upload.rest.is_some() {
                push(&mut head, "Expect: 100-continue\r\n");
            }
        }
        push(&mut head, "\r\n");
        head
    }
}

/// The part of an address of a node that names it.
fn authority_of(url: &str) -> &str {
    url.strip_prefix("http://").unwrap_or(url)
}

/// The host in an address of a node.
fn host_of(url: &str) -> &str {
    let authority = authority_of(url);
    authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host)
}

impl<'e> Incoming<'e> {
    #[inline(never)]
    fn answer(self, head: AnswerHead) -> Box<Answer<'e>> {
        Box::new(Answer {
            status: head.status,
            token: head.token,
            leader: head.leader,
            body: head.body,
            patience: self.endpoint.patience,
            incoming: self,
        })
    }

    #[inline(never)]
    fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), CommandError> {
        let sent = self.stream.write_all(bytes);
        sent.map_err(|error| self.lost(&error))
    }

    /// Sends a body.
    fn send(&mut self, upload: &mut Upload) -> Result<(), CommandError> {
        let Some(mut file) = upload.rest.take() else {
            return self.send_bytes(&upload.first);
        };
        let mut left = upload.bytes.unwrap_or(u64::MAX);
        let mut piece = std::mem::take(&mut upload.first);
        while !piece.is_empty() {
            piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            if upload.bytes.is_none() {
                let mut chunk = String::new();
                put(&mut chunk, format_args!("{:x}\r\n", piece.len()));
                self.send_bytes(chunk.as_bytes())?;
                piece.extend_from_slice(b"\r\n");
            } else {
                left -= piece.len() as u64;
            }
            self.send_bytes(&piece)?;
            piece.resize(BUFFER_BYTES, 0);
            let count = file.read(&mut piece);
            let count = count.map_err(|error| {
                CommandError::local(format_args!("cannot read the value"), &error)
            })?;
            piece.truncate(count);
        }
        match upload.bytes {
            None => self.send_bytes(b"0\r\n\r\n"),
            Some(_) if left == 0 => Ok(()),
            Some(_) => Err(CommandError::usage(format_args!(
                "the file became shorter while it was read"
            ))),
        }
    }

    /// The next head; none: it is not there in time. Interim ones are passed over, but for 100
    /// where `takes_continue`.
    fn head(
        &mut self,
        deadline: Instant,
        takes_continue: bool,
    ) -> Result<Option<AnswerHead>, CommandError> {
        let mut interim_count = 0;
        loop {
            let head = AnswerHead::parse(&self.buffer[self.start..self.end]);
            if let Some(head) = head.map_err(|problem| self.broken(problem))? {
                self.start += head.head_bytes;
                match head.status {
                    100 if takes_continue => return Ok(Some(head)),
                    101 => return Err(self.broken(BrokenAnswer("it is not HTTP/1.1"))),
                    100..=199 if interim_count < INTERIM_MAX => interim_count += 1,
                    100..=199 => return Err(self.broken(BrokenAnswer("it has no end"))),
                    _ => return Ok(Some(head)),
                }
                continue;
            }
            if self.start > 0 {
                self.buffer.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            if self.end == BUFFER_BYTES {
                return Err(self.broken(BrokenAnswer("its head is too long")));
            }
            match self.read(deadline)? {
                None => return Ok(None),
                Some(0) => return Err(self.cut_off()),
                Some(_) => {}
            }
        }
    }

    /// Reads into the rest of the buffer: how much, 0 at the end; none: nothing came in time.
    fn read(&mut self, deadline: Instant) -> Result<Option<usize>, CommandError> {
        loop {
            if self.endpoint.is_interrupted.load(Ordering::Relaxed) {
                return Err(CommandError::new(
                    ExitReason::Interrupted,
                    format_args!("interrupted: no file was written"),
                ));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let count = (self.stream.set_read_timeout(Some(left)))
                .and_then(|()| self.stream.read(&mut self.buffer[self.end..]));
            match count {
                Ok(count) => {
                    self.end += count;
                    return Ok(Some(count));
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut => {}
                    _ => return Err(self.lost(&error)),
                },
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn lost(&self, error: &io::Error) -> CommandError {
        let url = &self.url;
        CommandError::no_answer(format_args!("the connection to {url} was lost: {error}"))
    }

    #[cold]
    fn cut_off(&self) -> CommandError {
        let url = &self.url;
        CommandError::no_answer(format_args!(
            "{url} closed the connection before its answer was whole; try again"
        ))
    }

    #[cold]
    #[inline(never)]
    fn silent(&self, patience: Duration) -> CommandError {
        let (url, ms) = (&self.url, u64::try_from(patience.as_millis()));
        let time = time_text(ms.unwrap_or(u64::MAX));
        CommandError::no_answer(format_args!("{url} was silent for {time}; see --timeout"))
    }

    #[cold]
    #[inline(never)]
    fn broken(&self, BrokenAnswer(problem): BrokenAnswer) -> CommandError {
        let url = &self.url;
        CommandError::no_answer(format_args!(
            "the answer of {url} is broken: {problem}; is it a db-node?"
        ))
    }
}

impl Answer<'_> {
    /// The next piece of the body; none at its end.
    #[inline(never)]
    pub(crate) fn next(&mut self) -> Result<Option<&[u8]>, CommandError> {
        let incoming = &mut self.incoming;
        while !self.body.is_done() {
            if incoming.start == incoming.end {
                (incoming.start, incoming.end) = (0, 0);
                match incoming.read(Instant::now() + self.patience)? {
                    None => return Err(incoming.silent(self.patience)),
                    Some(0) if self.body.may_end() => break,
                    Some(0) => return Err(incoming.cut_off()),
                    Some(_) => {}
                }
            }
            let decoded = self
                .body
                .decode(&incoming.buffer[incoming.start..incoming.end]);
            let (used, data_bytes) = decoded.map_err(|problem| incoming.broken(problem))?;
            incoming.start += used;
            if data_bytes > 0 {
                let data = incoming.start - data_bytes..incoming.start;
                return Ok(Some(&incoming.buffer[data]));
            }
        }
        Ok(None)
    }

    /// Copies a JSON body to the output, and a newline behind it.
    pub(crate) fn copy_json(&mut self, output: &mut Output) -> Result<(), CommandError> {
        let mut is_line = false;
        while let Some(piece) = self.next()? {
            output.write(piece)?;
            is_line = piece.ends_with(b"\n");
        }
        output.write(if is_line { b"" } else { b"\n" })
    }

    /// The whole body, of at most `max_bytes`.
    pub(crate) fn collect(&mut self, max_bytes: usize) -> Result<Vec<u8>, CommandError> {
        let mut body = Vec::new();
        while let Some(piece) = self.next()? {
            if body.len() + piece.len() > max_bytes {
                return Err(self.broken("it is too long"));
            }
            body.extend_from_slice(piece);
        }
        Ok(body)
    }

    /// Fails unless the answer has the version that a node gives with a value, a write or a backup.
    pub(crate) fn check_version(&self) -> Result<(), CommandError> {
        if self.token.is_empty() {
            return Err(self.broken("it has no version"));
        }
        Ok(())
    }

    /// The failure of an answer that means something else than it should.
    #[cold]
    pub(crate) fn broken(&self, problem: &'static str) -> CommandError {
        self.incoming.broken(BrokenAnswer(problem))
    }

    /// The failure of an answer, said in other words than the node's.
    #[cold]
    fn into_refusal(mut self, message: fmt::Arguments<'_>) -> CommandError {
        let body = self.collect(ERROR_MAX_BYTES).unwrap_or_default();
        CommandError::new(ExitReason::Refused, message).with_answer(self.status, body)
    }

    /// What an answer of failure says.
    #[cold]
    #[inline(never)]
    fn into_error(mut self) -> CommandError {
        let body = self.collect(ERROR_MAX_BYTES).unwrap_or_default();
        let (json, status) = (parse(&body), self.status);
        let error = field(&json, "error").as_str().unwrap_or_default();
        let message = match (status, error) {
            (401, _) if self.incoming.endpoint.token.is_some() => {
                owned("the node does not take this token: give its own")
            }
            (401, _) => owned("the node wants a token: give --token-file FILE"),
            (_, "") => owned("it gives no reason; is it a db-node?"),
            _ => one_line(error),
        };
        let code = field(&json, "code").as_str().unwrap_or_default();
        let error = if (status, code) == (404, "key_not_found") || status == 412 {
            CommandError::new(ExitReason::No, format_args!("{message}"))
        } else {
            let refused = format_args!("the node answers {status}: {message}");
            CommandError::new(ExitReason::Refused, refused)
        };
        error.with_answer(status, body)
    }
}
