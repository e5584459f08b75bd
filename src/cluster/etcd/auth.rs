//! Names, passwords and tokens of etcd's users.
//!
//! A token is asked for when etcd wants one (`client.rs`), and goes with every request then. It is
//! a header field as it is, without "Bearer".

use serde_json::Value as Json;

use crate::config::EtcdUser;

use super::answer::{field, parse_json};
use super::failure::{Failure, is_in};
use super::request::Post;

/// The request for a token.
pub(super) fn render(user: &EtcdUser, authority: &str) -> Vec<u8> {
    let [name, password] = [&user.name, &user.password].map(|text| Json::from(text.as_str()));
    let body = format!("{{\"name\":{name},\"password\":{password}}}");
    Post::new("/v3/auth/authenticate", authority, "").with_body(&body)
}

/// The token in the body of a 200.
pub(super) fn parse_token(body: &[u8]) -> Result<String, Failure> {
    let body = parse_json(body)?;
    let token = field(&body, "token").as_str().unwrap_or_default();
    // Anything else would be a header of its own.
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Failure::Malformed("no token"));
    }
    Ok(token.to_owned())
}

/// Whether the answer to the request for a token says that there are no users.
pub(super) fn is_without_users(failure: &Failure) -> bool {
    matches!(failure, Failure::Error { message, .. }
        if is_in("authentication is not enabled", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_quoted() {
        let user = EtcdUser {
            name: "n".to_owned(),
            password: "\"\\\r\n".to_owned(),
        };
        let request = String::from_utf8(render(&user, "h:1")).expect("UTF-8");
        assert!(request.starts_with("POST /v3/auth/authenticate HTTP/1.1\r\n"));
        assert!(
            request.ends_with("\r\n\r\n{\"name\":\"n\",\"password\":\"\\\"\\\\\\r\\n\"}"),
            "{request}"
        );
    }

    #[test]
    fn tokens_are_no_header_fields() {
        assert_eq!(
            parse_token(b"{\"token\":\"ivz.12\"}").as_deref(),
            Ok("ivz.12")
        );
        for body in [
            "{}",
            "{\"token\":\"\"}",
            "{\"token\":\"a\\r\\nb: c\"}",
            "{\"token\":\"a b\"}",
            "{\"token\":1}",
            "token",
        ] {
            assert!(parse_token(body.as_bytes()).is_err(), "{body}");
        }
    }
}
