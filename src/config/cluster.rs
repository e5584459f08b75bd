//! Values of options of a node in a cluster that etcd configures.
//!
//! Not here: which options go together (`cluster_check.rs`), the members of etcd (`etcd_url.rs`).

use std::fmt;

use super::values::read_file;

/// Most partitions of a cluster.
pub const PARTITION_MAX: u32 = 1024;
/// Most copies of a partition.
pub const REPLICA_MAX: u32 = 32;

/// A user of etcd. The password is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdUser {
    /// The name.
    pub name: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for EtcdUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EtcdUser({:?}, …)", self.name)
    }
}

impl EtcdUser {
    /// The user in a file that holds `name:password`.
    pub(super) fn read(path: &str) -> Result<Self, String> {
        let content = String::from_utf8(read_file(path)?);
        let content = content.map_err(|_| "it is not UTF-8".to_owned())?;
        Self::parse(content.trim_end_matches(['\r', '\n']))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let parts = text.split_once(':');
        let is_usable = |(name, password): &(&str, &str)| {
            !name.is_empty() && !password.is_empty() && !text.contains(char::is_control)
        };
        let (name, password) = parts
            .filter(is_usable)
            .ok_or("it does not hold one line, name:password")?;
        Ok(Self {
            name: name.to_owned(),
            password: password.to_owned(),
        })
    }
}

/// How to make a cluster, where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterInit {
    /// Partitions of the cluster.
    pub partitions: u32,
    /// Copies of each partition.
    pub replicas: u32,
    /// What it does once all copies in sync are gone for good.
    pub when_all_lost: WhenAllLost,
}

impl ClusterInit {
    /// Whether there are not too many copies.
    pub fn check_copies(&self) -> Result<(), String> {
        let (partitions, replicas) = (self.partitions, self.replicas);
        match partitions.saturating_mul(replicas) {
            ..=COPIES_MAX => Ok(()),
            count => Err(format!(
                "{partitions} partitions with {replicas} copies each are {count} copies, and a \
                 cluster has at most {COPIES_MAX}: take fewer of either"
            )),
        }
    }

    /// As in `partitions=16,replicas=3,when-all-lost=wait`; each may be left out.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let problem = || {
            format!(
                "give partitions=1…{PARTITION_MAX}, replicas=1…{REPLICA_MAX} and \
                 when-all-lost=wait or start, such as partitions=16,replicas=3"
            )
        };
        let mut found = Self {
            partitions: 16,
            replicas: 3,
            when_all_lost: WhenAllLost::Wait,
        };
        for part in text.split(',') {
            let (name, number) = part.split_once('=').ok_or_else(problem)?;
            let (field, most) = match name.trim() {
                "partitions" => (&mut found.partitions, PARTITION_MAX),
                "replicas" => (&mut found.replicas, REPLICA_MAX),
                "when-all-lost" => {
                    found.when_all_lost = WhenAllLost::parse(number.trim()).ok_or_else(problem)?;
                    continue;
                }
                _ => return Err(problem()),
            };
            *field = number.trim().parse().map_err(|_| problem())?;
            if !(1..=most).contains(field) {
                return Err(problem());
            }
        }
        found.check_copies()?;
        Ok(found)
    }
}

/// Copies of all partitions together: what tells of them in etcd has to fit into one answer.
pub const COPIES_MAX: u32 = 4_096;

/// What a cluster does with a partition once all its copies in sync are gone for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenAllLost {
    /// It waits for an operator.
    Wait,
    /// It goes on with what other copies hold.
    Start,
}

impl WhenAllLost {
    /// The choice with this name.
    pub fn parse(name: &str) -> Option<Self> {
        let all = [Self::Wait, Self::Start];
        all.into_iter().find(|choice| choice.name() == name)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Start => "start",
        }
    }
}

/// The name of a node, a cluster or a zone.
pub(super) fn parse_plain_name(text: &str) -> Result<String, String> {
    const NAME_MAX_BYTES: usize = 63;
    let is_plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
    if (1..=NAME_MAX_BYTES).contains(&text.len()) && text.bytes().all(is_plain) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "a name has 1 to {NAME_MAX_BYTES} of a-z, 0-9, dots and dashes"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_are_described_in_a_word() {
        for (text, partitions, replicas, when_all_lost) in [
            ("partitions=64,replicas=2", 64, 2, WhenAllLost::Wait),
            ("replicas=1,when-all-lost=wait", 16, 1, WhenAllLost::Wait),
            ("when-all-lost=start,partitions=1", 1, 3, WhenAllLost::Start),
        ] {
            let expected = ClusterInit {
                partitions,
                replicas,
                when_all_lost,
            };
            assert_eq!(ClusterInit::parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn users_are_read_and_not_printed() {
        let user = EtcdUser::parse("dbn:a:b c").expect("valid");
        assert_eq!((&*user.name, &*user.password), ("dbn", "a:b c"));
        assert_eq!(format!("{user:?}"), "EtcdUser(\"dbn\", …)");
        for wrong in ["", "dbn", "dbn:", ":secret", "dbn:a\nb:c"] {
            assert!(EtcdUser::parse(wrong).is_err(), "{wrong}");
        }
    }
}
