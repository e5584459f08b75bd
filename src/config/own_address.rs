//! Whether an address is that of this node, as far as that can be known for certain without asking
//! the network.
//!
//! Not here: addresses that turn out to be this node's once it is dialed
//! (`partition/replicas.rs`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::options::Config;

impl Config {
    /// The HTTP address of this node for a person on this machine: what it advertises, or where it
    /// listens.
    pub fn own_url(&self) -> String {
        if let Some(advertised) = &self.advertise {
            return advertised.clone();
        }
        let mut address = self.listen;
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        format!("http://{address}")
    }

    /// Whether the address of a node, as [`parse_peer`](super::parse_peer) gives it, is where this
    /// node serves HTTP: what it advertises, where it listens, or a loopback address with the port
    /// of a listener that answers there. False where that is not certain.
    pub fn is_own_address(&self, peer: &str) -> bool {
        let is_same = |advertised: &String| advertised.eq_ignore_ascii_case(peer);
        if self.advertise.as_ref().is_some_and(is_same) {
            return true;
        }
        let authority = peer.strip_prefix("http://").unwrap_or(peer);
        let Some((host, port)) = authority.rsplit_once(':') else {
            return false;
        };
        // The system chooses a port in place of 0.
        if port.parse() != Ok(self.listen.port()) || self.listen.port() == 0 {
            return false;
        }
        let listen = self.listen.ip().to_canonical();
        if host.eq_ignore_ascii_case("localhost") {
            return listen.is_loopback() || listen.is_unspecified();
        }
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let Ok(ip) = host.parse::<IpAddr>().map(|ip| ip.to_canonical()) else {
            return false;
        };
        // A listener on all addresses has those of its own kind; whether one on `::` has those of
        // IPv4 is up to the system.
        let is_everywhere = listen.is_unspecified() && listen.is_ipv4() == ip.is_ipv4();
        ip == listen || (is_everywhere && (ip.is_loopback() || ip.is_unspecified()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Invocation, parse};

    #[test]
    fn the_url_for_a_person_leads_to_the_node() {
        for (arguments, expected) in [
            (&["-p", "21001"][..], "http://127.0.0.1:21001"),
            (
                &["--listen", "0.0.0.0:21001", "--allow-open"],
                "http://127.0.0.1:21001",
            ),
            (
                &["--listen", "[::]:21001", "--allow-open"],
                "http://[::1]:21001",
            ),
            (
                &["--listen", "10.0.0.7:21001", "--allow-open"],
                "http://10.0.0.7:21001",
            ),
            (&["-p", "21001", "--advertise", "db-0:80"], "http://db-0:80"),
        ] {
            match parse(arguments.iter().map(Into::into), |_| None) {
                Ok(Invocation::Run(config)) => assert_eq!(config.own_url(), expected),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_is_known_for_certain() {
        for (listen, advertise, own, others) in [
            (
                "127.0.0.1:9001",
                "http://db-0.example:80",
                "127.0.0.1:9001 localhost:9001 LocalHost:9001 [::ffff:127.0.0.1]:9001 \
                 DB-0.example:80",
                "127.0.0.1:9002 127.0.0.2:9001 10.0.0.7:9001 db-0.example:9001 db-0:80 [::1]:9001",
            ),
            (
                "0.0.0.0:9001",
                "",
                "127.0.0.1:9001 127.8.9.1:9001 localhost:9001 0.0.0.0:9001",
                "[::1]:9001 10.0.0.7:9001 db-0:9001 127.0.0.1:90",
            ),
            (
                "[::]:9001",
                "10.0.0.7:9001",
                "[::1]:9001 [::]:9001 localhost:9001 10.0.0.7:9001",
                "127.0.0.1:9001 [fe80::1]:9001 [fe80::1%1]:9001 10.0.0.8:9001",
            ),
            (
                "10.0.0.7:9001",
                "",
                "10.0.0.7:9001",
                "localhost:9001 127.0.0.1:9001",
            ),
            // It is not known yet which port it will be.
            ("127.0.0.1:0", "", "", "127.0.0.1:9001 localhost:1"),
        ] {
            let mut arguments = vec![format!("--listen={listen}"), "--allow-open".to_owned()];
            arguments.extend((!advertise.is_empty()).then(|| format!("--advertise={advertise}")));
            let config = || match parse(arguments.iter().map(Into::into), |_| None) {
                Ok(Invocation::Run(config)) => config,
                other => panic!("{other:?}"),
            };
            let is_own = |peer: &str| {
                let peer = super::super::parse_peer(peer).expect("an address");
                config().is_own_address(&peer)
            };
            for peer in own.split_whitespace() {
                assert!(is_own(peer), "{peer} is {listen}");
                // The same on the command line.
                let arguments = arguments.iter().cloned();
                let arguments = arguments.chain([format!("--replica-of={peer}")]);
                let error = parse(arguments.map(Into::into), |_| None).expect_err("itself");
                assert!(error.to_string().contains("this node itself"), "{error}");
            }
            for peer in others.split_whitespace() {
                assert!(!is_own(peer), "{peer} is not for certain {listen}");
            }
        }
    }
}
