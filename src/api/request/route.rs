//! The table of the API: for each path its methods, and for each method what a request takes beside
//! its path and body.
//!
//! Not here: refusing what a request does not take (`takes.rs`), the endpoints (`dispatch.rs` calls
//! them).

use crate::http::Field::{
    self, ContentType, IfMatch, IfNoneMatch, LastEventId, MinAcks, PartitionId, Ttl,
};
use crate::http::{FieldSet, Method, Vary};

use crate::metrics::GROUP_COUNT;

use super::params::{Param, ParamSet};

/// What `OPTIONS *` answers.
pub(crate) const ALL_METHODS: &str = "GET, HEAD, POST, PUT, DELETE, OPTIONS";

/// Which clients get an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// All clients, without a token, under any Host, from pages of other sites, above the limit on
    /// connections too.
    Linked,
    /// The same, but not from pages of other sites.
    Public,
    /// Clients with the token, above the limit on connections too.
    Monitoring,
    /// Clients with the token, below the limit on connections.
    Data,
}

/// Requests that share a histogram of durations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    Read,
    Write,
    Stream,
    Health,
    Admin,
    Other,
}

impl Group {
    /// All of them, with their names.
    pub(crate) const NAMES: [(Self, &str); GROUP_COUNT] = [
        (Self::Read, "read"),
        (Self::Write, "write"),
        (Self::Stream, "stream"),
        (Self::Health, "health"),
        (Self::Admin, "admin"),
        (Self::Other, "other"),
    ];

    /// What it is counted under.
    #[inline]
    pub(crate) fn number(self) -> usize {
        self as usize
    }
}

/// A method of a path. GET stands for HEAD, too.
#[derive(Debug)]
struct Operation {
    method: Method,
    group: Group,
    takes: AcceptedInput,
    /// The arguments of a curl that works: URL and KEY stand for those at hand.
    example: &'static str,
}

/// A row of the table.
#[derive(Debug)]
struct Row {
    pattern: &'static str,
    access: Access,
    vary: Vary,
    operations: &'static [Operation],
}

macro_rules! routes {
    ($($route:ident $path:literal $pattern:literal $access:ident $vary:ident
        [$($method:ident $group:ident $takes:ident $example:literal),*])*) => {
        /// A path of the API.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Route {
            $(#[doc = concat!("`", $pattern, "`")] $route,)*
        }

        const TABLE: &[Row] = &[$(Row {
            pattern: $pattern,
            access: Access::$access,
            vary: Vary::$vary,
            operations: &[$(Operation {
                method: Method::$method,
                group: Group::$group,
                takes: $takes,
                example: $example,
            },)*],
        },)*];

        impl Route {
            /// All of them, in the order of the table.
            pub(crate) const ALL: &[Self] = &[$(Self::$route,)*];

            /// The route of a raw path.
            #[inline]
            pub(crate) fn of(path: &[u8]) -> Option<Self> {
                match path {
                    $($path => Some(Self::$route),)*
                    _ if path.starts_with(KEY_PREFIX) => Some(Self::Key),
                    _ => Self::of_encoded(path),
                }
            }

            /// The route of a path in which letters are percent-encoded, which says the same (RFC
            /// 3986, section 2.3).
            #[cold]
            fn of_encoded(path: &[u8]) -> Option<Self> {
                let mut decoded = [0; PATH_MAX_BYTES];
                let (mut len, mut rest) = (0, path);
                while let Some((byte, behind)) = first_byte(rest) {
                    *decoded.get_mut(len)? = byte;
                    (len, rest) = (len + 1, behind);
                    // The rest is the key, which the endpoint decodes.
                    if decoded[..len] == *KEY_PREFIX {
                        return Some(Self::Key);
                    }
                }
                match &decoded[..len] {
                    $($path => Some(Self::$route),)*
                    path => partition_digits(path).map(|_| Self::Partition),
                }
            }
        }
    };
}

