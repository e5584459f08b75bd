//! Takes the objects of an array out of JSON text as it arrives, such as those of `items` in
//! `{"items":[{…},{…}],"next":null}`: a page of any length needs memory for one of them.
//!
//! Invariant: objects and the text around them stay within limits, whatever a peer sends.
//!
//! Not here: whether it is JSON, which parsing the parts tells.

use memchr::memchr2;

/// Longest object: a value of 16 MiB is at most 96 MiB of JSON.
const ITEM_MAX_BYTES: usize = 128 * 1024 * 1024;

/// Longest text around the objects.
const FRAME_MAX_BYTES: usize = 64 * 1024;

/// How deep the objects are: in an array in an object.
const ITEM_DEPTH: u32 = 2;

/// The state between two pieces.
#[derive(Debug, Default)]
pub(crate) struct JsonItems {
    depth: u32,
    is_in_string: bool,
    is_escaped: bool,
    is_in_item: bool,
    item: Vec<u8>,
    /// The text without the array's content.
    pub(crate) frame: Vec<u8>,
}

/// It is longer than any answer of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

impl JsonItems {
    /// Takes in text up to the end of the next object: how much that is, and the object if one is
    /// whole now.
    pub(crate) fn push(&mut self, text: &[u8]) -> Result<(usize, Option<Vec<u8>>), TooLong> {
        let mut used = 0;
        while let Some(&byte) = text.get(used) {
            let mut run_bytes = 1;
            let (was_in_item, depth) = (self.is_in_item, self.depth);
            if self.is_escaped {
                self.is_escaped = false;
            } else if self.is_in_string {
                let rest = &text[used..];
                match memchr2(b'"', b'\\', rest) {
                    Some(0) if byte == b'"' => self.is_in_string = false,
                    Some(0) => self.is_escaped = true,
                    end => run_bytes = end.unwrap_or(rest.len()),
                }
            } else {
                match byte {
                    b'"' => self.is_in_string = true,
                    b'{' | b'[' => {
                        self.is_in_item |= self.depth == ITEM_DEPTH && byte == b'{';
                        self.depth = self.depth.saturating_add(1);
                    }
                    b'}' | b']' => {
                        self.depth = self.depth.saturating_sub(1);
                        self.is_in_item &= self.depth > ITEM_DEPTH;
                    }
                    _ => {}
                }
            }
            let run = &text[used..used + run_bytes];
            if was_in_item || self.is_in_item {
                append(&mut self.item, run, ITEM_MAX_BYTES)?;
            } else if depth.min(self.depth) < ITEM_DEPTH {
                append(&mut self.frame, run, FRAME_MAX_BYTES)?;
            }
            used += run_bytes;
            if was_in_item && !self.is_in_item {
                return Ok((used, Some(std::mem::take(&mut self.item))));
            }
        }
        Ok((used, None))
    }
}

fn append(target: &mut Vec<u8>, bytes: &[u8], max_bytes: usize) -> Result<(), TooLong> {
    if target.len() + bytes.len() > max_bytes {
        return Err(TooLong);
    }
    target.extend_from_slice(bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str, piece_bytes: usize) -> Result<(Vec<String>, String), TooLong> {
        let (mut items, mut found) = (JsonItems::default(), Vec::new());
        for mut piece in text.as_bytes().chunks(piece_bytes) {
            while !piece.is_empty() {
                let (used, item) = items.push(piece)?;
                found.extend(item.map(|item| String::from_utf8(item).expect("text")));
                piece = &piece[used..];
            }
        }
        Ok((found, String::from_utf8(items.frame).expect("text")))
    }

    #[test]
    fn objects_are_found_however_the_text_is_cut() {
        let text = r#"{"a":"{[\"","items":[{"k":"}\\\"]"},{"k":{"l":[{}]}} , {}],"next":"\\"}"#;
        let items = [r#"{"k":"}\\\"]"}"#, r#"{"k":{"l":[{}]}}"#, "{}"].map(str::to_owned);
        let frame = r#"{"a":"{[\"","items":[],"next":"\\"}"#;
        for piece_bytes in 1..=text.len() {
            let found = split(text, piece_bytes);
            assert_eq!(
                found,
                Ok((items.to_vec(), frame.to_owned())),
                "{piece_bytes}"
            );
        }
        assert_eq!(
            split("]]}}{[{}", 3),
            Ok((vec!["{}".to_owned()], "]]}}{[".to_owned()))
        );
        let endless = format!("{{\"a\":\"{}", "x".repeat(FRAME_MAX_BYTES));
        assert_eq!(split(&endless, 1000), Err(TooLong));
    }
}
