//! Which requests are let in: checks of Host, of the origin of web pages, and of the token.
//!
//! A node on a developer's machine listens on loopback without a token, and every web page in that
//! developer's browser can send requests there. Two things tell such requests from others, both set
//! by the browser and out of the page's reach: `Origin` and `Sec-Fetch-Site` say that another site
//! asks, and `Host` carries the name that the page used, which under DNS rebinding is the
//! attacker's. A proxy that copies the fields of a browser looks like that page: `--allowed-origin`
//! names the pages that are let in.

use std::net::IpAddr;

use crate::config::{Config, Origin, Token, host_name_in};
use crate::http::{Head, Refusal};

/// Decides on request heads.
#[derive(Debug)]
pub struct AccessPolicy {
    hosts: Hosts,
    origins: Vec<Origin>,
    token: Option<Token>,
    /// The last Host that was allowed: clients repeat it, so it is compared first.
    last_good_host: Vec<u8>,
}

#[derive(Debug)]
enum Hosts {
    Any,
    /// These names, `localhost` and IP literals are allowed. The name of an attacker's page is
    /// never an IP literal.
    Named(Vec<String>),
}

impl AccessPolicy {
    /// The policy of a configuration, on a machine with this name.
    pub fn new(config: &Config, machine_name: &str) -> Self {
        let is_private = config.listen.ip().is_loopback() && config.token.is_none();
        let hosts = if is_private || !config.allowed_hosts.is_empty() {
            let advertised = config.advertise.as_deref().and_then(host_name_in);
            // Clients use the machine's name with its domain or without.
            let short_name = machine_name.split('.').next().unwrap_or_default();
            let own = [machine_name, short_name].map(str::to_owned);
            let own = own.into_iter().filter(|name| !name.is_empty());
            let names = (config.allowed_hosts.iter().cloned())
                .chain(config.listen_name.clone())
                .chain(advertised)
                .chain(own);
            Hosts::Named(names.collect())
        } else {
            Hosts::Any
        };
        Self {
            hosts,
            origins: config.allowed_origins.clone(),
            token: config.token.clone(),
            last_good_host: Vec::new(),
        }
    }

    /// Refuses requests with an unknown Host or from a foreign web page. Public paths are answered
    /// under any Host: load balancers and kubelets send what they like there.
    #[inline]
    pub fn check_source(&mut self, head: &Head<'_>, is_public: bool) -> Result<(), Refusal> {
        if let Some(host) = head.host
            && !is_public
            && host != self.last_good_host
        {
            self.check_host(host)?;
            self.last_good_host.clear();
            self.last_good_host.extend_from_slice(host);
        }
        if head.origin.is_some() || head.sec_fetch_site.is_some() {
            self.check_web_page(head)?;
        }
        Ok(())
    }

    /// Whether requests under this Host are answered, those of public paths apart.
    pub(crate) fn knows_host(&self, host: &[u8]) -> bool {
        let Hosts::Named(names) = &self.hosts else {
            return true;
        };
        let name = without_port(host);
        let is_ip = |name: &str| {
            name.trim_start_matches('[')
                .trim_end_matches(']')
                .parse::<IpAddr>()
                .is_ok()
        };
        name.is_empty()
            || name.eq_ignore_ascii_case(b"localhost")
            || names
                .iter()
                .any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
            || std::str::from_utf8(name).is_ok_and(is_ip)
    }

    fn check_host(&self, host: &[u8]) -> Result<(), Refusal> {
        if self.knows_host(host) {
            return Ok(());
        }
        Err(Refusal::new(
            421,
            "host_not_allowed",
            "this node does not answer under that Host name: use its IP address, its host name or \
             localhost, or start it with --allowed-host NAME",
        ))
    }

    #[cold]
    fn check_web_page(&self, head: &Head<'_>) -> Result<(), Refusal> {
        let is_allowed = |origin: &Origin| match head.origin {
            Some(sent) => origin.matches(sent),
            // The answer says nothing about the page.
            None => origin.is_any(),
        };
        if self.origins.iter().any(is_allowed) {
            return Ok(());
        }
        let refusal = || {
            let message = "requests from web pages of other sites are not answered: call the node \
                           from a program or its own page, or start it with --allowed-origin \
                           ORIGIN";
            Err(Refusal::new(403, "foreign_origin", message))
        };
        if head.sec_fetch_site.is_some_and(|site| {
            site.eq_ignore_ascii_case(b"cross-site") || site.eq_ignore_ascii_case(b"same-site")
        }) {
            return refusal();
        }
        let Some(origin) = head.origin else {
            return Ok(());
        };
        let authority = origin
            .strip_prefix(b"http://")
            .or_else(|| origin.strip_prefix(b"https://"));
        let is_own = authority
            .zip(head.host)
            .is_some_and(|(authority, host)| authority.eq_ignore_ascii_case(host));
        if is_own { Ok(()) } else { refusal() }
    }

    /// Refuses requests without the token, if there is one.
    #[inline]
    pub fn check_token(&self, head: &Head<'_>) -> Result<(), Refusal> {
        let Some(token) = &self.token else {
            return Ok(());
        };
        let presented = head.authorization.and_then(bearer);
        if presented.is_some_and(|presented| token.matches(presented)) {
            return Ok(());
        }
        let message = "this node wants its token: send `Authorization: Bearer TOKEN`";
        Err(Refusal::new(401, "unauthorized", message))
    }
}

fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = authorization.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| rest.trim_ascii())
}

