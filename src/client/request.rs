//! A request as a command makes it: method, target, fields, and what it uploads.
//!
//! Invariant: whatever bytes a key has, the head stays well-formed, since they are percent-encoded.

use std::fs::File;
use std::io::{self, Read};

use super::text::{owned, put};

/// An upload longer than this is not held in memory. The node is asked first whether it takes it.
pub(crate) const UPLOAD_AHEAD_BYTES: usize = 1024 * 1024;

/// A request.
#[derive(Debug)]
pub(crate) struct ClientRequest {
    pub(crate) method: &'static str,
    pub(crate) target: String,
    /// It is about the node as a whole, which refuses the number of a partition then.
    pub(crate) is_about_node: bool,
    /// Lines with CR LF.
    pub(crate) fields: String,
    pub(crate) upload: Option<Upload>,
}

/// The body of a request.
#[derive(Debug)]
pub(crate) struct Upload {
    /// The beginning.
    pub(crate) first: Vec<u8>,
    /// What follows, unless `first` is all of it.
    pub(crate) rest: Option<File>,
    /// The length of all of it, where that is known before it is read.
    pub(crate) bytes: Option<u64>,
}

impl ClientRequest {
    #[inline(never)]
    pub(crate) fn new(method: &'static str, path: &str) -> Self {
        Self {
            method,
            target: owned(path),
            is_about_node: false,
            fields: String::new(),
            upload: None,
        }
    }

    /// Adds bytes to the path, percent-encoded.
    pub(crate) fn segment(mut self, bytes: &[u8]) -> Self {
        encode(bytes, &mut self.target);
        self
    }

    /// Adds a parameter.
    #[inline(never)]
    pub(crate) fn param(mut self, name: &str, value: &[u8]) -> Self {
        let separator = if self.target.contains('?') { "&" } else { "?" };
        put(&mut self.target, format_args!("{separator}{name}="));
        encode(value, &mut self.target);
        self
    }

    /// Adds a field. The value is known to fit on a line.
    pub(crate) fn field(&mut self, name: &str, value: &str) {
        put(&mut self.fields, format_args!("{name}: {value}\r\n"));
    }
}

impl Upload {
    /// A body that is in memory.
    pub(crate) fn whole(bytes: Vec<u8>) -> Self {
        Self {
            bytes: Some(bytes.len() as u64),
            first: bytes,
            rest: None,
        }
    }

    /// A body that is read from a file, a pipe or a terminal.
    pub(crate) fn of_file(mut file: File) -> io::Result<Self> {
        let mut first = Vec::new();
        let ahead = UPLOAD_AHEAD_BYTES as u64;
        (&mut file).take(ahead).read_to_end(&mut first)?;
        if first.len() < UPLOAD_AHEAD_BYTES {
            return Ok(Self::whole(first));
        }
        let meta = file.metadata()?;
        Ok(Self {
            first,
            rest: Some(file),
            bytes: meta.is_file().then_some(meta.len()),
        })
    }
}

/// All but letters, digits and `-_~` is encoded: the dots, too, since `.` and `..` mean something
/// in a path.
fn encode(bytes: &[u8], out: &mut String) {
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) {
            put(out, format_args!("{}", char::from(byte)));
        } else {
            put(out, format_args!("%{byte:02X}"));
        }
    }
}
