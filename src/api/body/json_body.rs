//! JSON bodies of key-value requests, decoded as they arrive: one flat object of strings.
//!
//! A general parser needs the whole text at once, and would hold the loop while it parses a value
//! of many megabytes.
//!
//! Invariants:
//! 1. Any cut of the text into pieces gives the same fields or the same refusal.
//! 2. The accepted texts are a subset of RFC 8259: one object with known fields, each at most once.
//!    Values are strings, or numbers for fields that are numbers.
//! 3. The work of a call is proportional to the piece that it gets.
//!
//! Not here: limits and meaning of the fields (`kv_fields.rs`).

use crate::http::Refusal;

use crate::api::body::json_text::Utf8Validator;
use crate::api::body::kv_fields::{AllowedFields, BodyField, KvFields, KvLimits};

/// What is expected next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JsonState {
    Object,
    /// The first name, or the end of an empty object.
    FirstName,
    NextName,
    Colon,
    /// The first character of a field's value.
    Value,
    InString(Text),
    InNumber,
    /// A comma or the end of the object.
    AfterValue,
    /// White space only.
    End,
}

/// Which text a string is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text {
    Name,
    Of(BodyField),
}

/// How much of an escape sequence has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JsonEscape {
    None,
    Backslash,
    /// `\u` and some digits.
    Unicode {
        digit_count: u8,
        unit: u16,
    },
}

/// The decoder.
#[derive(Debug)]
pub(crate) struct JsonBody {
    fields: Box<KvFields>,
    state: JsonState,
    /// The field with the name that was read.
    open: BodyField,
    escape: JsonEscape,
    /// The first half of a surrogate pair; the second must follow at once.
    high_surrogate: Option<u16>,
    utf8: Utf8Validator,
    offset_bytes: usize,
}

impl JsonBody {
    pub(crate) fn new(limits: KvLimits, allowed: AllowedFields) -> Self {
        Self {
            fields: Box::new(KvFields::new(limits, allowed)),
            state: JsonState::Object,
            open: BodyField::Key,
            escape: JsonEscape::None,
            high_surrogate: None,
            utf8: Utf8Validator::default(),
            offset_bytes: 0,
        }
    }

