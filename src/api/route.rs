//! The table of paths: what each is, and which methods it takes.

use crate::http::{Method, Vary};

/// What `OPTIONS *` answers.
pub(super) const ALL_METHODS: &str = "GET, HEAD, POST, PUT, DELETE, OPTIONS";

macro_rules! routes {
    ($($route:ident $path:literal $pattern:literal)*) => {
        /// A path of the API.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Route {
            $(#[doc = concat!("`", $pattern, "`")] $route,)*
        }

        impl Route {
            /// All paths as they are told in metrics and to people, by [`number`](Self::number).
            pub(super) const PATTERNS: &[&str] = &[$($pattern,)*];

            /// All of them, in the same order.
            pub(super) const ALL: &[Self] = &[$(Self::$route,)*];

            /// The route of a raw path.
            #[inline]
            pub(super) fn of(path: &[u8]) -> Option<Self> {
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
                    // The rest is the key's.
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
    Set b"/set" "/set"
    Get b"/get" "/get"
    Delete b"/delete" "/delete"
    Key b"/kv/" "/kv/{key}"
    Batch b"/batch" "/batch"
    Scan b"/scan" "/scan"
    Watch b"/watch" "/watch"
    Health b"/health" "/health"
    Live b"/livez" "/livez"
    Ready b"/readyz" "/readyz"
    Status b"/status" "/status"
    Snapshot b"/snapshot" "/snapshot"
    Digest b"/digest" "/digest"
    Metrics b"/metrics" "/metrics"
    Freeze b"/admin/freeze" "/admin/freeze"
    Compact b"/admin/compact" "/admin/compact"
    Checkpoint b"/admin/checkpoint" "/admin/checkpoint"
    Assign b"/partition/assign" "/partition/assign"
    Partition b"/partition/{id}" "/partition/{id}"
    Leader b"/leader" "/leader"
    Replica b"/replica" "/replica"
    OpenApi b"/openapi.json" "/openapi.json"
}

/// Routes that share a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    KeyValue,
    Health,
    Snapshot,
    Digest,
    Metrics,
    OpenApi,
    Admin,
    Partition,
    Batch,
    Scan,
    Watch,
}

/// What a key in the path follows.
const KEY_PREFIX: &[u8] = b"/kv/";

/// What the number of a partition in the path follows.
const PARTITION_PREFIX: &[u8] = b"/partition/";

/// The number of a partition in a decoded path.
fn partition_digits(path: &[u8]) -> Option<&[u8]> {
    let digits = path.strip_prefix(PARTITION_PREFIX)?;
    (!digits.is_empty() && digits.iter().all(u8::is_ascii_digit)).then_some(digits)
}

/// No path is longer, keys aside.
const PATH_MAX_BYTES: usize = 32;

/// The first byte of a path, decoded if it is an encoded one that means the same as it does plain,
/// and what is behind it.
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
    /// Its place in the table.
    #[inline]
    pub(super) fn number(self) -> usize {
        self as usize
    }

    /// The part of a raw `/kv/{key}` path that is the key.
    #[inline]
    pub(super) fn raw_key(path: &[u8]) -> &[u8] {
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

    /// The partition that a raw `/partition/{id}` path names; none if what stands there is not the
    /// number of one.
    pub(super) fn partition_in(path: &[u8]) -> Option<u32> {
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

    pub(super) fn family(self) -> Family {
        match self {
            Self::Set | Self::Get | Self::Delete | Self::Key => Family::KeyValue,
            Self::Health | Self::Live | Self::Ready | Self::Leader | Self::Replica => {
                Family::Health
            }
            Self::Assign | Self::Partition => Family::Partition,
            Self::Batch => Family::Batch,
            Self::Scan => Family::Scan,
            Self::Watch => Family::Watch,
            Self::Snapshot => Family::Snapshot,
            Self::Digest => Family::Digest,
            Self::Metrics => Family::Metrics,
            Self::OpenApi => Family::OpenApi,
            Self::Status | Self::Freeze | Self::Compact | Self::Checkpoint => Family::Admin,
        }
    }

    /// Whether it is answered without the token and under any Host: what a load balancer asks.
    pub(super) fn is_public(self) -> bool {
        self.family() == Family::Health
    }

    /// Whether it tells how the node does: answered however many connections there are.
    pub(super) fn is_about_node(self) -> bool {
        matches!(self.family(), Family::Health | Family::Metrics) || self == Self::Status
    }

    /// What the form of its answers depends on.
    #[inline]
    pub(super) fn vary(self) -> Vary {
        match self {
            Self::Get | Self::Watch => Vary::Accept,
            _ => Vary::Nothing,
        }
    }

    /// Whether it takes a method.
    #[inline]
    pub(super) fn allows(self, method: Method) -> bool {
        match self {
            Self::Set
            | Self::Batch
            | Self::Freeze
            | Self::Compact
            | Self::Checkpoint
            | Self::Assign => method == Method::Post,
            Self::Get => matches!(method, Method::Get | Method::Head | Method::Post),
            Self::Delete => matches!(method, Method::Delete | Method::Post),
            Self::Partition => method == Method::Delete,
            Self::Key => matches!(
                method,
                Method::Get | Method::Head | Method::Put | Method::Delete
            ),
            Self::Health
            | Self::Live
            | Self::Ready
            | Self::Leader
            | Self::Replica
            | Self::Status
            | Self::Scan
            | Self::Watch
            | Self::Snapshot
            | Self::Digest
            | Self::Metrics
            | Self::OpenApi => {
                matches!(method, Method::Get | Method::Head)
            }
        }
    }

    /// The same as the value of `Allow`.
    pub(super) fn allowed_methods(self) -> &'static str {
        match self {
            Self::Set
            | Self::Batch
            | Self::Freeze
            | Self::Compact
            | Self::Checkpoint
            | Self::Assign => "POST, OPTIONS",
            Self::Get => "GET, HEAD, POST, OPTIONS",
            Self::Delete => "DELETE, POST, OPTIONS",
            Self::Partition => "DELETE, OPTIONS",
            Self::Key => "GET, HEAD, PUT, DELETE, OPTIONS",
            Self::Health
            | Self::Live
            | Self::Ready
            | Self::Leader
            | Self::Replica
            | Self::Status
            | Self::Scan
            | Self::Watch
            | Self::Snapshot
            | Self::Digest
            | Self::Metrics
            | Self::OpenApi => "GET, HEAD, OPTIONS",
        }
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
            let listed: Vec<&str> = route.allowed_methods().split(", ").collect();
            for (method, name) in methods {
                assert_eq!(
                    route.allows(method),
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
        for (route, pattern) in Route::ALL.iter().zip(Route::PATTERNS) {
            let path = pattern.replace("{key}", "").replace("{id}", "7");
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
        for (number, pattern) in Route::PATTERNS.iter().enumerate() {
            let path = pattern.replace("{key}", "a").replace("{id}", "7");
            assert_eq!(
                Route::of(path.as_bytes()).map(Route::number),
                Some(number),
                "{pattern}"
            );
        }
    }
}
