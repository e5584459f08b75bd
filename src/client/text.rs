//! Bytes and numbers as lines for people: nothing in them can move a cursor or break a line.

use std::fmt::{self, Write};

/// Longest error of a node that is shown, in bytes.
const LINE_MAX_BYTES: usize = 1000;

/// Appends formatted text.
#[inline(never)] // called from many places, of which each is smaller for it
pub(crate) fn put(out: &mut String, text: fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}

/// Appends text.
#[inline(never)]
pub(crate) fn push(out: &mut String, text: &str) {
    out.push_str(text);
}

/// The text as a string of its own.
#[inline(never)]
pub(crate) fn owned(text: &str) -> String {
    text.to_owned()
}

/// Appends text with some characters replaced.
#[inline(never)]
pub(crate) fn add_escaped(out: &mut String, text: &str, escapes: &[(char, &str)]) {
    for c in text.chars() {
        match escapes.iter().find(|(escaped, _)| *escaped == c) {
            Some((_, escape)) => push(out, escape),
            None => push(out, c.encode_utf8(&mut [0; 4])),
        }
    }
}

/// Appends bytes so that they stay in one field of one line: `\n`, `\r`, `\t`, `\\`, and `\xHH` for
/// each byte of any other control character and of what is not UTF-8.
pub(crate) fn escape_into(bytes: &[u8], out: &mut Vec<u8>) {
    let hex = |bytes: &[u8], out: &mut Vec<u8>| {
        for &byte in bytes {
            out.extend_from_slice(b"\\x");
            out.extend_from_slice(&hex_digits(byte));
        }
    };
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            let mut buffer = [0; 4];
            let encoded = c.encode_utf8(&mut buffer).as_bytes();
            match c {
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '\t' => out.extend_from_slice(b"\\t"),
                '\\' => out.extend_from_slice(b"\\\\"),
                _ if c.is_control() => hex(encoded, out),
                _ => out.extend_from_slice(encoded),
            }
        }
        hex(chunk.invalid(), out);
    }
}

/// A byte as two digits.
pub(crate) fn hex_digits(byte: u8) -> [u8; 2] {
    [byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)])
}

/// What a node says, as one line of bounded length.
pub(crate) fn one_line(text: &str) -> String {
    let text = &text[..text.floor_char_boundary(LINE_MAX_BYTES)];
    let is_plain = |c: &char| !c.is_control();
    text.chars().filter(is_plain).collect()
}

/// Whether bytes can be shown on a terminal as they are.
pub(crate) fn is_printable(bytes: &[u8]) -> bool {
    let is_shown = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    std::str::from_utf8(bytes).is_ok_and(|text| text.chars().all(is_shown))
}

/// A number of bytes, rounded: `1.4 MiB`.
#[inline(never)]
pub(crate) fn bytes_text(bytes: u64) -> String {
    let (mut tenths, mut unit) = (bytes.saturating_mul(10), 0);
    while tenths >= 10_240 && unit < 4 {
        tenths /= 1024;
        unit += 1;
    }
    let mut text = String::new();
    let name = ["bytes", "KiB", "MiB", "GiB", "TiB"][unit];
    if unit == 0 {
        put(&mut text, format_args!("{bytes} {name}"));
    } else {
        put(
            &mut text,
            format_args!("{}.{} {name}", tenths / 10, tenths % 10),
        );
    }
    text
}

/// A time, in its largest unit and the next: `3 h 12 min`.
#[inline(never)]
pub(crate) fn time_text(ms: u64) -> String {
    let units = [
        ("d", 24 * 60 * 60 * 1000),
        ("h", 60 * 60 * 1000),
        ("min", 60 * 1000),
        ("s", 1000),
        ("ms", 1),
    ];
    let largest = units.iter().position(|(_, unit_ms)| *unit_ms <= ms);
    let (name, unit_ms) = units[largest.unwrap_or(4)];
    let mut text = String::new();
    put(&mut text, format_args!("{} {name}", ms / unit_ms));
    if let Some((name, next_ms)) = units.get(largest.unwrap_or(4) + 1)
        && ms % unit_ms >= *next_ms
    {
        put(
            &mut text,
            format_args!(" {} {name}", ms % unit_ms / next_ms),
        );
    }
    text
}

