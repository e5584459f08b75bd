//! What a request says before its body, once it is read.
//!
//! Not here: reading it (`request.rs`), what it is taken to mean (the api layer).

use super::field_table::{Field, FieldSet};

/// The method of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "RFC 9110 section 9.3 documents them")]
pub enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Patch,
    Trace,
    Connect,
    /// Any other token.
    Other,
}

impl Method {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Patch => "PATCH",
            Self::Trace => "TRACE",
            Self::Connect => "CONNECT",
            Self::Other => "-",
        }
    }
}

/// How the end of the body is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// Neither Content-Length nor Transfer-Encoding: there is no body.
    #[default]
    None,
    /// Content-Length, in bytes; may be 0.
    Length(u64),
    /// Transfer-Encoding: chunked.
    Chunked,
}

/// What a request is about.
#[derive(Clone, Copy, Debug)]
pub struct Target<'b> {
    /// As in a [`Head`].
    pub path: &'b [u8],
    /// As in a [`Head`].
    pub query: Option<&'b [u8]>,
    /// As in a [`Head`].
    pub is_literal: bool,
}

/// What a request says before its body. Values are trimmed of white space and otherwise as they
/// came; a list on several lines is joined by commas, and of a single value on several lines the
/// first is here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head<'b> {
    /// The method.
    pub method: Method,
    /// The path, still percent-encoded. `*` for `OPTIONS *`, the authority for CONNECT, else it
    /// begins with `/`.
    pub path: &'b [u8],
    /// What follows the first `?`, still percent-encoded.
    pub query: Option<&'b [u8]>,
    /// There is neither `%` nor `+` in the target: path and query mean what they say.
    pub is_literal: bool,
    /// 0 or 1, of `HTTP/1.x`.
    pub http_minor: u8,
    /// The peer allows another request on this connection.
    pub keep_alive: bool,
    /// How the end of the body is found.
    pub framing: Framing,
    /// The peer waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
    /// The authority: of an absolute-form target if there is one (RFC 9112 section 3.2.2), else of
    /// Host; may be empty.
    pub host: Option<&'b [u8]>,
    /// Content-Type.
    pub content_type: Option<&'b [u8]>,
    /// Accept.
    pub accept: Option<&'b [u8]>,
    /// Authorization.
    pub authorization: Option<&'b [u8]>,
    /// Origin.
    pub origin: Option<&'b [u8]>,
    /// Sec-Fetch-Site.
    pub sec_fetch_site: Option<&'b [u8]>,
    /// If-Match.
    pub if_match: Option<&'b [u8]>,
    /// If-None-Match.
    pub if_none_match: Option<&'b [u8]>,
    /// X-Partition-ID.
    pub partition_id: Option<&'b [u8]>,
    /// X-TTL.
    pub ttl: Option<&'b [u8]>,
    /// `Last-Event-ID`: what a client of server-sent events had last.
    pub last_event_id: Option<&'b [u8]>,
    /// X-Min-Acks.
    pub min_acks: Option<&'b [u8]>,
    /// The fields that are there, but for a Content-Encoding that says that there is none.
    pub given: FieldSet,
    /// Those that have one value and stand on several lines all the same.
    pub repeated: FieldSet,
}

impl<'b> Head<'b> {
    /// Where the value of a field is kept; `None`: this field has no value of its own here.
    #[inline]
    pub(super) fn value_mut(&mut self, field: Field) -> Option<&mut Option<&'b [u8]>> {
        match field {
            Field::Host => Some(&mut self.host),
            Field::ContentType => Some(&mut self.content_type),
            Field::Accept => Some(&mut self.accept),
            Field::Authorization => Some(&mut self.authorization),
            Field::Origin => Some(&mut self.origin),
            Field::SecFetchSite => Some(&mut self.sec_fetch_site),
            Field::IfMatch => Some(&mut self.if_match),
            Field::IfNoneMatch => Some(&mut self.if_none_match),
            Field::PartitionId => Some(&mut self.partition_id),
            Field::Ttl => Some(&mut self.ttl),
            Field::LastEventId => Some(&mut self.last_event_id),
            Field::MinAcks => Some(&mut self.min_acks),
            Field::ContentLength
            | Field::TransferEncoding
            | Field::Connection
            | Field::NotLeader
            | Field::Expect
            | Field::ContentEncoding
            | Field::ContentRange
            | Field::IfUnmodifiedSince
            | Field::MethodOverride
            | Field::HttpMethod
            | Field::OtherMethod
            | Field::MinAck
            | Field::MinAcksJoined
            | Field::Partition
            | Field::PartitionIdJoined => None,
        }
    }

    /// What the request is about.
    pub fn target(&self) -> Target<'b> {
        Target {
            path: self.path,
            query: self.query,
            is_literal: self.is_literal,
        }
    }

    /// A body of at least one byte on the wire follows the head.
    pub fn has_body(&self) -> bool {
        !matches!(self.framing, Framing::None | Framing::Length(0))
    }
}
