//! The bytes of a request body: cut to length, or taken out of their chunks.
//!
//! Invariants:
//! 1. Any cut of the input gives the same data and the same verdict; no byte of it is kept here.
//! 2. After `done` nothing more is consumed: the next byte belongs to the next request.
//! 3. What carries no data is bounded for the whole body: chunk extensions by [`EXTENSION_BYTES`],
//!    trailers by [`TRAILER_BYTES`], digits of a size by [`SIZE_DIGIT_COUNT`]. So small chunks with
//!    much around them cost the peer more than us.
//! 4. Lines end with CR LF; a bare CR or LF is refused everywhere, extensions and trailers included
//!    (others read a chunk line there, and requests get smuggled through the difference).
//!
//! Not here: how large a body may be and where it goes (the sink, `handler.rs`), discarding
//! (`connection.rs`). Trailers and chunk extensions are checked against their grammar and dropped:
//! nothing in the api uses them.

use super::fields::is_token_byte;
use super::head::Framing;
use super::refusal::Refusal;

/// Bytes of chunk extensions in one body.
pub const EXTENSION_BYTES: usize = 4 * 1024;

/// Bytes of trailer lines in one body.
pub const TRAILER_BYTES: usize = 8 * 1024;

/// Hexadecimal digits in the size of a chunk: what a `u64` holds.
pub const SIZE_DIGIT_COUNT: u8 = 16;

/// Finds the data of one body in the bytes of a connection.
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    state: DecoderState,
    extension_bytes_left: usize,
    trailer_bytes_left: usize,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DecoderState {
    /// The rest of a body with Content-Length; never 0.
    Length {
        left: u64,
    },
    /// The size of a chunk, so far.
    Size {
        size: u64,
        digit_count: u8,
    },
    /// Behind the size, up to the CR.
    Extension {
        size: u64,
        at: Extension,
    },
    /// The LF of the line with the size.
    SizeLf {
        size: u64,
    },
    /// The data of a chunk; never 0.
    Chunk {
        left: u64,
    },
    /// The CR, then the LF after the data of a chunk.
    ChunkCr,
    ChunkLf,
    /// The first byte of a trailer line or of the empty line that ends the body.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
}

/// Where in chunk extensions the next byte is (RFC 9112, section 7.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extension {
    /// In white space that only another extension may follow.
    Between,
    /// Behind `;`: white space, or the first byte of a name.
    Begin,
    Name,
    /// In white space behind a name: `=` or another extension may follow.
    AfterName,
    /// Behind `=`: white space, or the first byte of a value.
    BeginValue,
    Value,
    Quoted,
    /// Behind a backslash in quotes.
    Escaped,
    AfterQuoted,
}

/// What one call of [`BodyDecoder::decode`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodedPiece<'b> {
    /// Bytes of the input that are dealt with, `data` among them.
    pub consumed: usize,
    /// A piece of the body; may be empty.
    pub data: &'b [u8],
    /// The chunk size that was just read, in bytes; 0: none was.
    pub declared_bytes: u64,
    /// The body is whole with this piece.
    pub done: bool,
}