    /// Heap in use.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.fields.heap_bytes()
    }

    /// Takes in the next piece.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        let used = self.push_object(piece)?;
        piece[used..]
            .iter()
            .try_for_each(|byte| self.read_structure(*byte))
    }

    /// Whether the object is over.
    pub(crate) fn is_whole(&self) -> bool {
        self.state == JsonState::End
    }

    /// Takes in the next piece up to the end of the object; returns the bytes used.
    pub(crate) fn push_object(&mut self, piece: &[u8]) -> Result<usize, Refusal> {
        let mut rest = piece;
        while let Some(&byte) = rest.first().filter(|_| !self.is_whole()) {
            let used = match self.state {
                JsonState::InString(text) => self.read_string(text, rest)?,
                JsonState::InNumber => self.read_number(rest)?,
                _ => {
                    self.read_structure(byte)?;
                    1
                }
            };
            self.offset_bytes += used;
            rest = &rest[used..];
        }
        Ok(piece.len() - rest.len())
    }

    /// Ends the text; returns the fields, or a refusal if the object is not complete.
    pub(crate) fn end(self) -> Result<Box<KvFields>, Refusal> {
        if self.is_whole() {
            Ok(self.fields)
        } else {
            Err(self.bad_json("the text ends early"))
        }
    }

    fn read_structure(&mut self, byte: u8) -> Result<(), Refusal> {
        if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            return Ok(());
        }
        self.state = match (self.state, byte) {
            (JsonState::Object, b'{') => JsonState::FirstName,
            (JsonState::FirstName | JsonState::NextName, b'"') => JsonState::InString(Text::Name),
            (JsonState::Colon, b':') => JsonState::Value,
            (JsonState::Value, b'"') => JsonState::InString(Text::Of(self.open)),
            (JsonState::Value, b'-' | b'0'..=b'9') if self.open.is_number() => {
                self.append(Text::Of(self.open), &[byte])?;
                JsonState::InNumber
            }
            (JsonState::AfterValue, b',') => JsonState::NextName,
            (JsonState::FirstName | JsonState::AfterValue, b'}') => JsonState::End,
            (JsonState::NextName, b'}') => return Err(self.bad_json("a comma before the end")),
            (JsonState::Value, b'\'' | b'\\') | (JsonState::FirstName | JsonState::NextName, _) => {
                // Single quotes, none, or \": a shell has changed what was typed.
                let problem = "keys and strings in JSON are in double quotes, and the shell must \
                               leave them there: curl -d @FILE sends a file as it is";
                return Err(self.bad_json(problem));
            }
            (JsonState::Value, _) if self.open == BodyField::Ttl => {
                return Err(self.bad_json("expected a number"));
            }
            (JsonState::Value, _) => {
                let message =
                    "a field is not a string: put it in quotes, or store it raw with PUT /kv/{key}";
                return Err(Refusal::bad_request(message));
            }
            (JsonState::Object, _) => return Err(self.bad_json("expected an object, {…}")),
            (JsonState::End, _) => return Err(self.bad_json("something follows the object")),
            _ => return Err(self.bad_json("unexpected character")),
        };
        Ok(())
    }

    /// Reads the rest of a number; returns the bytes used. The field checks whether it is a number.
    fn read_number(&mut self, rest: &[u8]) -> Result<usize, Refusal> {
        let is_of_number =
            |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
        let end = rest
            .iter()
            .position(|byte| !is_of_number(byte))
            .unwrap_or(rest.len());
        self.append(Text::Of(self.open), &rest[..end])?;
        if end < rest.len() {
            self.state = JsonState::AfterValue;
        }
        Ok(end)
    }

    /// Reads a run of plain text, or one character of an escape, or the closing quote; returns the
    /// bytes used.
    fn read_string(&mut self, text: Text, rest: &[u8]) -> Result<usize, Refusal> {
        if self.escape != JsonEscape::None {
            self.read_escape(text, rest[0])?;
            return Ok(1);
        }
        let end = memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
        if end > 0 {
            self.take_run(text, &rest[..end])?;
            return Ok(end);
        }
        if !self.utf8.is_complete() {
            return Err(self.bad_json("not UTF-8"));
        }
        if rest[0] == b'\\' {
            self.escape = JsonEscape::Backslash;
            return Ok(1);
        }
        self.refuse_lone_surrogate()?;
        self.state = match text {
            Text::Name => {
                self.open = self.fields.open()?;
                JsonState::Colon
            }
            Text::Of(_) => JsonState::AfterValue,
        };
        Ok(1)
    }

    fn take_run(&mut self, text: Text, run: &[u8]) -> Result<(), Refusal> {
        self.refuse_lone_surrogate()?;
        // The search finds the first byte that needs a look, eight bytes at a time.
        if run
            .iter()
            .fold(u8::MAX, |smallest, byte| smallest.min(*byte))
            < 0x20
        {
            return Err(
                self.bad_json("a control character in a string: write it as \\n or \\u00XX")
            );
        }
        if !self.utf8.push(run) {
            return Err(self.bad_json("not UTF-8"));
        }
        self.append(text, run)
    }

    fn append(&mut self, text: Text, bytes: &[u8]) -> Result<(), Refusal> {
        match text {
            Text::Name => {
                self.fields.name.extend_from_slice(bytes);
                self.fields.check_name_len()
            }
            Text::Of(field) => {
                self.fields.text_of(field).extend_from_slice(bytes);
                self.fields.check_len(field)
            }
        }
    }

    fn read_escape(&mut self, text: Text, byte: u8) -> Result<(), Refusal> {
        if let JsonEscape::Unicode { digit_count, unit } = self.escape {
            let Some(digit) = char::from(byte)
                .to_digit(16)
                .and_then(|digit| u16::try_from(digit).ok())
            else {
                return Err(self.bad_json("\\u needs four hexadecimal digits"));
            };
            let unit = unit << 4 | digit;
            if digit_count < 3 {
                self.escape = JsonEscape::Unicode {
                    digit_count: digit_count + 1,
                    unit,
                };
                return Ok(());
            }
            self.escape = JsonEscape::None;
            return self.take_unit(text, unit);
        }
        self.escape = JsonEscape::None;
        let plain = match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                self.escape = JsonEscape::Unicode {
                    digit_count: 0,
                    unit: 0,
                };
                return Ok(());
            }
            _ => return Err(self.bad_json("unknown escape")),
        };
        self.refuse_lone_surrogate()?;
        self.append(text, &[plain])
    }

    /// Takes a UTF-16 code unit: a character, or half of one.
    fn take_unit(&mut self, text: Text, unit: u16) -> Result<(), Refusal> {
        let units = match self.high_surrogate.take() {
            Some(high) => [high, unit],
            None if (0xd800..0xdc00).contains(&unit) => {
                self.high_surrogate = Some(unit);
                return Ok(());
            }
            None => [unit, 0],
        };
        let len = if (0xd800..0xdc00).contains(&units[0]) {
            2
        } else {
            1
        };
        match char::decode_utf16(units[..len].iter().copied()).next() {
            Some(Ok(character)) => self.append(text, character.encode_utf8(&mut [0; 4]).as_bytes()),
            _ => Err(self.bad_json("half of a surrogate pair")),
        }
    }

    fn refuse_lone_surrogate(&self) -> Result<(), Refusal> {
        if self.high_surrogate.is_some() {
            Err(self.bad_json("half of a surrogate pair"))
        } else {
            Ok(())
        }
    }

    #[cold]
    fn bad_json(&self, problem: &str) -> Refusal {
        let message = format!("bad JSON near byte {}: {problem}", self.offset_bytes);
        Refusal::new(400, "bad_json", message)
    }
}
