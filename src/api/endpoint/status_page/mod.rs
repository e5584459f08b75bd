//! `/`: the status page for a browser, and a short text for all other clients.
//!
//! The page is one document: the build script puts style and script into `page.html`.
//! What it shows it asks for itself, at `/status`, `/scan`, `/kv/` and `/watch`.
//!
//! Invariants:
//! 1. The document holds no data of the node, so it is sent without the token, and links from other
//!    sites lead to it. What it asks for needs the token.
//! 2. [`POLICY`] lets the browser run this style and this script alone, and reach this node alone.
//! 3. The document takes at most 40 KiB of the program, and without a reader it costs nothing.
//!
//! Not here: the text (`overview.rs`), what `/status` says (`status.rs`).

mod overview;

use crate::http::{Head, Reply};

use crate::api::context::Api;
use crate::api::errors::refuse;
use crate::api::request::accept::preferred;
use crate::api::request::node_url::node_url;

use super::packed::{STATUS_PAGE, unpack};

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html";

/// The hashes are those of style and script; a test says what they have to be.
const POLICY: &str = "default-src 'none'; \
     style-src 'sha256-Z0Nmy41++APvrUXc5Y909oQAkX8X0OMpXM7wuBzJS6U='; \
     script-src 'sha256-PH8un+OiR3iAn9fY/Bmb9B27r7HyNVCdggi3al4/44A='; \
     connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'; require-trusted-types-for 'script'";

impl Api<'_> {
    pub(crate) fn answer_root(&mut self, head: &Head<'_>, reply: Reply<'_>) {
        // A client that takes anything is a program: it gets the text.
        let form = match preferred(head.accept, &["text/plain", HTML]) {
            Ok(form) => form,
            Err(refusal) => return refuse(reply, &refusal),
        };
        let reply = reply
            .status(200)
            .lines("Cache-Control: no-cache\r\nX-Content-Type-Options: nosniff\r\n");
        if form == HTML {
            reply
                .content_type("text/html; charset=utf-8")
                .header("Content-Security-Policy", POLICY)
                .lines("Referrer-Policy: no-referrer\r\n")
                .body(unpack(STATUS_PAGE).as_bytes());
        } else {
            // Commands under a Host that is refused would not work.
            let is_known = head.host.is_none_or(|host| self.access.knows_host(host));
            let url = if is_known {
                node_url(head, self.node.config())
            } else {
                self.node.config().own_url()
            };
            self.scratch.clear();
            overview::add_overview(self.node, &url, self.scratch);
            reply.content_type(TEXT).body(self.scratch);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    const MARKUP: &str = include_str!("page.html");
    const STYLE: &str = include_str!("page.css");
    const SCRIPT: &str = include_str!("page.js");

    #[test]
    fn the_document_is_whole_and_small() {
        let document = unpack(STATUS_PAGE);
        assert!(
            STATUS_PAGE.len() <= 40 * 1024,
            "{} bytes",
            STATUS_PAGE.len()
        );
        assert!(document.len() <= 48 * 1024, "{} bytes", document.len());
        for mark in ["STYLE", "SCRIPT"] {
            assert_eq!(MARKUP.matches(mark).count(), 1, "{mark}");
        }
        assert!(document.contains(&format!("<style>{STYLE}</style>")));
        assert!(document.contains(&format!("<script>{SCRIPT}</script>")));
        assert!(document.trim_end().ends_with("</html>"));
    }

    /// `sha256-…` of a text, as a policy names it.
    fn source_hash(text: &str) -> String {
        let mut child = Command::new("sha256sum")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sha256sum of coreutils");
        let mut input = child.stdin.take().expect("a pipe");
        input.write_all(text.as_bytes()).expect("write");
        drop(input);
        let output = child.wait_with_output().expect("its end").stdout;
        let digits = str::from_utf8(&output[..64]).expect("digits");
        let bytes: Vec<u8> = (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("a digit"))
            .collect();
        format!("'sha256-{}'", STANDARD.encode(bytes))
    }

    #[test]
    fn the_policy_names_this_style_and_this_script() {
        for (directive, text) in [("style-src", STYLE), ("script-src", SCRIPT)] {
            let expected = format!("{directive} {};", source_hash(text));
            assert!(POLICY.contains(&expected), "POLICY has to say {expected}");
        }
    }

    /// The policy would block all of these in a browser, without a word to the reader.
    #[test]
    fn nothing_is_inline_but_one_style_and_one_script_and_nothing_is_foreign() {
        let document = unpack(STATUS_PAGE);
        assert_eq!(document.matches("<style").count(), 1);
        assert_eq!(document.matches("<script").count(), 1);
        let markup = MARKUP.to_lowercase();
        for blocked in [
            " style=",
            " onclick=",
            " onsubmit=",
            " onload=",
            "javascript:",
        ] {
            assert!(!markup.contains(blocked), "{blocked}");
        }
        for sink in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "eval(",
            "Function(",
        ] {
            assert!(!SCRIPT.contains(sink), "{sink} lets data become code");
        }
        let own = ["http://www.w3.org/2000/svg", "http://${location.host}"];
        let foreign = own.iter().fold(document, |rest, own| rest.replace(own, ""));
        assert!(!foreign.contains("http://") && !foreign.contains("https://"));
    }
}
