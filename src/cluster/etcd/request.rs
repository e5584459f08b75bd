//! Requests to etcd as bytes of HTTP/1.1.
//!
//! Keys and values are base64, which JSON needs no escapes for.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// One request to etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// All keys that begin so; linearizable.
    Range {
        /// The beginning; empty: all keys.
        prefix: String,
    },
    /// All puts and deletions, if every key named has the revision given; one transaction. If not,
    /// nothing is written, and the answer has the current values of the keys compared.
    Write {
        /// Keys, and the revision of the last change of each; 0: the key is not there.
        compares: Vec<(String, u64)>,
        /// Keys and their new values.
        puts: Vec<(String, Vec<u8>)>,
        /// Keys to delete.
        deletes: Vec<String>,
    },
}

impl Request {
    /// The request for this end point, such as `10.0.0.5:2379`.
    pub(super) fn render(&self, authority: &str, token: &str) -> Vec<u8> {
        match self {
            Self::Range { prefix } => {
                let mut body = String::from("{");
                push_prefix(&mut body, prefix);
                body.push('}');
                Post::new("/v3/kv/range", authority, token).with_body(&body)
            }
            Self::Write {
                compares,
                puts,
                deletes,
            } => {
                let body = write_body(compares, puts, deletes);
                Post::new("/v3/kv/txn", authority, token).with_body(&body)
            }
        }
    }
}

fn write_body(
    compares: &[(String, u64)],
    puts: &[(String, Vec<u8>)],
    deletes: &[String],
) -> String {
    let mut body = String::from("{\"compare\":[");
    for (key, revision) in compares {
        body.push_str("{\"target\":\"MOD\",\"result\":\"EQUAL\",");
        push_bytes(&mut body, "key", key.as_bytes());
        body.push_str(",\"mod_revision\":\"");
        body.push_str(&revision.to_string());
        body.push_str("\"},");
    }
    next_list(&mut body, "],\"success\":[");
    for (key, value) in puts {
        body.push_str("{\"request_put\":{");
        push_bytes(&mut body, "key", key.as_bytes());
        body.push(',');
        push_bytes(&mut body, "value", value);
        body.push_str("}},");
    }
    for key in deletes {
        push_operation(&mut body, "request_delete_range", key);
    }
    next_list(&mut body, "],\"failure\":[");
    for (key, _) in compares {
        push_operation(&mut body, "request_range", key);
    }
    next_list(&mut body, "]}");
    body
}

/// Ends a list, and begins what follows.
fn next_list(body: &mut String, text: &str) {
    if body.ends_with(',') {
        body.pop();
    }
    body.push_str(text);
}

fn push_operation(body: &mut String, name: &str, key: &str) {
    body.push_str("{\"");
    body.push_str(name);
    body.push_str("\":{");
    push_bytes(body, "key", key.as_bytes());
    body.push_str("}},");
}

/// Appends a field with bytes.
fn push_bytes(body: &mut String, name: &str, bytes: &[u8]) {
    body.push('"');
    body.push_str(name);
    body.push_str("\":\"");
    STANDARD.encode_string(bytes, body);
    body.push('"');
}

/// Appends the fields that select all keys that begin so.
pub(super) fn push_prefix(body: &mut String, prefix: &str) {
    // A key of one zero byte stands for the first key of all, an end of one for no end.
    let (mut first, mut end) = (prefix.as_bytes(), prefix.as_bytes().to_vec());
    if let Some(last) = end.last_mut() {
        // No byte of UTF-8 is 0xff.
        *last += 1;
    } else {
        (first, end) = (&[0], vec![0]);
    }
    push_bytes(body, "key", first);
    body.push(',');
    push_bytes(body, "range_end", &end);
}

/// A POST request.
pub(super) struct Post(String);

impl Post {
    /// A request with a token, unless that is empty.
    pub(super) fn new(path: &str, authority: &str, token: &str) -> Self {
        let mut head = format!(
            "POST {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: keep-alive\r\n\
             Content-Type: application/json\r\n"
        );
        if !token.is_empty() {
            head.push_str("Authorization: ");
            head.push_str(token);
            head.push_str("\r\n");
        }
        Self(head)
    }

    /// Adds a header field.
    pub(super) fn with_field(mut self, field: &str) -> Self {
        self.0.push_str(field);
        self.0.push_str("\r\n");
        self
    }

    /// The whole request.
    pub(super) fn with_body(mut self, body: &str) -> Vec<u8> {
        let length = body.len().to_string();
        for part in ["Content-Length: ", &length, "\r\n\r\n", body] {
            self.0.push_str(part);
        }
        self.0.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body_of(request: &[u8]) -> &str {
        let text = std::str::from_utf8(request).expect("ASCII");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.ends_with(&format!("\r\nContent-Length: {}", body.len())));
        body
    }

    fn range(prefix: &str) -> Request {
        let prefix = prefix.to_owned();
        Request::Range { prefix }
    }

    #[test]
    fn ranges_select_what_begins_so() {
        let request = range("/db-node/x/").render("10.0.0.5:2379", "");
        assert_eq!(
            request,
            b"POST /v3/kv/range HTTP/1.1\r\n\
              Host: 10.0.0.5:2379\r\n\
              Connection: keep-alive\r\n\
              Content-Type: application/json\r\n\
              Content-Length: 57\r\n\
              \r\n\
              {\"key\":\"L2RiLW5vZGUveC8=\",\"range_end\":\"L2RiLW5vZGUveDA=\"}"
        );
        let all = range("").render("h:1", "");
        assert_eq!(body_of(&all), "{\"key\":\"AA==\",\"range_end\":\"AA==\"}");
        let last = range("\u{10ffff}").render("h:1", "t.1");
        let text = std::str::from_utf8(&last).expect("ASCII");
        assert!(text.contains("\r\nAuthorization: t.1\r\n"), "{text}");
        assert_eq!(
            body_of(&last),
            "{\"key\":\"9I+/vw==\",\"range_end\":\"9I+/wA==\"}"
        );
    }

    #[test]
    fn writes_compare_first() {
        let write = Request::Write {
            compares: vec![("a".to_owned(), 41), ("b".to_owned(), 0)],
            puts: vec![
                ("a".to_owned(), b"one".to_vec()),
                ("b".to_owned(), Vec::new()),
            ],
            deletes: vec!["c".to_owned()],
        };
        let request = write.render("h:1", "");
        assert!(request.starts_with(b"POST /v3/kv/txn HTTP/1.1\r\nHost: h:1\r\n"));
        assert_eq!(
            body_of(&request),
            "{\"compare\":[\
             {\"target\":\"MOD\",\"result\":\"EQUAL\",\"key\":\"YQ==\",\"mod_revision\":\"41\"},\
             {\"target\":\"MOD\",\"result\":\"EQUAL\",\"key\":\"Yg==\",\"mod_revision\":\"0\"}],\
             \"success\":[{\"request_put\":{\"key\":\"YQ==\",\"value\":\"b25l\"}},\
             {\"request_put\":{\"key\":\"Yg==\",\"value\":\"\"}},\
             {\"request_delete_range\":{\"key\":\"Yw==\"}}],\
             \"failure\":[{\"request_range\":{\"key\":\"YQ==\"}},\
             {\"request_range\":{\"key\":\"Yg==\"}}]}"
        );
        let nothing = Request::Write {
            compares: Vec::new(),
            puts: Vec::new(),
            deletes: Vec::new(),
        };
        assert_eq!(
            body_of(&nothing.render("h:1", "")),
            "{\"compare\":[],\"success\":[],\"failure\":[]}"
        );
    }
}
