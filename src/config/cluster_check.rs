//! Which options go with `--etcd`, and which do not.

use super::given::{ConfigError, GivenOptions, wrong_value};
use super::options::Config;

/// Options that only mean something in a cluster.
const CLUSTER_OPTIONS: [&str; 7] = [
    "node",
    "cluster",
    "zone",
    "lease-ms",
    "min-in-sync",
    "etcd-user-file",
    "cluster-init",
];

impl Config {
    /// Sets what depends on whether there is a cluster: roles come from its configuration, and a
    /// write waits for longer than a replica that is gone is waited for.
    pub(super) fn settle_for_cluster(&mut self, given: &GivenOptions) {
        if self.etcd.is_none() {
            return;
        }
        self.await_assignment = true;
        if given.texts("ack-timeout-ms").is_empty() {
            self.ack_timeout_ms = self.ack_timeout_ms.max(self.least_ack_timeout_ms());
        }
    }

    fn least_ack_timeout_ms(&self) -> u64 {
        self.lease_ms / 2 * 3
    }

    /// Refuses options that do not go with etcd, or not without it.
    pub(super) fn check_cluster(&self, given: &GivenOptions) -> Result<(), ConfigError> {
        let refuse = |flag: &str, problem: &str| match given.texts(flag).last() {
            Some((name, text)) => Err(wrong_value(name, text, problem)),
            None => Ok(()),
        };
        if self.etcd.is_none() {
            let problem = "this is about a cluster: give --etcd URL, too, or leave it out";
            return CLUSTER_OPTIONS
                .into_iter()
                .try_for_each(|flag| refuse(flag, problem));
        }
        if self.node.is_none() {
            let problem = "give --node NAME, too: the name of this node in the cluster, the same \
                           after each restart";
            refuse("etcd", problem)?;
        }
        let problem = "with --etcd the cluster's configuration says which node leads: leave it out";
        refuse("replica-of", problem)?;
        refuse("await-assignment", problem)?;
        if self.replication_listen.is_none() {
            let problem = "other nodes of the cluster connect there: leave it out, or give an \
                           address";
            refuse("replication-listen", problem)?;
        }
        if self.listen.ip().is_unspecified() && self.advertise.is_none() {
            return Err(ConfigError(format!(
                "--listen {}: the other nodes need an address of this one: give --advertise URL",
                self.listen
            )));
        }
        let least_ms = self.least_ack_timeout_ms();
        if self.ack_timeout_ms < least_ms {
            let problem = format!(
                "with --etcd give at least {least_ms}, one and a half times --lease-ms: a write \
                 waits until a replica that has failed is taken out"
            );
            refuse("ack-timeout-ms", &problem)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Invocation, parse};
    use super::*;

    fn config(arguments: &str) -> Result<Config, String> {
        let arguments = arguments.split_whitespace().map(Into::into);
        match parse(arguments, |_| None) {
            Ok(Invocation::Run(config)) => Ok(*config),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_member_needs_few_options() {
        let config = config("--etcd http://h:2379,http://i:2379 --node n1").expect("valid");
        let members = ["h:2379".to_owned(), "i:2379".to_owned()];
        assert_eq!(config.etcd.as_deref(), Some(&members[..]));
        assert_eq!(
            (&*config.cluster, config.node.as_deref()),
            ("default", Some("n1"))
        );
        assert_eq!((config.lease_ms, config.min_in_sync), (2_000, 1));
        assert_eq!(config.ack_timeout_ms, 3_000);
        assert_eq!((config.etcd_user, config.cluster_init), (None, None));
    }

    #[test]
    fn the_time_for_acks_follows_the_lease() {
        let ack_timeout_ms = |more: &str| {
            let config = config(&format!("--etcd http://h:1 --node n {more}"));
            config.map(|config| config.ack_timeout_ms)
        };
        assert_eq!(ack_timeout_ms("--lease-ms 500"), Ok(1_000));
        assert_eq!(ack_timeout_ms("--lease-ms 60000"), Ok(90_000));
        assert_eq!(
            ack_timeout_ms("--lease-ms 600 --ack-timeout-ms 900"),
            Ok(900)
        );
        let error = ack_timeout_ms("--ack-timeout-ms 2999").expect_err("too short");
        assert!(error.contains("give at least 3000"), "{error}");
        assert_eq!(config("").expect("valid").ack_timeout_ms, 1_000);
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for (arguments, part) in [
            ("--etcd http://h:1", "--etcd http://h:1: give --node NAME"),
            ("--etcd https://h:1 --node n", "packaging/etcd-tls.cfg"),
            ("--node n", "--node n: this is about a cluster: give --etcd"),
            ("--cluster-init replicas=1", "give --etcd"),
            ("--min-in-sync 2", "give --etcd"),
            ("ETCD --replica-of h:1", "--replica-of h:1: with --etcd"),
            ("ETCD --await-assignment", "--await-assignment"),
            ("ETCD --replication-listen off", "other nodes"),
            ("ETCD --listen 0.0.0.0:1 --allow-open", "--advertise URL"),
            ("ETCD --listen [::]:1 --allow-open", "--advertise URL"),
            ("ETCD --lease-ms 499", "from 500 to 60000"),
            ("ETCD --lease-ms 60001", "from 500 to 60000"),
            ("ETCD --min-in-sync 0", "from 1 to 32"),
            ("ETCD --node N", "a-z, 0-9, dots and dashes"),
            ("ETCD --cluster a/b", "a-z, 0-9, dots and dashes"),
            ("ETCD --zone eu_1", "a-z, 0-9, dots and dashes"),
            ("ETCD --cluster-init partitions=0", "partitions=1…1024"),
            ("ETCD --cluster-init partitions=1025", "partitions=1…1024"),
            ("ETCD --cluster-init 16", "partitions=1…1024"),
            ("ETCD --cluster-init copies=3", "replicas=1…32"),
            ("ETCD --cluster-init when-all-lost=go", "wait or start"),
            (
                "ETCD --cluster-init partitions=1024,replicas=5",
                "at most 4096",
            ),
            ("ETCD --etcd-user-file /nowhere/user", "cannot read it"),
        ] {
            let arguments = arguments.replace("ETCD", "--etcd http://h:1 --node n");
            let error = config(&arguments).expect_err(&arguments);
            assert!(error.contains(part), "{arguments}: {error}");
        }
        let long = "n".repeat(64);
        assert!(config(&format!("--etcd http://h:1 --node {long}")).is_err());
        let more = "--listen 0.0.0.0:1 --allow-open --advertise db-0:1";
        assert!(config(&format!("--etcd http://h:1 --node n {more}")).is_ok());
    }
}
