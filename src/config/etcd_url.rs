//! The value of `--etcd`: the members of an etcd cluster.

use super::values::parse_peer;

/// Most members; etcd itself advises against more than seven.
const MEMBER_MAX: usize = 16;

/// The authorities of URLs such as `http://10.0.0.5:2379,http://10.0.0.6:2379`.
pub(super) fn parse_etcd_urls(text: &str) -> Result<Vec<String>, String> {
    let urls: Vec<&str> = text.split(',').map(str::trim).collect();
    if urls.len() > MEMBER_MAX {
        return Err(format!("more than {MEMBER_MAX} members: name some of them"));
    }
    urls.into_iter().map(parse_url).collect()
}

fn parse_url(url: &str) -> Result<String, String> {
    if url.starts_with("https://") {
        return Err(
            "TLS is not spoken: run HAProxy with packaging/etcd-tls.cfg on this machine as a \
             bridge, and give its address, http://127.0.0.1:2378"
                .to_owned(),
        );
    }
    let problem = |problem: &str| format!("{problem}: give URLs such as http://10.0.0.5:2379");
    let Some(authority) = url.strip_prefix("http://") else {
        return Err(problem("a URL begins with http://"));
    };
    if authority.contains('@') {
        return Err("a user and a password belong in a file: see --etcd-user-file".to_owned());
    }
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    if authority.contains(['/', '?', '#']) {
        return Err(problem("no path goes with it"));
    }
    let found = parse_peer(authority).map_err(|_| problem("a host and a port are needed"))?;
    Ok(found.trim_start_matches("http://").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_listed() {
        for (text, expected) in [
            ("http://10.0.0.5:2379", &["10.0.0.5:2379"][..]),
            (
                "http://etcd-0:2379/, http://[fd00::1]:2379",
                &["etcd-0:2379", "[fd00::1]:2379"],
            ),
        ] {
            let found = parse_etcd_urls(text).expect(text);
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let many = ["http://h:1"; 17].join(",");
        for (text, part) in [
            ("", "begins with http://"),
            ("10.0.0.5:2379", "begins with http://"),
            ("http://h:1,", "begins with http://"),
            ("https://h:2379", "packaging/etcd-tls.cfg"),
            ("http://h:1,https://h:2", "packaging/etcd-tls.cfg"),
            ("http://root:secret@h:1", "--etcd-user-file"),
            ("http://h:1/v3", "no path"),
            ("http://h:1?a", "no path"),
            ("http://h", "a host and a port"),
            ("http://h:0", "a host and a port"),
            ("http://:2379", "a host and a port"),
            ("http://a b:2379", "a host and a port"),
            (&many, "more than 16"),
        ] {
            let found = parse_etcd_urls(text).expect_err(text);
            assert!(found.contains(part), "{text}: {found}");
        }
    }
}
