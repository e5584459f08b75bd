//! What a request says before its body, once it is read.
//!
//! Not here: reading it (`request.rs`), what it is taken to mean (the api layer).

/// The method of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "RFC 9110 section 9.3 documents them")]
pub enum Method {
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

/// How the end of the body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Neither Content-Length nor Transfer-Encoding: there is no body.
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

/// What a request says before its body. Values are trimmed of white space and otherwise as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'b> {
    /// The method.
    pub method: Method,
    /// The path, still percent-encoded. `*` for `OPTIONS *`, the authority for CONNECT, else it begins with `/`.
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
    /// The authority: of an absolute-form target if there is one (RFC 9112 section 3.2.2), else of Host; may be empty.
    pub host: Option<&'b [u8]>,
    /// Content-Type.
    pub content_type: Option<&'b [u8]>,
    /// Accept; of several lines the first.
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
}

/// A header whose value is part of a [`Head`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Host,
    ContentType,
    Accept,
    Authorization,
    Origin,
    SecFetchSite,
    IfMatch,
    IfNoneMatch,
    PartitionId,
    Ttl,
    LastEventId,
    MinAcks,
}

impl Field {
    pub(super) const ALL: [Self; 12] = [
        Self::Host,
        Self::ContentType,
        Self::Accept,
        Self::Authorization,
        Self::Origin,
        Self::SecFetchSite,
        Self::IfMatch,
        Self::IfNoneMatch,
        Self::PartitionId,
        Self::Ttl,
        Self::LastEventId,
        Self::MinAcks,
    ];
}

impl<'b> Head<'b> {
    #[inline]
    pub(super) fn field_mut(&mut self, field: Field) -> &mut Option<&'b [u8]> {
        match field {
            Field::Host => &mut self.host,
            Field::ContentType => &mut self.content_type,
            Field::Accept => &mut self.accept,
            Field::Authorization => &mut self.authorization,
            Field::Origin => &mut self.origin,
            Field::SecFetchSite => &mut self.sec_fetch_site,
            Field::IfMatch => &mut self.if_match,
            Field::IfNoneMatch => &mut self.if_none_match,
            Field::PartitionId => &mut self.partition_id,
            Field::Ttl => &mut self.ttl,
            Field::LastEventId => &mut self.last_event_id,
            Field::MinAcks => &mut self.min_acks,
        }
    }
}

impl<'b> Head<'b> {
    /// What the request is about.
    pub fn target(&self) -> Target<'b> {
        Target {
            path: self.path,
            query: self.query,
            is_literal: self.is_literal,
        }
    }
}

impl Head<'_> {
    /// A body of at least one byte on the wire follows the head.
    pub fn has_body(&self) -> bool {
        !matches!(self.framing, Framing::None | Framing::Length(0))
    }
}

impl Default for Head<'_> {
    /// `GET / HTTP/1.1` without a header; for tests of what is built on heads.
    fn default() -> Self {
        Self {
            method: Method::Get,
            path: b"/",
            query: None,
            is_literal: true,
            http_minor: 1,
            keep_alive: true,
            framing: Framing::None,
            expect_continue: false,
            host: None,
            content_type: None,
            accept: None,
            authorization: None,
            origin: None,
            sec_fetch_site: None,
            if_match: None,
            if_none_match: None,
            partition_id: None,
            ttl: None,
            last_event_id: None,
            min_acks: None,
        }
    }
}