impl BodyDecoder {
    /// A decoder for the body after a head with this framing.
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => DecoderState::Done,
            Framing::Length(left) => DecoderState::Length { left },
            Framing::Chunked => DecoderState::Size {
                size: 0,
                digit_count: 0,
            },
        };
        Self {
            state,
            extension_bytes_left: EXTENSION_BYTES,
            trailer_bytes_left: TRAILER_BYTES,
        }
    }

    /// The body is whole.
    pub fn is_done(&self) -> bool {
        self.state == DecoderState::Done
    }

    /// Bytes that are still to come for sure: of the body, or of its chunk at hand.
    pub fn due_bytes(&self) -> u64 {
        match self.state {
            DecoderState::Length { left } | DecoderState::Chunk { left } => left,
            _ => 0,
        }
    }

    /// Takes in some input and returns the next piece of data in it. Call again with the rest until
    /// `done` or until nothing is consumed (then more input is needed). After a refusal the framing
    /// is lost: answer and close.
    pub fn decode<'b>(&mut self, input: &'b [u8]) -> Result<DecodedPiece<'b>, Refusal> {
        let mut found = DecodedPiece {
            consumed: 0,
            data: &[],
            declared_bytes: 0,
            done: false,
        };
        while let Some(&byte) = input.get(found.consumed) {
            if let DecoderState::Length { left } | DecoderState::Chunk { left } = self.state {
                found.data = self.take(left, &input[found.consumed..]);
                found.consumed += found.data.len();
                break;
            }
            if self.state == DecoderState::Done {
                break;
            }
            self.state = self.line_byte(byte)?;
            found.consumed += 1;
            if let DecoderState::Chunk { left } = self.state {
                found.declared_bytes = left;
                break;
            }
        }
        found.done = self.is_done();
        Ok(found)
    }

    /// The data at the start of `input`, of which `left` bytes are due.
    fn take<'b>(&mut self, left: u64, input: &'b [u8]) -> &'b [u8] {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        let left = left - length as u64;
        self.state = match self.state {
            DecoderState::Chunk { .. } if left == 0 => DecoderState::ChunkCr,
            DecoderState::Chunk { .. } => DecoderState::Chunk { left },
            _ if left == 0 => DecoderState::Done,
            _ => DecoderState::Length { left },
        };
        &input[..length]
    }

    /// One byte of what is around the data of chunks.
    fn line_byte(&mut self, byte: u8) -> Result<DecoderState, Refusal> {
        match self.state {
            DecoderState::Size { size, digit_count } => self.size_byte(size, digit_count, byte),
            DecoderState::Extension { size, at } => self.extension_byte(size, at, byte),
            DecoderState::SizeLf { size } => match byte {
                b'\n' if size == 0 => Ok(DecoderState::Trailer),
                b'\n' => Ok(DecoderState::Chunk { left: size }),
                _ => Err(bare_cr()),
            },
            DecoderState::ChunkCr if byte == b'\r' => Ok(DecoderState::ChunkLf),
            DecoderState::ChunkLf if byte == b'\n' => Ok(DecoderState::Size {
                size: 0,
                digit_count: 0,
            }),
            DecoderState::ChunkCr | DecoderState::ChunkLf => Err(Refusal::bad_request(
                "no CR LF after the data of a chunk: the chunk size does not fit its data",
            )),
            _ => self.trailer_byte(byte),
        }
    }

    fn size_byte(&mut self, size: u64, digit_count: u8, byte: u8) -> Result<DecoderState, Refusal> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            _ if digit_count == 0 => return Err(malformed_size()),
            b'\r' => return Ok(DecoderState::SizeLf { size }),
            b';' => return self.extension(size, Extension::Begin),
            b' ' | b'\t' => return self.extension(size, Extension::Between),
            _ => return Err(malformed_size()),
        };
        if digit_count == SIZE_DIGIT_COUNT {
            return Err(Refusal::bad_request(
                "a chunk size of more than 16 digits: send smaller chunks",
            ));
        }
        // Sixteen digits of four bits never shift a set bit out.
        Ok(DecoderState::Size {
            size: (size << 4) | u64::from(digit),
            digit_count: digit_count + 1,
        })
    }

    fn trailer_byte(&mut self, byte: u8) -> Result<DecoderState, Refusal> {
        let next = match (self.state, byte) {
            (DecoderState::Trailer, b'\r') => return Ok(DecoderState::EndLf),
            (DecoderState::EndLf, b'\n') => return Ok(DecoderState::Done),
            (DecoderState::TrailerLf, b'\n') => DecoderState::Trailer,
            (DecoderState::EndLf | DecoderState::TrailerLf, _) => return Err(bare_cr()),
            (DecoderState::TrailerName, b':') => DecoderState::TrailerValue,
            (DecoderState::Trailer | DecoderState::TrailerName, _) if is_token_byte(byte) => {
                DecoderState::TrailerName
            }
            (DecoderState::TrailerValue, b'\r') => DecoderState::TrailerLf,
            (DecoderState::TrailerValue, _) if is_text(byte) => DecoderState::TrailerValue,
            _ => {
                return Err(Refusal::bad_request(
                    "malformed trailer: write `name: value` lines that end with CR LF",
                ));
            }
        };
        match self.trailer_bytes_left.checked_sub(1) {
            Some(left) => self.trailer_bytes_left = left,
            None => {
                return Err(Refusal::new(
                    431,
                    "trailers_too_large",
                    "too many bytes of trailers: send fewer",
                ));
            }
        }
        Ok(next)
    }

    /// One byte of what stands behind a size: `;name` or `;name=value`, again and again.
    fn extension_byte(
        &mut self,
        size: u64,
        at: Extension,
        byte: u8,
    ) -> Result<DecoderState, Refusal> {
        use Extension::{
            AfterName, AfterQuoted, Begin, BeginValue, Between, Escaped, Name, Quoted, Value,
        };
        let next = match (at, byte) {
            (Name | Value | AfterQuoted, b'\r') => return Ok(DecoderState::SizeLf { size }),
            (Name | Value | AfterQuoted | Between | AfterName, b';') => Begin,
            (Name | AfterName, b'=') => BeginValue,
            (Name | AfterName, b' ' | b'\t') => AfterName,
            (Value | AfterQuoted | Between, b' ' | b'\t') => Between,
            (Begin | BeginValue, b' ' | b'\t') => at,
            (Quoted, b'"') => AfterQuoted,
            (Quoted, b'\\') => Escaped,
            (BeginValue, b'"') | (Quoted | Escaped, _) if is_text(byte) => Quoted,
            (Begin | Name, _) if is_token_byte(byte) => Name,
            (BeginValue | Value, _) if is_token_byte(byte) => Value,
            // What a size alone may not have behind it.
            (Between, _) => return Err(malformed_size()),
            _ => {
                return Err(Refusal::bad_request(
                    "malformed chunk extension: write `;name` or `;name=value` and CR LF, or send \
                     none",
                ));
            }
        };
        self.extension(size, next)
    }

    /// Pays for one byte of a chunk extension.
    fn extension(&mut self, size: u64, at: Extension) -> Result<DecoderState, Refusal> {
        match self.extension_bytes_left.checked_sub(1) {
            Some(left) => self.extension_bytes_left = left,
            None => {
                return Err(Refusal::bad_request(
                    "too many bytes of chunk extensions: send none",
                ));
            }
        }
        Ok(DecoderState::Extension { size, at })
    }
}