/// Cells in rows of as many columns, the first row being the heading.
#[derive(Debug)]
pub(crate) struct Table {
    column_count: usize,
    cells: Vec<String>,
}

impl Table {
    pub(crate) fn new(heading: &[&str]) -> Self {
        let mut table = Self {
            column_count: heading.len(),
            cells: Vec::new(),
        };
        for text in heading {
            table.cell(owned(text));
        }
        table
    }

    /// Adds a cell.
    #[inline(never)]
    pub(crate) fn cell(&mut self, text: String) {
        self.cells.push(text);
    }

    /// Whether there is a row behind the heading.
    pub(crate) fn has_rows(&self) -> bool {
        self.cells.len() > self.column_count
    }

    /// Appends the rows, with two spaces between columns. Columns of numbers are flush right.
    pub(crate) fn add_to(&self, out: &mut String) {
        let is_number = |cell: &String| cell.bytes().next().is_none_or(|c| c.is_ascii_digit());
        let mut columns = vec![(0, true); self.column_count];
        for (index, cell) in self.cells.iter().enumerate() {
            let (width, is_right) = &mut columns[index % self.column_count];
            *width = cell.chars().count().max(*width);
            *is_right &= index < self.column_count || is_number(cell);
        }
        for (index, cell) in self.cells.iter().enumerate() {
            let at = index % self.column_count;
            let (width, is_right) = columns[at];
            if is_right && self.has_rows() {
                put(out, format_args!("{cell:>width$}  "));
            } else {
                put(out, format_args!("{cell:<width$}  "));
            }
            if at + 1 == self.column_count {
                out.truncate(out.trim_end_matches(' ').len());
                out.push('\n');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_lossless_and_harmless() {
        for (bytes, expected) in [
            (&b"plain \xc3\xa9"[..], "plain \u{e9}"),
            (b"a\tb\nc\rd\\e", "a\\tb\\nc\\rd\\\\e"),
            (b"\x1b[2J\x00\x7f", "\\x1b[2J\\x00\\x7f"),
            (b"\xc2\x9b", "\\xc2\\x9b"),
            (b"\xff\xc3", "\\xff\\xc3"),
            (b"", ""),
        ] {
            let mut out = Vec::new();
            escape_into(bytes, &mut out);
            assert_eq!(String::from_utf8(out).as_deref(), Ok(expected));
        }
        assert_eq!(one_line("a\r\nb\u{1b}[1m"), "ab[1m");
        assert!(one_line(&"\u{e9}".repeat(1000)).len() <= LINE_MAX_BYTES);
        assert!(is_printable("a\tb\n\u{e9}".as_bytes()));
        assert!(!is_printable(b"\x1b[1m") && !is_printable(b"\xff") && !is_printable(b"\0"));
    }

    #[test]
    fn numbers_are_as_people_write_them() {
        for (bytes, expected) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1.0 KiB"),
            (1_600_000, "1.5 MiB"),
            (5 << 40, "5.0 TiB"),
            (u64::MAX, "1677721.5 TiB"),
        ] {
            assert_eq!(bytes_text(bytes), expected);
        }
        for (ms, expected) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_500, "1 s 500 ms"),
            (61_000, "1 min 1 s"),
            (60_000, "1 min"),
            (3_600_500, "1 h"),
            (11_520_000, "3 h 12 min"),
            (90_061_001, "1 d 1 h"),
        ] {
            assert_eq!(time_text(ms), expected, "{ms}");
        }
    }

    #[test]
    fn columns_stand_below_each_other() {
        let mut table = Table::new(&["A", "NUMBER", "C"]);
        assert!(!table.has_rows());
        for cell in ["long", "7", "", "x", "12", "\u{e9}"] {
            table.cell(cell.to_owned());
        }
        let mut text = String::new();
        table.add_to(&mut text);
        assert_eq!(
            text,
            "A     NUMBER  C\nlong       7\nx         12  \u{e9}\n"
        );
    }

    #[test]
    fn characters_are_replaced() {
        let mut text = String::from("'");
        add_escaped(&mut text, "it's a-b", &[('\'', "'\\''"), ('-', "\\-")]);
        assert_eq!(text, "'it'\\''s a\\-b");
    }
}
