//! The names of all query parameters, and sets of them.

macro_rules! params {
    ($($param:ident $name:literal)*) => {
        /// A query parameter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Param {
            $(#[doc = concat!("`", $name, "`")] $param,)*
        }

        impl Param {
            /// All of them.
            pub(crate) const ALL: &[Self] = &[$(Self::$param,)*];

            /// Its name.
            #[inline]
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$param => $name,)*
                }
            }

            /// The parameter with a name.
            #[inline]
            pub(crate) fn of(name: &[u8]) -> Option<Self> {
                $(if name == $name.as_bytes() {
                    return Some(Self::$param);
                })*
                None
            }
        }
    };
}

params! {
    Key "key"
    Partition "partition"
    MinVersion "min_version"
    Ttl "ttl"
    Prefix "prefix"
    PrefixEncoding "prefix_encoding"
    Start "start"
    StartEncoding "start_encoding"
    End "end"
    EndEncoding "end_encoding"
    After "after"
    AfterEncoding "after_encoding"
    Limit "limit"
    Values "values"
    Consistent "consistent"
    Consistency "consistency"
    At "at"
    Since "since"
    Timeout "timeout"
    MaxLag "max_lag"
    Epoch "epoch"
    Discard "discard"
}

/// A set of parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ParamSet(u32);

const _: () = assert!(Param::ALL.len() < 32);

impl ParamSet {
    pub(crate) const EMPTY: Self = Self(0);
    pub(crate) const ALL: Self = Self(u32::MAX);

    /// These.
    pub(crate) const fn of(params: &[Param]) -> Self {
        let (mut set, mut at) = (0, 0);
        while at < params.len() {
            set |= 1 << params[at] as u32;
            at += 1;
        }
        Self(set)
    }

    #[inline]
    pub(crate) const fn has(self, param: Param) -> bool {
        self.0 & (1 << param as u32) != 0
    }

    /// False if it was there.
    #[inline]
    pub(crate) fn insert(&mut self, param: Param) -> bool {
        let before = self.0;
        self.0 |= 1 << param as u32;
        self.0 != before
    }

    /// One of them after the other, in the order of the table.
    pub(crate) fn iter(self) -> impl Iterator<Item = Param> {
        Param::ALL
            .iter()
            .copied()
            .filter(move |param| self.has(*param))
    }
}