routes! {
    // Route, raw path, pattern, access, `Vary`; for each method the group of its durations, what it
    // takes, and an example. A request with another method is counted in the group of the last one.
    Set b"/set" "/set" Data Nothing
        [Post Write SET "URL/set -d 'key=k&value=v'"]
    Get b"/get" "/get" Data Accept
        [Get Read GET "'URL/get?key=k'",
         Post Read GET "URL/get -d key=k"]
    Delete b"/delete" "/delete" Data Nothing
        [Delete Write DELETE "-X DELETE 'URL/delete?key=k'",
         Post Write DELETE "URL/delete -d key=k"]
    Key b"/kv/" "/kv/{key}" Data Nothing
        [Get Read GET_KEY "URL/kv/KEY",
         Put Write PUT_KEY "-X PUT URL/kv/KEY -d v",
         Delete Write DELETE_KEY "-X DELETE URL/kv/KEY"]
    Batch b"/batch" "/batch" Data Nothing
        [Post Write BATCH "URL/batch -d '{\"ops\":[{\"op\":\"get\",\"key\":\"k\"}]}'"]
    Scan b"/scan" "/scan" Data Nothing
        [Get Stream SCAN "'URL/scan?prefix=user/&limit=10'"]
    Watch b"/watch" "/watch" Data Accept
        [Get Stream WATCH "'URL/watch?prefix=user/&timeout=5'"]
    Health b"/health" "/health" Public Nothing
        [Get Health HEALTH "URL/health"]
    Live b"/livez" "/livez" Public Nothing
        [Get Health HEALTH "URL/livez"]
    Ready b"/readyz" "/readyz" Public Nothing
        [Get Health READY "URL/readyz"]
    Root b"/" "/" Linked Accept
        [Get Admin ROOT "URL/"]
    Status b"/status" "/status" Monitoring Nothing
        [Get Admin PARTITION "URL/status"]
    Snapshot b"/snapshot" "/snapshot" Data Nothing
        [Get Stream PARTITION "URL/snapshot -o backup.dbn"]
    Digest b"/digest" "/digest" Data Nothing
        [Get Stream DIGEST "URL/digest"]
    Metrics b"/metrics" "/metrics" Monitoring Nothing
        [Get Stream NODE "URL/metrics"]
    Freeze b"/admin/freeze" "/admin/freeze" Data Nothing
        [Post Admin PARTITION "-X POST URL/admin/freeze"]
    Compact b"/admin/compact" "/admin/compact" Data Nothing
        [Post Admin PARTITION "-X POST URL/admin/compact"]
    Checkpoint b"/admin/checkpoint" "/admin/checkpoint" Data Nothing
        [Post Admin PARTITION "-X POST URL/admin/checkpoint"]
    // The body names the partition.
    Assign b"/partition/assign" "/partition/assign" Data Nothing
        [Post Admin NODE "URL/partition/assign -d '{\"id\":1,\"role\":\"leader\"}'"]
    Handover b"/partition/handover" "/partition/handover" Data Nothing
        [Post Admin NODE "URL/partition/handover -d '{\"id\":0}'"]
    Recover b"/partition/recover" "/partition/recover" Data Nothing
        [Post Admin NODE "URL/partition/recover \
                          -d '{\"id\":0,\"node\":\"n2\",\"acceptDataLoss\":true}'"]
    Move b"/partition/move" "/partition/move" Data Nothing
        [Post Admin NODE "URL/partition/move -d '{\"id\":3,\"from\":\"n1\",\"to\":\"n4\"}'",
         Delete Admin NODE "-X DELETE URL/partition/move -d '{\"id\":3,\"to\":\"n4\"}'"]
    Partition b"/partition/{id}" "/partition/{id}" Data Nothing
        [Delete Admin REMOVAL "-X DELETE URL/partition/1"]
    Cluster b"/cluster" "/cluster" Monitoring Nothing
        [Get Admin NODE "URL/cluster"]
    ClusterMap b"/cluster/map" "/cluster/map" Data Nothing
        [Get Admin MAP "'URL/cluster/map?since=7&timeout=5'"]
    Init b"/cluster/init" "/cluster/init" Data Nothing
        [Post Admin NODE "URL/cluster/init -d '{\"partitions\":16,\"replicas\":3}'"]
    Rebalance b"/cluster/rebalance" "/cluster/rebalance" Data Nothing
        [Post Admin NODE "URL/cluster/rebalance -d '{\"dryRun\":true}'"]
    Drain b"/node/drain" "/node/drain" Data Nothing
        [Post Admin NODE "-X POST URL/node/drain"]
    Leader b"/leader" "/leader" Public Nothing
        [Get Health READY "URL/leader"]
    Replica b"/replica" "/replica" Public Nothing
        [Get Health READY "URL/replica"]
    OpenApi b"/openapi.json" "/openapi.json" Data Nothing
        [Get Admin NODE "URL/openapi.json"]
}