/// Visible, space, tab, or beyond ASCII.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cold]
fn malformed_size() -> Refusal {
    Refusal::bad_request("malformed chunk size: write hexadecimal digits, then CR LF")
}

#[cold]
fn bare_cr() -> Refusal {
    Refusal::bad_request("bare CR: end lines with CR LF")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data and the unread rest, fed in pieces of `piece` bytes, or the status of the refusal.
    fn decode(framing: Framing, input: &[u8], piece: usize) -> Result<(Vec<u8>, bool, usize), u16> {
        let mut decoder = BodyDecoder::new(framing);
        let (mut data, mut at, mut visible) = (Vec::new(), 0, 0);
        loop {
            visible = input.len().min(visible.max(at) + piece);
            loop {
                let found = decoder
                    .decode(&input[at..visible])
                    .map_err(|refusal| refusal.status)?;
                assert!(found.data.len() <= found.consumed);
                at += found.consumed;
                data.extend_from_slice(found.data);
                if found.done || found.consumed == 0 {
                    break;
                }
            }
            if decoder.is_done() || visible == input.len() {
                return Ok((data, decoder.is_done(), input.len() - at));
            }
        }
    }

    fn chunked(input: &[u8]) -> Result<(Vec<u8>, bool, usize), u16> {
        let whole = decode(Framing::Chunked, input, usize::MAX >> 1);
        for piece in 1..input.len().min(40) {
            assert_eq!(
                decode(Framing::Chunked, input, piece),
                whole,
                "in pieces of {piece}"
            );
        }
        whole
    }

    #[test]
    fn lengths() {
        for piece in 1..9 {
            assert_eq!(
                decode(Framing::Length(5), b"helloGET", piece),
                Ok((b"hello".to_vec(), true, 3))
            );
            assert_eq!(
                decode(Framing::Length(9), b"hello", piece),
                Ok((b"hello".to_vec(), false, 0))
            );
            assert_eq!(
                decode(Framing::Length(0), b"GET", piece),
                Ok((vec![], true, 3))
            );
            assert_eq!(decode(Framing::None, b"GET", piece), Ok((vec![], true, 3)));
        }
    }

    #[test]
    fn chunks_in_any_pieces() {
        let body = b"5\r\nhello\r\n1;a=\"b\"\r\n,\r\n00A \t;x\r\n0123456789\r\n0;last\r\nA: b\r\n\
            c:\r\n\r\nGET /";
        assert_eq!(chunked(body), Ok((b"hello,0123456789".to_vec(), true, 5)));
        assert_eq!(chunked(b"0\r\n\r\n"), Ok((vec![], true, 0)));
        assert_eq!(
            chunked(b"FFFFFFFFFFFFFFFF\r\nab"),
            Ok((b"ab".to_vec(), false, 0))
        );
    }

    #[test]
    fn every_cut_in_two() {
        let body = b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: v\r\n\r\n";
        for cut in 0..=body.len() {
            let mut decoder = BodyDecoder::new(Framing::Chunked);
            let mut data = Vec::new();
            for piece in [&body[..cut], &body[cut..]] {
                let mut at = 0;
                while at < piece.len() {
                    let found = decoder.decode(&piece[at..]).expect("valid");
                    assert!(found.consumed > 0, "stuck at {at} with cut {cut}");
                    at += found.consumed;
                    data.extend_from_slice(found.data);
                }
            }
            assert!(decoder.is_done() && data == b"abcde", "cut {cut}");
        }
    }

    #[test]
    fn malformed_chunks() {
        let table: [&[u8]; 26] = [
            b"\r\n",
            b"x\r\n",
            b" 5\r\n",
            b"-1\r\n",
            b"0x5\r\n",
            b"+5\r\n",
            b"5\n",
            b"5\rx",
            b"5 5\r\n",
            b"5 \r\n",
            b"00000000000000001\r\n",
            b"FFFFFFFFFFFFFFFFF\r\n",
            b"5;a\nb",
            b"5;a\rb",
            b"5;\0",
            b"5;\x7f",
            b"1\r\nab",
            b"1\r\na\n",
            b"1\r\na\rx",
            b"0\r\n\rx",
            b"0\r\n\n",
            b"0\r\n : x",
            b"0\r\nname\r\n",
            b"0\r\n:x\r\n",
            b"0\r\na: b\nc",
            b"0\r\na: b\r\n folded",
        ];
        for input in table {
            assert_eq!(
                chunked(input),
                Err(400),
                "{:?}",
                String::from_utf8_lossy(input)
            );
        }
    }

    /// RFC 9112, section 7.1.1: `*( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )`.
    #[test]
    fn extensions_have_a_grammar() {
        for extension in [
            ";a",
            ";a=b",
            ";a=\"\"",
            ";a;b;c=d",
            " ; a = b\t; c",
            ";a=\"x;=, \\\"y\\\\ \u{e9}\t\";b",
            ";a=\"b\" ;c=\"d\"",
            ";!#$%&'*+-.^_`|~09aZ=1",
        ] {
            for size in ["1", "0001"] {
                let body = format!("{size}{extension}\r\na\r\n0{extension}\r\n\r\n");
                let found = chunked(body.as_bytes());
                assert_eq!(found, Ok((b"a".to_vec(), true, 0)), "{extension}");
            }
        }
        for extension in [
            ";",
            ";;a",
            ";a;",
            "; ",
            " ",
            ";a ",
            ";a=",
            ";a= ",
            ";a=b ",
            ";=b",
            ";a b",
            ";a=b c",
            ";a=b=c",
            ";a==b",
            ";bad[=x",
            ";a=b[",
            ";a=\"b",
            ";a=\"b\"c",
            ";a=\"b\\\"",
            ";a=b\"c\"",
            ";a=\"\u{1}\"",
            ";a=\"\\\u{1}\"",
            ";\u{e9}",
            ";a=\u{e9}",
            ",a",
        ] {
            for last in ["1", "0"] {
                let body = format!("{last}{extension}\r\na\r\n0\r\n\r\n");
                assert_eq!(chunked(body.as_bytes()), Err(400), "{extension}");
            }
        }
    }

    /// A size is told when its line is read, before any of its data.
    #[test]
    fn sizes_are_told_at_their_line() {
        let mut decoder = BodyDecoder::new(Framing::Chunked);
        for (input, consumed, declared_bytes, data) in [
            (&b"1000000;a=b"[..], 11, 0, &b""[..]),
            (b"\r\nabc", 2, 0x0100_0000, b""),
            (b"abc", 3, 0, b"abc"),
        ] {
            let found = decoder.decode(input).expect("valid");
            assert_eq!(
                (found.consumed, found.declared_bytes, found.data),
                (consumed, declared_bytes, data)
            );
        }
    }

    #[test]
    fn budgets_for_extensions_and_trailers() {
        let extension = |bytes: usize| {
            [
                b"1;".as_slice(),
                &vec![b'e'; bytes - 1],
                b"\r\na\r\n0\r\n\r\n",
            ]
            .concat()
        };
        assert_eq!(
            chunked(&extension(EXTENSION_BYTES)),
            Ok((b"a".to_vec(), true, 0))
        );
        assert_eq!(chunked(&extension(EXTENSION_BYTES + 1)), Err(400));
        let many_small = [
            b"1;e\r\na\r\n".repeat(EXTENSION_BYTES / 2 + 1),
            b"0\r\n\r\n".to_vec(),
        ]
        .concat();
        assert_eq!(chunked(&many_small), Err(400));

        let trailer =
            |bytes: usize| [b"0\r\nt:".as_slice(), &vec![b'v'; bytes - 4], b"\r\n\r\n"].concat();
        let fits = chunked(&trailer(TRAILER_BYTES));
        assert_eq!(fits, Ok((vec![], true, 0)));
        assert_eq!(chunked(&trailer(TRAILER_BYTES + 1)), Err(431));
    }
}
