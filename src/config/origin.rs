//! Origins of web pages (RFC 6454) that may send requests: `--allowed-origin`.

use std::fmt;

/// An origin as browsers write it, or every one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(String);

/// Every origin is allowed.
const ANY: &str = "*";

impl Origin {
    /// The origin that a person wrote: `scheme://host[:port]`, or `*`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let problem = "give scheme, host and port without a path, such as https://app.example or \
                       http://localhost:3000; or * for any";
        if text == ANY {
            return Ok(Self(text.to_owned()));
        }
        let (scheme, authority) = text.split_once("://").ok_or(problem)?;
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && (scheme.bytes()).all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        let is_authority = !authority.is_empty()
            && (authority.bytes())
                .all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte));
        if !is_scheme || !is_authority {
            return Err(problem.to_owned());
        }
        // Browsers leave out the port that the scheme implies.
        let scheme = scheme.to_ascii_lowercase();
        let implied_port = match &*scheme {
            "http" => ":80",
            "https" => ":443",
            _ => "",
        };
        let authority = authority.strip_suffix(implied_port).unwrap_or(authority);
        Ok(Self(format!(
            "{scheme}://{}",
            authority.to_ascii_lowercase()
        )))
    }

    /// Whether every origin is meant.
    pub fn is_any(&self) -> bool {
        self.0 == ANY
    }

    /// Whether a page of the origin in an `Origin` field is meant.
    pub fn matches(&self, origin: &[u8]) -> bool {
        self.is_any() || origin.eq_ignore_ascii_case(self.0.as_bytes())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_compared_as_browsers_write_them() {
        for (given, sent, expected) in [
            ("https://app.example", "https://app.example", true),
            ("https://App.Example/", "https://app.example", true),
            ("https://app.example:443", "https://app.example", true),
            ("http://app.example:80", "http://app.example", true),
            ("http://app.example:443", "http://app.example", false),
            ("https://app.example", "http://app.example", false),
            ("https://app.example", "https://app.example:8443", false),
            ("https://app.example", "https://app.example.evil", false),
            ("https://app.example", "null", false),
            ("http://[::1]:3000", "http://[::1]:3000", true),
            ("chrome-extension://abc", "chrome-extension://abc", true),
            ("*", "https://any.example", true),
            ("*", "null", true),
        ] {
            let origin = Origin::parse(given).expect(given);
            assert_eq!(origin.matches(sent.as_bytes()), expected, "{given} {sent}");
        }
        for wrong in [
            "",
            "app.example",
            "https://",
            "https:///",
            "https://app.example/path",
            "https://*.example",
            "://x",
            "https://a b",
            "https://user@app.example",
            "null",
        ] {
            assert!(Origin::parse(wrong).is_err(), "{wrong}");
        }
    }
}