/// Fields that change what a request means.
pub(crate) const MEANING: FieldSet = FieldSet::of(&[
    Field::ContentEncoding,
    Field::ContentRange,
    IfMatch,
    IfNoneMatch,
    Field::IfUnmodifiedSince,
    LastEventId,
    PartitionId,
    Ttl,
    MinAcks,
    Field::MethodOverride,
    Field::HttpMethod,
    Field::OtherMethod,
    Field::MinAck,
    Field::MinAcksJoined,
    Field::Partition,
    Field::PartitionIdJoined,
]);

/// Fields that identify the sender: they matter to all requests.
pub(crate) const SENDER: FieldSet = FieldSet::of(&[Field::Origin, Field::SecFetchSite]);

/// What requests to a route take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AcceptedInput {
    /// Fields that the endpoint reads.
    pub(crate) fields: FieldSet,
    /// Fields of [`MEANING`] that are ignored.
    pub(crate) tolerated: FieldSet,
    pub(crate) params: ParamSet,
}

const fn takes(fields: &[Field], params: &[Param]) -> AcceptedInput {
    AcceptedInput {
        fields: FieldSet::of(fields)
            .and(SENDER)
            .and(FieldSet::of(&[Field::Authorization])),
        tolerated: FieldSet::EMPTY,
        params: ParamSet::of(params),
    }
}

const fn takes_without_token(fields: &[Field], params: &[Param]) -> AcceptedInput {
    AcceptedInput {
        fields: FieldSet::of(fields).and(SENDER),
        tolerated: MEANING,
        params: ParamSet::of(params),
    }
}

const NODE: AcceptedInput = takes(&[], &[]);
const PARTITION: AcceptedInput = takes(&[PartitionId], &[Param::Partition]);
const SET: AcceptedInput = takes(
    &[ContentType, IfMatch, IfNoneMatch, Ttl, MinAcks, PartitionId],
    &[Param::Key, Param::Ttl, Param::Partition],
);
const GET: AcceptedInput = takes(
    &[ContentType, IfMatch, IfNoneMatch, PartitionId],
    &[
        Param::Key,
        Param::MinVersion,
        Param::Consistency,
        Param::Partition,
    ],
);
const DELETE: AcceptedInput = takes(
    &[ContentType, IfMatch, IfNoneMatch, MinAcks, PartitionId],
    &[Param::Key, Param::Partition],
);
const GET_KEY: AcceptedInput = takes(
    &[IfMatch, IfNoneMatch, PartitionId],
    &[Param::MinVersion, Param::Consistency, Param::Partition],
);
const PUT_KEY: AcceptedInput = takes(
    &[IfMatch, IfNoneMatch, Ttl, MinAcks, PartitionId],
    &[Param::Ttl, Param::Partition],
);
const DELETE_KEY: AcceptedInput = takes(
    &[IfMatch, IfNoneMatch, MinAcks, PartitionId],
    &[Param::Partition],
);
const BATCH: AcceptedInput = takes(
    &[MinAcks, PartitionId],
    &[Param::MinVersion, Param::Consistency, Param::Partition],
);
const SCAN: AcceptedInput = takes(
    &[PartitionId],
    &[
        Param::Prefix,
        Param::PrefixEncoding,
        Param::Start,
        Param::StartEncoding,
        Param::End,
        Param::EndEncoding,
        Param::After,
        Param::AfterEncoding,
        Param::Limit,
        Param::Values,
        Param::Consistent,
        Param::At,
        Param::MinVersion,
        Param::Consistency,
        Param::Partition,
    ],
);
const WATCH: AcceptedInput = takes(
    &[LastEventId, PartitionId],
    &[
        Param::Prefix,
        Param::PrefixEncoding,
        Param::Since,
        Param::Timeout,
        Param::Partition,
    ],
);
const MAP: AcceptedInput = takes(&[], &[Param::Since, Param::Timeout]);
const DIGEST: AcceptedInput = takes(&[PartitionId], &[Param::At, Param::Partition]);
const REMOVAL: AcceptedInput = takes(&[], &[Param::Epoch, Param::Discard]);
const HEALTH: AcceptedInput = takes_without_token(&[], &[Param::Partition, Param::MaxLag]);
const ROOT: AcceptedInput = takes_without_token(&[], &[]);
const READY: AcceptedInput =
    takes_without_token(&[PartitionId], &[Param::Partition, Param::MaxLag]);
