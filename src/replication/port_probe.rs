//! Asks a leader's `/health` for its replication port: one request, one answer of bounded length.

use serde_json::Value;

/// Longest answer: `/health` is a few hundred bytes, more with many partitions.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

const HEADER_MAX: usize = 32;

/// Why a node cannot be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialFailure {
    /// The reason.
    pub reason: String,
    /// The node loads its data: it will be ready soon.
    pub is_starting: bool,
}

impl DialFailure {
    /// A failure of a node that is not known to be starting.
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            is_starting: false,
        }
    }
}

impl From<std::io::Error> for DialFailure {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}

/// A request under way.
#[derive(Debug, Default)]
pub struct PortProbe {
    answer: Vec<u8>,
}

impl PortProbe {
    /// The request, to be sent to an authority such as `10.0.0.7:9001`.
    pub fn request(authority: &str) -> Vec<u8> {
        format!("GET /health HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n")
            .into_bytes()
    }

    /// Adds input; returns the port once the answer is complete.
    pub fn receive(&mut self, input: &[u8]) -> Result<Option<u16>, DialFailure> {
        if self.answer.len() + input.len() > ANSWER_MAX_BYTES {
            return Err(DialFailure::new(
                "its /health is too long: is it a db-node?",
            ));
        }
        self.answer.extend_from_slice(input);
        let mut headers = [httparse::EMPTY_HEADER; HEADER_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let no_node = || DialFailure::new("it does not answer as a db-node does");
        let httparse::Status::Complete(head_bytes) =
            response.parse(&self.answer).map_err(|_| no_node())?
        else {
            return Ok(None);
        };
        let mut headers = response.headers.iter();
        let length = headers.find(|field| field.name.eq_ignore_ascii_case("content-length"));
        let length = length.and_then(|field| str::from_utf8(field.value).ok()?.parse().ok());
        let length = length.filter(|length: &usize| *length <= ANSWER_MAX_BYTES);
        let length = length.ok_or_else(no_node)?;
        let Some(body) = self.answer[head_bytes..].get(..length) else {
            return Ok(None);
        };
        match response.code {
            Some(200) => {}
            Some(503) => {
                return Err(DialFailure {
                    is_starting: true,
                    ..DialFailure::new("it is loading its data")
                });
            }
            code => {
                let code = code.unwrap_or(0);
                return Err(DialFailure::new(format!("its /health answers {code}")));
            }
        }
        let Ok(Value::Object(health)) = serde_json::from_slice(body) else {
            return Err(no_node());
        };
        let port = match health.get("replicationPort") {
            None | Some(Value::Null) => None,
            Some(port) => {
                let port = port.as_u64().and_then(|port| u16::try_from(port).ok());
                Some(port.ok_or_else(no_node)?)
            }
        };
        port.filter(|port| *port > 0).map(Some).ok_or_else(|| {
            DialFailure::new("it has no replication socket: see its --replication-listen")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 41\r\n\r\n\
        {\"status\":\"OK\",\"replicationPort\":10001.0 }";

    fn ask(answer: &[u8], piece_bytes: usize) -> Result<Option<u16>, DialFailure> {
        let mut probe = PortProbe::default();
        for piece in answer.chunks(piece_bytes) {
            if let Some(port) = probe.receive(piece)? {
                return Ok(Some(port));
            }
        }
        Ok(None)
    }

    #[test]
    fn the_port_is_found_however_the_answer_is_cut() {
        let body = br#"{"status":"OK","partitions":[0],"replicationPort":10001}"#;
        let mut answer =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        answer.extend_from_slice(body);
        for piece_bytes in 1..=answer.len() {
            assert_eq!(ask(&answer, piece_bytes), Ok(Some(10001)));
            assert_eq!(ask(&answer[..answer.len() - 1], piece_bytes), Ok(None));
        }
    }

    #[test]
    fn other_answers_are_errors() {
        for answer in [
            &b"SSH-2.0-OpenSSH_9.2\r\n"[..],
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}",
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\nContent-Length: 26\r\n\r\n{\"replicationPort\":null   }",
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\n\r\n{}",
            ANSWER,
        ] {
            assert!(
                ask(answer, 7).is_err(),
                "{}",
                String::from_utf8_lossy(answer)
            );
        }
        assert!(ask(&vec![b'H'; 100_000], 1000).is_err());
    }
}
