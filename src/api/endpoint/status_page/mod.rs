//! `/`: the status page for a browser, and a short text for all other clients.
//!
//! The page is one document: its style and its script are put into `page.html` when it is sent.
//! What it shows it asks for itself, at `/status`, `/scan`, `/kv/` and `/watch`.
//!
//! Invariants:
//! 1. The document holds no data of the node, so it is sent without the token, and links from other
//!    sites lead to it. What it asks for needs the token.
//! 2. [`POLICY`] lets the browser run this style and this script alone, and reach this node alone.
//! 3. The document is at most 40 KiB, and without a reader it costs nothing.
//!
//! Not here: the text (`overview.rs`), what `/status` says (`status.rs`).

mod overview;

use crate::http::{Head, Reply};

use crate::api::context::Api;
use crate::api::errors::refuse;
use crate::api::request::accept::preferred;
use crate::api::request::node_url::node_url;

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html";

const DOCUMENT: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Replaced in the document by style and script.
const STYLE_MARK: &str = "STYLE";
const SCRIPT_MARK: &str = "SCRIPT";

/// The hashes are those of style and script; a test says what they have to be.
const POLICY: &str = "default-src 'none'; \
     style-src 'sha256-0nFloweQdroB7X3Ku4R+2KdNAPC8CgMmOB+ucrnvGtM='; \
     script-src 'sha256-4KhfF0ZTEms6RqF2TQ92q07SS6+d+nEsfgC5abtOh7c='; \
     connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'; require-trusted-types-for 'script'";

impl Api<'_> {
    pub(crate) fn answer_root(&mut self, head: &Head<'_>, reply: Reply<'_>) {
        // A client that takes anything is a program: it gets the text.
        let form = match preferred(head.accept, &["text/plain", HTML]) {
            Ok(form) => form,
            Err(refusal) => return refuse(reply, &refusal),
        };
        self.scratch.clear();
        let reply = reply
            .status(200)
            .lines("Cache-Control: no-cache\r\nX-Content-Type-Options: nosniff\r\n");
        if form == HTML {
            add_document(self.scratch);
            reply
                .content_type("text/html; charset=utf-8")
                .header("Content-Security-Policy", POLICY)
                .lines("Referrer-Policy: no-referrer\r\n")
                .body(self.scratch);
        } else {
            let url = node_url(head, self.node.config());
            overview::add_overview(self.node, &url, self.scratch);
            reply.content_type(TEXT).body(self.scratch);
        }
    }
}

fn add_document(out: &mut Vec<u8>) {
    let (before, behind) = DOCUMENT.split_once(STYLE_MARK).unwrap_or((DOCUMENT, ""));
    let (between, behind) = behind.split_once(SCRIPT_MARK).unwrap_or((behind, ""));
    for part in [before, STYLE, between, SCRIPT, behind] {
        out.extend_from_slice(part.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn document() -> String {
        let mut out = Vec::new();
        add_document(&mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn the_document_is_whole_and_small() {
        let document = document();
        assert!(document.len() <= 40 * 1024, "{} bytes", document.len());
        for mark in [STYLE_MARK, SCRIPT_MARK] {
            assert_eq!(DOCUMENT.matches(mark).count(), 1, "{mark}");
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
        let document = document();
        assert_eq!(document.matches("<style").count(), 1);
        assert_eq!(document.matches("<script").count(), 1);
        let markup = DOCUMENT.to_lowercase();
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