/// The path before a key.
const KEY_PREFIX: &[u8] = b"/kv/";

/// The path before the number of a partition.
const PARTITION_PREFIX: &[u8] = b"/partition/";

/// The number of a partition in a decoded path.
fn partition_digits(path: &[u8]) -> Option<&[u8]> {
    let digits = path.strip_prefix(PARTITION_PREFIX)?;
    (!digits.is_empty() && digits.iter().all(u8::is_ascii_digit)).then_some(digits)
}

/// Longest path, but for those with a key.
const PATH_MAX_BYTES: usize = 32;

/// The first byte of a path and the rest. A byte is decoded where encoding it changes nothing (RFC
/// 3986, section 2.3).
fn first_byte(path: &[u8]) -> Option<(u8, &[u8])> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    if let [b'%', high, low, behind @ ..] = path
        && let (Some(high), Some(low)) = (digit(*high), digit(*low))
    {
        let byte = high << 4 | low;
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            return Some((byte, behind));
        }
    }
    path.split_first().map(|(byte, behind)| (*byte, behind))
}

impl Route {
    /// The part of a raw `/kv/{key}` path that is the key.
    #[inline]
    pub(crate) fn raw_key(path: &[u8]) -> &[u8] {
        path.strip_prefix(KEY_PREFIX)
            .unwrap_or_else(|| Self::raw_key_of_encoded(path))
    }

    #[cold]
    fn raw_key_of_encoded(path: &[u8]) -> &[u8] {
        let mut rest = path;
        for _ in KEY_PREFIX {
            rest = first_byte(rest).map_or(&[], |(_, behind)| behind);
        }
        rest
    }

    /// The partition that a raw `/partition/{id}` path names; none if its number is too large.
    pub(crate) fn partition_in(path: &[u8]) -> Option<u32> {
        let mut decoded = [0; PATH_MAX_BYTES];
        let (mut len, mut rest) = (0, path);
        while let Some((byte, behind)) = first_byte(rest) {
            *decoded.get_mut(len)? = byte;
            (len, rest) = (len + 1, behind);
        }
        std::str::from_utf8(partition_digits(&decoded[..len])?)
            .ok()?
            .parse()
            .ok()
    }

