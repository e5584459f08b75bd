//! Server-sent events out of the bytes of an answer, without I/O.
//!
//! Invariant: a line and the data of an event stay within a limit, whatever a peer sends.

/// Longest line, and longest data: an event of a node is at most 128 KiB.
const EVENT_MAX_BYTES: usize = 1024 * 1024;

/// The state between two pieces.
#[derive(Debug, Default)]
pub(crate) struct EventStream {
    line: Vec<u8>,
    id: String,
    data: Vec<u8>,
}

/// A block of the stream: where it is, and its data, which may be empty.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct StreamEvent {
    pub(crate) id: String,
    pub(crate) data: Vec<u8>,
}

/// An event is longer than any of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EventTooLong;

impl EventStream {
    /// Takes in bytes up to the end of the next block: how much that is, and the block if one is
    /// whole now.
    pub(crate) fn push(
        &mut self,
        input: &[u8],
    ) -> Result<(usize, Option<StreamEvent>), EventTooLong> {
        let mut used = 0;
        while let Some(end) = memchr::memchr(b'\n', &input[used..]) {
            self.add(&input[used..used + end])?;
            used += end + 1;
            let line = std::mem::take(&mut self.line);
            let line = line.strip_suffix(b"\r").unwrap_or(&line);
            if line.is_empty() {
                let (id, data) = (std::mem::take(&mut self.id), std::mem::take(&mut self.data));
                return Ok((used, Some(StreamEvent { id, data })));
            }
            if let Some(id) = line.strip_prefix(b"id: ") {
                self.id = String::from_utf8_lossy(id).into_owned();
            } else if let Some(data) = line.strip_prefix(b"data: ") {
                if self.data.len() + data.len() > EVENT_MAX_BYTES {
                    return Err(EventTooLong);
                }
                self.data.extend_from_slice(data);
            }
        }
        self.add(&input[used..])?;
        Ok((input.len(), None))
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), EventTooLong> {
        if self.line.len() + bytes.len() > EVENT_MAX_BYTES {
            return Err(EventTooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(text: &str, piece_bytes: usize) -> Result<Vec<(String, String)>, EventTooLong> {
        let (mut stream, mut found) = (EventStream::default(), Vec::new());
        for mut piece in text.as_bytes().chunks(piece_bytes) {
            while !piece.is_empty() {
                let (used, event) = stream.push(piece)?;
                let text = |data| String::from_utf8(data).expect("text");
                found.extend(event.map(|event| (event.id, text(event.data))));
                piece = &piece[used..];
            }
        }
        Ok(found)
    }

    #[test]
    fn blocks_are_found_however_the_bytes_are_cut() {
        let text = ": hello\nid: 1-a\n\nid: 2-b\r\nevent: set\r\ndata: {}\r\n\r\nid: 3-c\ndata: x";
        let expected = [("1-a", ""), ("2-b", "{}")].map(|(id, data)| (id.into(), data.into()));
        for piece_bytes in 1..=text.len() {
            assert_eq!(
                events(text, piece_bytes),
                Ok(expected.to_vec()),
                "{piece_bytes}"
            );
        }
        let endless = "data: x\n".repeat(2 * EVENT_MAX_BYTES);
        assert_eq!(events(&endless, 64 * 1024), Err(EventTooLong));
        assert_eq!(
            events(&"x".repeat(EVENT_MAX_BYTES + 1), 1000),
            Err(EventTooLong)
        );
    }
}
