//! Form bodies (`application/x-www-form-urlencoded`) of key-value requests, decoded as they arrive:
//! `key=k&value=v`.
//!
//! Invariant: any cut of the text into pieces gives the same fields or the same refusal.

use crate::http::Refusal;

use crate::api::body::kv_fields::{AllowedFields, BodyField, KvFields, KvLimits};
use crate::api::request::percent::{BadEscape, PercentDecoder, Plus};

/// The part of the text that is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FormState {
    Name,
    Value(BodyField),
}

/// The decoder.
#[derive(Debug)]
pub(crate) struct FormBody {
    fields: Box<KvFields>,
    state: FormState,
    decoder: PercentDecoder,
}

impl FormBody {
    pub(crate) fn new(limits: KvLimits, allowed: AllowedFields) -> Self {
        let fields = Box::new(KvFields::new(limits, allowed));
        Self {
            fields,
            state: FormState::Name,
            decoder: PercentDecoder::new(Plus::Space),
        }
    }

    /// Heap in use.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.fields.heap_bytes()
    }

    /// Takes in the next piece.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        let mut rest = piece;
        while !rest.is_empty() {
            let end = match self.state {
                FormState::Name => memchr::memchr2(b'=', b'&', rest),
                FormState::Value(_) => memchr::memchr(b'&', rest),
            };
            self.take(&rest[..end.unwrap_or(rest.len())])?;
            let Some(end) = end else { return Ok(()) };
            self.end_text(rest[end])?;
            rest = &rest[end + 1..];
        }
        Ok(())
    }

    /// Ends the text; returns the fields.
    pub(crate) fn end(mut self) -> Result<Box<KvFields>, Refusal> {
        self.end_text(b'&')?;
        Ok(self.fields)
    }

    fn take(&mut self, text: &[u8]) -> Result<(), Refusal> {
        match self.state {
            FormState::Name => {
                self.decoder
                    .push(text, &mut self.fields.name)
                    .map_err(|BadEscape| bad_form())?;
                self.fields
                    .check_name_len()
                    .map_err(|refusal| self.about_name(refusal))
            }
            FormState::Value(field) => {
                self.decoder
                    .push(text, self.fields.text_of(field))
                    .map_err(|BadEscape| bad_form())?;
                self.fields.check_len(field)
            }
        }
    }

    /// The refusal of a name that is not known. As the first of the body it is no name: the body is
    /// something else.
    #[cold]
    fn about_name(&self, refusal: Refusal) -> Refusal {
        if self.fields.is_empty() {
            self.fields.neither_json_nor_form()
        } else {
            refusal
        }
    }

    /// A name or a value ends with the byte `end`.
    fn end_text(&mut self, end: u8) -> Result<(), Refusal> {
        self.decoder.finish().map_err(|BadEscape| bad_form())?;
        self.state = match self.state {
            // Nothing stands between two `&`: skip it.
            FormState::Name if self.fields.name.is_empty() && end == b'&' => FormState::Name,
            FormState::Name => {
                let field = match self.fields.open() {
                    Err(refusal) if end == b'&' => return Err(self.about_name(refusal)),
                    opened => opened?,
                };
                if end == b'=' {
                    FormState::Value(field)
                } else {
                    FormState::Name
                }
            }
            FormState::Value(_) => FormState::Name,
        };
        Ok(())
    }
}

#[cold]
fn bad_form() -> Refusal {
    let message = "the form has a % that is not followed by two hexadecimal digits: send %25 for a \
                   percent sign";
    Refusal::new(400, "bad_form", message)
}