    #[inline]
    fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    #[inline]
    fn operation(self, method: Method) -> Option<&'static Operation> {
        let method = if method == Method::Head {
            Method::Get
        } else {
            method
        };
        let mut operations = self.row().operations.iter();
        operations.find(|operation| operation.method == method)
    }

    /// The path in metrics, logs and messages.
    pub(crate) fn pattern(self) -> &'static str {
        self.row().pattern
    }

    /// Whether requests are about one key.
    #[inline]
    pub(crate) fn is_about_key(self) -> bool {
        matches!(self, Self::Set | Self::Get | Self::Delete | Self::Key)
    }

    /// Whether it is answered without the token and under any Host, for load balancers.
    #[inline]
    pub(crate) fn is_public(self) -> bool {
        matches!(self.row().access, Access::Linked | Access::Public)
    }

    /// Whether pages of other sites may lead there.
    #[inline]
    pub(crate) fn is_linked(self) -> bool {
        self.row().access == Access::Linked
    }

    /// Whether it is answered above the limit on connections, too, since it tells the node's state.
    pub(crate) fn is_about_node(self) -> bool {
        self.row().access != Access::Data
    }

    /// Which request field selects the form of an answer.
    #[inline]
    pub(crate) fn vary(self) -> Vary {
        self.row().vary
    }

    /// The group in which durations of requests with this method are counted.
    #[inline]
    pub(crate) fn group(self, method: Method) -> Group {
        self.operation_or_last(method).group
    }

    /// What requests with this method take; none if the path does not take the method.
    #[inline]
    pub(crate) fn takes(self, method: Method) -> Option<&'static AcceptedInput> {
        self.operation(method).map(|operation| &operation.takes)
    }

    /// Fields that matter to a request with this method, whether or not the path takes it.
    pub(crate) fn fields(self, method: Method) -> FieldSet {
        self.operation_or_last(method).takes.fields
    }

    #[inline]
    fn operation_or_last(self, method: Method) -> &'static Operation {
        let operations = self.row().operations;
        let last = operations.len() - 1;
        self.operation(method).unwrap_or(&operations[last])
    }

    /// The arguments of a curl that works: with this method, or with one that is meant where the
    /// path does not take it.
    pub(crate) fn example(self, method: Method) -> &'static str {
        let instead: &[Method] = match method {
            Method::Get | Method::Head => &[Method::Get],
            Method::Delete => &[Method::Delete],
            _ => &[Method::Put, Method::Post],
        };
        let operations = self.row().operations;
        let meant = instead.iter().find_map(|method| self.operation(*method));
        self.operation(method)
            .or(meant)
            .map_or(operations[0].example, |operation| operation.example)
    }

    /// The methods that it takes, as `Allow` lists them.
    pub(crate) fn allowed_methods(self) -> String {
        let mut names = String::new();
        for operation in self.row().operations {
            names += operation.method.name();
            names += match operation.method {
                Method::Get => ", HEAD, ",
                _ => ", ",
            };
        }
        names + "OPTIONS"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allow_lists_what_is_allowed() {
        let methods = [
            (Method::Get, "GET"),
            (Method::Head, "HEAD"),
            (Method::Post, "POST"),
            (Method::Put, "PUT"),
            (Method::Delete, "DELETE"),
            (Method::Patch, "PATCH"),
            (Method::Trace, "TRACE"),
        ];
        for route in Route::ALL {
            let allowed = route.allowed_methods();
            let listed: Vec<&str> = allowed.split(", ").collect();
            for (method, name) in methods {
                assert_eq!(
                    route.takes(method).is_some(),
                    listed.contains(&name),
                    "{name} {route:?}"
                );
            }
        }
        assert_eq!(Route::of(b"/kv"), None);
        assert_eq!(Route::raw_key(b"/kv/a/b%2F"), b"a/b%2F");
    }

    /// Each path with each letter encoded, and with all of them; but a slash that is encoded
    /// separates nothing.
    #[test]
    fn encoded_letters_are_letters() {
        let encoded = |byte: u8| format!("%{byte:02X}").into_bytes();
        for route in Route::ALL {
            let path = route.pattern().replace("{key}", "").replace("{id}", "7");
            let path = path.into_bytes();
            for at in 0..path.len() {
                let one = [&path[..at], &encoded(path[at]), &path[at + 1..]].concat();
                let expected = (path[at] != b'/').then_some(*route);
                assert_eq!(Route::of(&one), expected, "{}", one.escape_ascii());
                let lower = one.to_ascii_lowercase();
                assert_eq!(Route::of(&lower), expected, "{}", lower.escape_ascii());
            }
            let letters = path.iter().flat_map(|&byte| match byte {
                b'/' => vec![byte],
                _ => encoded(byte),
            });
            assert_eq!(Route::of(&letters.collect::<Vec<u8>>()), Some(*route));
        }
        for other in [
            &b"/%"[..],
            b"/%6",
            b"/%6g",
            b"/healt%68h",
            b"/health%00",
            b"/health%2F",
            b"/%25%36%38ealth",
            b"/partition/",
            b"/partition",
            b"/partition/7/",
            b"/partition/-7",
            b"/partition/assigned",
            b"/partition%2F7",
            b"/a-path-that-is-longer-than-any-there-is",
        ] {
            assert_eq!(Route::of(other), None, "{}", other.escape_ascii());
        }
        for (path, key) in [
            (&b"/%6Bv/a%2Fb"[..], &b"a%2Fb"[..]),
            (b"/%6b%76/%6b", b"%6b"),
            (b"/k%76/", b""),
            (b"/k%76//kv/", b"/kv/"),
        ] {
            assert_eq!(Route::of(path), Some(Route::Key));
            assert_eq!(Route::raw_key(path), key, "{}", path.escape_ascii());
        }
    }

    #[test]
    fn partitions_are_numbers_in_the_path() {
        for (path, number) in [
            (&b"/partition/7"[..], Some(7)),
            (b"/%70artition/%31%32", Some(12)),
            (b"/partition/4294967295", Some(u32::MAX)),
            (b"/partition/4294967296", None),
            (b"/partition/{id}", None),
        ] {
            assert_eq!(Route::of(path), Some(Route::Partition));
            assert_eq!(Route::partition_in(path), number, "{}", path.escape_ascii());
        }
    }

    #[test]
    fn patterns_are_those_of_the_table() {
        for route in Route::ALL {
            let path = route.pattern().replace("{key}", "a").replace("{id}", "7");
            assert_eq!(Route::of(path.as_bytes()), Some(*route), "{path}");
        }
    }
}