fn without_port(host: &[u8]) -> &[u8] {
    let digits = host
        .iter()
        .rev()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    match host[..host.len() - digits].strip_suffix(b":") {
        // An IPv6 literal in brackets may end in `]`, a bare one has colons that are not of a port.
        Some(name) if !name.contains(&b':') || name.ends_with(b"]") => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(arguments: &[&str]) -> AccessPolicy {
        let arguments = arguments.iter().map(Into::into);
        match crate::config::parse(arguments, |_| None) {
            Ok(crate::config::Invocation::Run(config)) => {
                AccessPolicy::new(&config, "node1.example")
            }
            other => panic!("{other:?}"),
        }
    }

    fn status_for_host(guard: &mut AccessPolicy, host: &str) -> u16 {
        let head = Head {
            host: Some(host.as_bytes()),
            ..Head::default()
        };
        guard
            .check_source(&head, false)
            .map_or_else(|refusal| refusal.status, |()| 200)
    }

    #[test]
    fn on_loopback_only_addresses_and_localhost_are_hosts() {
        let mut guard = guard(&[]);
        for host in [
            "127.0.0.1:9001",
            "127.0.0.1",
            "localhost",
            "LocalHost:9001",
            "[::1]:9001",
            "[::1]",
            "10.0.0.7:80",
            "",
        ] {
            assert_eq!(status_for_host(&mut guard, host), 200, "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:9001",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "[evil]",
        ] {
            assert_eq!(status_for_host(&mut guard, host), 421, "{host}");
        }
    }

    #[test]
    fn allowed_hosts_are_added_and_open_nodes_answer_to_any() {
        let mut named = guard(&["--allowed-host", "db.example"]);
        assert_eq!(status_for_host(&mut named, "DB.example:9001"), 200);
        assert_eq!(status_for_host(&mut named, "other.example"), 421);
        assert_eq!(status_for_host(&mut named, "127.0.0.1:9001"), 200);
        // The node's own names, whatever it was allowed beside them.
        for mut guard in [named, guard(&["--advertise", "http://db-0.db.svc:9001"])] {
            for host in ["node1", "NODE1:9001", "node1.example"] {
                assert_eq!(status_for_host(&mut guard, host), 200, "{host}");
            }
            for host in ["node1.evil.example", "node", "example"] {
                assert_eq!(status_for_host(&mut guard, host), 421, "{host}");
            }
        }
        let mut advertised = guard(&["--advertise", "http://db-0.db.svc:9001"]);
        assert_eq!(status_for_host(&mut advertised, "db-0.db.svc:80"), 200);
        assert_eq!(status_for_host(&mut advertised, "db-0.db"), 421);
        let mut open = guard(&["--listen", "0.0.0.0:9001", "--allow-open"]);
        assert_eq!(status_for_host(&mut open, "any.example"), 200);
    }

    #[test]
    fn what_is_public_is_answered_under_any_name() {
        let mut guard = guard(&[]);
        let head = Head {
            host: Some(b"evil.example"),
            ..Head::default()
        };
        assert!(guard.check_source(&head, true).is_ok());
        assert!(guard.check_source(&head, false).is_err(), "still not known");
    }

    #[test]
    fn allowed_origins_are_answered_whatever_the_relation() {
        let status = |allowed: &[&str], origin: Option<&str>, site: Option<&str>| {
            let arguments: Vec<&str> = (allowed.iter())
                .flat_map(|origin| ["--allowed-origin", origin])
                .collect();
            let head = Head {
                host: Some(b"127.0.0.1:9001"),
                origin: origin.map(str::as_bytes),
                sec_fetch_site: site.map(str::as_bytes),
                ..Head::default()
            };
            guard(&arguments)
                .check_source(&head, false)
                .map_or_else(|refusal| refusal.status, |()| 200)
        };
        let app = &["https://app.example", "http://localhost:3000"][..];
        for site in [
            None,
            Some("same-origin"),
            Some("same-site"),
            Some("cross-site"),
        ] {
            for origin in ["https://app.example", "http://localhost:3000"] {
                assert_eq!(status(app, Some(origin), site), 200, "{origin} {site:?}");
            }
            for origin in ["https://app.example:81", "http://evil.example", "null"] {
                assert_eq!(status(app, Some(origin), site), 403, "{origin} {site:?}");
                assert_eq!(status(&["*"], Some(origin), site), 200, "{origin}");
            }
        }
        assert_eq!(status(app, None, Some("cross-site")), 403, "which one?");
        assert_eq!(status(&["*"], None, Some("cross-site")), 200);
        // Its own page needs no permission.
        assert_eq!(status(app, Some("http://127.0.0.1:9001"), None), 200);
    }

    #[test]
    fn web_pages_of_other_sites_are_refused() {
        let mut guard = guard(&[]);
        let mut status = |origin: Option<&str>, site: Option<&str>| {
            let head = Head {
                host: Some(b"127.0.0.1:9001"),
                origin: origin.map(str::as_bytes),
                sec_fetch_site: site.map(str::as_bytes),
                ..Head::default()
            };
            guard
                .check_source(&head, false)
                .map_or_else(|refusal| refusal.status, |()| 200)
        };
        assert_eq!(
            status(Some("http://127.0.0.1:9001"), Some("same-origin")),
            200
        );
        assert_eq!(status(None, Some("none")), 200);
        for origin in [
            "http://evil.example",
            "http://127.0.0.1:8080",
            "null",
            "",
            "ftp://127.0.0.1:9001",
        ] {
            assert_eq!(status(Some(origin), None), 403, "{origin}");
        }
        assert_eq!(status(None, Some("cross-site")), 403);
        assert_eq!(status(None, Some("Same-Site")), 403);
    }
}
