//! The table of header fields that the node reads, and what it means that one stands on several
//! lines (RFC 9110, section 5.3).
//!
//! Invariants:
//! 1. Every field that is read anywhere has a row here; all others are ignored, as HTTP requires.
//! 2. A list on several lines says the same as its lines joined by commas; it is joined before
//!    anything reads it.
//! 3. A field with a single value that stands on several lines is refused where the value matters,
//!    and ignored elsewhere. Fields that decide where a request ends, and Host, always matter.
//!
//! Not here: the grammar of values (`fields.rs`), which request may have which field (the api
//! layer).

/// What it means that a field stands on several lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// The lines are one list.
    List,
    /// There is one value: the request is refused where the value matters.
    Single,
    /// There is one value that always matters: the head is refused, and the connection ends.
    Framing,
}

macro_rules! fields {
    ($($field:ident $name:literal $repeat:ident;)*) => {
        /// A header field that the node reads.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Field {
            $(#[doc = concat!("`", $name, "`")] $field,)*
        }

        impl Field {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$field,)*];

            /// Its name as in messages.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$field => $name,)*
                }
            }

            /// What it means that it stands on several lines.
            #[inline]
            pub fn repeat(self) -> Repeat {
                match self {
                    $(Self::$field => Repeat::$repeat,)*
                }
            }
        }
    };
}

fields! {
    // Framing and the connection
    Host "Host" Framing;
    ContentLength "Content-Length" Framing;
    TransferEncoding "Transfer-Encoding" List;
    Connection "Connection" List;
    Expect "Expect" List;
    // The sender and the forms of bodies
    Accept "Accept" List;
    Authorization "Authorization" Single;
    Origin "Origin" Single;
    SecFetchSite "Sec-Fetch-Site" Single;
    ContentType "Content-Type" Single;
    NotLeader "X-Not-Leader" Single;
    // What a request means
    ContentEncoding "Content-Encoding" List;
    ContentRange "Content-Range" Single;
    IfMatch "If-Match" List;
    IfNoneMatch "If-None-Match" List;
    IfUnmodifiedSince "If-Unmodified-Since" Single;
    LastEventId "Last-Event-ID" Single;
    PartitionId "X-Partition-ID" Single;
    Ttl "X-TTL" Single;
    MinAcks "X-Min-Acks" Single;
    MethodOverride "X-HTTP-Method-Override" Single;
    HttpMethod "X-HTTP-Method" Single;
    OtherMethod "X-Method-Override" Single;
    // What the node's own fields are mistaken for: obeyed nowhere
    MinAck "X-Min-Ack" Single;
    MinAcksJoined "X-MinAcks" Single;
    Partition "X-Partition" Single;
    PartitionIdJoined "X-PartitionID" Single;
}

impl Field {
    /// The field with a name, if it has a row. The length is compared first, since most lengths
    /// occur in no row.
    #[inline]
    pub(super) fn of(name: &[u8]) -> Option<Self> {
        let is = |field: Self| {
            name.eq_ignore_ascii_case(field.name().as_bytes())
                .then_some(field)
        };
        match name.len() {
            4 => is(Self::Host),
            5 => is(Self::Ttl),
            6 => is(Self::Accept)
                .or_else(|| is(Self::Expect))
                .or_else(|| is(Self::Origin)),
            8 => is(Self::IfMatch),
            9 => is(Self::MinAck).or_else(|| is(Self::MinAcksJoined)),
            10 => is(Self::Connection).or_else(|| is(Self::MinAcks)),
            11 => is(Self::Partition),
            12 => is(Self::ContentType).or_else(|| is(Self::NotLeader)),
            13 => is(Self::Authorization)
                .or_else(|| is(Self::IfNoneMatch))
                .or_else(|| is(Self::LastEventId))
                .or_else(|| is(Self::ContentRange))
                .or_else(|| is(Self::HttpMethod))
                .or_else(|| is(Self::PartitionIdJoined)),
            14 => is(Self::ContentLength)
                .or_else(|| is(Self::SecFetchSite))
                .or_else(|| is(Self::PartitionId)),
            16 => is(Self::ContentEncoding),
            17 => is(Self::TransferEncoding).or_else(|| is(Self::OtherMethod)),
            19 => is(Self::IfUnmodifiedSince),
            22 => is(Self::MethodOverride),
            _ => None,
        }
    }
}

/// A set of fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FieldSet(u32);

const _: () = assert!(Field::ALL.len() <= 32);

impl FieldSet {
    /// None of them.
    pub const EMPTY: Self = Self(0);

    /// These.
    pub const fn of(fields: &[Field]) -> Self {
        let (mut set, mut at) = (0, 0);
        while at < fields.len() {
            set |= 1 << fields[at] as u32;
            at += 1;
        }
        Self(set)
    }

    /// Whether there is none.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether a field is among them.
    #[inline]
    pub const fn has(self, field: Field) -> bool {
        self.0 & (1 << field as u32) != 0
    }

    /// Adds a field; false if it is there already.
    #[inline]
    pub(super) fn insert(&mut self, field: Field) -> bool {
        let is_new = !self.has(field);
        self.0 |= 1 << field as u32;
        is_new
    }

    /// These and the others.
    #[must_use]
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Those of these that are among the others, too.
    #[inline]
    #[must_use]
    pub const fn within(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }

    /// Those of these that are not among the others.
    #[inline]
    #[must_use]
    pub const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// One of them after the other, in the order of the table.
    pub fn iter(self) -> impl Iterator<Item = Field> {
        Field::ALL
            .iter()
            .copied()
            .filter(move |field| self.has(*field))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_found_by_its_name_in_any_case() {
        for &field in Field::ALL {
            let name = field.name();
            for name in [name.to_owned(), name.to_lowercase(), name.to_uppercase()] {
                assert_eq!(Field::of(name.as_bytes()), Some(field), "{name}");
            }
            assert_eq!(Field::of(format!("{name}z").as_bytes()), None);
        }
        assert_eq!(Field::of(b"x-tt1"), None);
    }

    #[test]
    fn sets() {
        let mut set = FieldSet::of(&[Field::Ttl, Field::Host]);
        assert!(set.has(Field::Ttl) && !set.has(Field::Accept) && !set.is_empty());
        assert!(set.insert(Field::Accept) && !set.insert(Field::Accept));
        let others = FieldSet::of(&[Field::Ttl, Field::Origin]);
        assert_eq!(set.within(others), FieldSet::of(&[Field::Ttl]));
        assert_eq!(
            set.without(others).iter().collect::<Vec<_>>(),
            [Field::Host, Field::Accept]
        );
        assert_eq!(FieldSet::EMPTY.and(others), others);
    }
}
