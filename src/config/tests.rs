//! Command lines and environments, and what must come of them.

use std::ffi::OsString;

use super::command_line::environment_name;
use super::options::OPTIONS;
use super::*;

fn parse_with(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Config, String> {
    let lookup = |name: &str| {
        environment
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.into())
    };
    match parse(arguments.iter().map(OsString::from), lookup) {
        Ok(Invocation::Run(config)) => Ok(*config),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.to_string()),
    }
}

/// Every option changes what it should, by flag and by environment, and the flag wins.
#[test]
fn every_option_by_flag_and_by_environment() {
    let token_file = format!("{}/LICENSE-MIT", env!("CARGO_MANIFEST_DIR"));
    for option in OPTIONS {
        let (value, other) = match option.flag {
            "listen" => ("127.0.0.1:1", "127.0.0.1:2"),
            "log" => ("debug", "error"),
            "allowed-host" => ("one.example", "two.example"),
            "allowed-origin" => ("https://one.example", "*"),
            "allow-open" | "accept-data-loss" | "await-assignment" | "etcd-user-file" => continue,
            "token-file" => {
                let error = parse_with(&["--token-file", &token_file], &[]).unwrap_err();
                assert!(error.contains("visible ASCII"), "{error}");
                continue;
            }
            "memtable-bytes" => ("1MiB", "2MiB"),
            "max-memory" | "max-upload-memory" => ("64MiB", "2GiB"),
            "replication-listen" => ("127.0.0.1:1", "off"),
            "replica-of" | "advertise" => ("http://h:1", "h:2"),
            "min-acks" => ("1", "2"),
            "read-consistency" => ("acknowledged", "local"),
            "fsync" => ("interval", "never"),
            "etcd" => ("http://h:1", "http://h:2,http://h:3"),
            "node" | "cluster" | "zone" => ("one", "two"),
            "min-in-sync" => ("2", "3"),
            "cluster-init" => ("partitions=1", "replicas=1"),
            _ => ("4000", "5000"),
        };
        let flag = format!("--{}", option.flag);
        let name = environment_name(option.flag);
        let show = |config: Result<Config, String>| format!("{:?}", config.expect(option.flag));
        // Some options only make sense beside these, and some not.
        let base: &[&str] = match option.flag {
            "replica-of" | "replication-listen" => &[],
            _ => &["--data-dir=somewhere", "--etcd=http://h:9", "--node=n"],
        };
        let with = |more: &[&str], environment: &[(&str, &str)]| {
            show(parse_with(&[base, more].concat(), environment))
        };
        let by_flag = with(&[&flag, value], &[]);
        assert_ne!(by_flag, with(&[], &[]), "{flag} changes nothing");
        assert_eq!(
            with(&[&flag, value], &[(&name, other)]),
            by_flag,
            "{flag} does not win"
        );
        assert_eq!(with(&[&format!("{flag}={value}")], &[]), by_flag);
        if !matches!(option.flag, "data-dir" | "etcd" | "node") {
            assert_eq!(with(&[], &[(&name, value)]), by_flag, "{name}");
        }
        assert!(help().contains(&flag));
    }
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let config = parse_with(&[], &[]).expect("defaults are valid");
    assert_eq!(config.listen.to_string(), "127.0.0.1:9001");
    assert_eq!(
        (config.memtable_bytes, config.max_value_bytes),
        (4 << 20, 16 << 20)
    );
    assert!(config.token.is_none() && config.allowed_hosts.is_empty());
}

#[test]
fn mistakes_are_told_with_the_way_out() {
    for (arguments, environment, expected) in [
        (
            &["--listen", "0.0.0.0:9001"][..],
            &[][..],
            "--token-file FILE",
        ),
        (
            &["--listen", "0.0.0.0:9001"],
            &[("DB_NODE_ALLOW_OPEN", "no")],
            "give true or false",
        ),
        (
            &["--listen", "0.0.0.0:9001"],
            &[("DB_NODE_ALLOW_OPEN", "0")],
            "--allow-open",
        ),
        (&["--listen", "[::]:9001"], &[], "--allow-open"),
        (
            &["--replication-listen", "0.0.0.0:10001"],
            &[],
            "listening on 0.0.0.0:10001 lets anyone",
        ),
        (&["--data-dir", ""], &[], "--data-dir: its value is empty"),
        (&["--token-file="], &[], "--token-file: its value is empty"),
        (&["--max-memory="], &[], "leave the option out"),
        (&["--listen", "here"], &[], "127.0.0.1:9001"),
        (&["--listen", "127.0.0.1"], &[], "an address and a port"),
        (&["--listen", "70000"], &[], "up to 65535"),
        (&["--port", "99999"], &[], "up to 65535"),
        (
            &["--listen", "no-such-name.invalid:9001"],
            &[],
            "the name no-such-name.invalid was not found",
        ),
        (&["--listen"], &[], "--listen needs a value"),
        (&["-p"], &[], "-p needs a value"),
        (
            &["--port", "x"],
            &[],
            "--port x: give an address and a port",
        ),
        (&["--prot", "21001"], &[], "did you mean --port?"),
        (&["--chekc"], &[], "did you mean --check?"),
        (&["--vresion"], &[], "did you mean --version?"),
        (&["--max-memory", "1.5"], &[], "such as 64MiB or 1.5GiB"),
        (&["--max-memory", "17000000.5t"], &[], "more than there is"),
        (&["--lisen", "x"], &[], "did you mean --listen?"),
        (&["--frobnicate"], &[], "see --help"),
        (&["-x"], &[], "see --help"),
        (&["serve"], &[], "unexpected argument serve"),
        (&["--memtable-bytes", "1"], &[], "at least 64 KiB"),
        (&["--max-memory", "100KiB"], &[], "at least 4 MiB"),
        (&["--max-memory", "5000TB"], &[], "at most 1024 TiB"),
        (&["--max-value-bytes", "0"], &[], "at least 1 byte"),
        (&["--memtable-bytes", "99999999999999999999"], &[], "KiB"),
        (&["--memtable-bytes", "4 parsecs"], &[], "KiB"),
        (&["--max-value-bytes", "2GiB"], &[], "at most 1 GiB"),
        (&["--max-connections", "0"], &[], "from 1 to"),
        (&["--max-connections", "-1"], &[], "whole number"),
        (&["--token-file", "/nowhere/token"], &[], "cannot read it"),
        (&["--allowed-host", "http://x"], &[], "without scheme"),
        (
            &["--allowed-origin", "app.example"],
            &[],
            "--allowed-origin app.example: give scheme, host and port",
        ),
        (
            &[],
            &[("DB_NODE_ALLOWED_HOST", "ok,http://x")],
            "DB_NODE_ALLOWED_HOST http://x:",
        ),
        (
            &["--listen", "127.0.0.1:65000"],
            &[],
            "--replication-listen: there is no port 1000 above",
        ),
        (&["--replica-of", "0"], &[], "give a host and a port"),
        (&["--replica-of", "70000"], &[], "give a host and a port"),
        (&["--advertise", "9513"], &[], "give a host and a port"),
        (
            &["-p", "9513", "--replica-of", "9513"],
            &[],
            "that is this node itself",
        ),
        (&["--log", "loud"], &[], "give off, error"),
        (&[], &[("DB_NODE_LOG", "loud")], "DB_NODE_LOG loud"),
    ] {
        let error = parse_with(arguments, environment).expect_err(expected);
        assert!(error.contains(expected), "{arguments:?}: {error}");
        assert!(!error.contains('\n'), "more than one line: {error}");
    }
}

#[test]
fn empty_variables_are_refused() {
    for (arguments, name) in [
        (&[][..], "DB_NODE_DATA_DIR"),
        (&[], "DB_NODE_ALLOW_OPEN"),
        (&["--max-memory=1GiB"], "DB_NODE_MAX_MEMORY"),
    ] {
        let error = parse_with(arguments, &[(name, "")]).unwrap_err();
        let expected = format!("{name}: its value is empty: unset it, or give a value");
        assert_eq!(error, expected);
    }
}

#[test]
fn open_listening_is_allowed_when_asked_for() {
    for listen in [
        "--listen=0.0.0.0:9001",
        "--replication-listen=0.0.0.0:10001",
    ] {
        assert!(parse_with(&[listen, "--allow-open"], &[]).is_ok());
    }
    assert!(
        parse_with(
            &["--listen", "0.0.0.0:9001"],
            &[("DB_NODE_ALLOW_OPEN", "true")]
        )
        .is_ok()
    );
}

#[test]
fn lists_come_from_repeated_flags_or_commas() {
    let flags = parse_with(
        &["--allowed-host", "a", "--allowed-host", "b"],
        &[("DB_NODE_ALLOWED_HOST", "c")],
    );
    assert_eq!(flags.expect("valid").allowed_hosts, ["a", "b"]);
    let origins = parse_with(
        &[],
        &[("DB_NODE_ALLOWED_ORIGIN", "http://c, https://d:443")],
    );
    let origins = origins.expect("valid").allowed_origins;
    assert_eq!(origins.len(), 2);
    assert!(origins[1].matches(b"https://d"));
    let environment = parse_with(&[], &[("DB_NODE_ALLOWED_HOST", "c, d")]);
    assert_eq!(environment.expect("valid").allowed_hosts, ["c", "d"]);
}

#[test]
fn tokens_are_checked_compared_and_never_shown() {
    let token = Token::new(b"0123456789abcdef\n").expect("valid");
    assert!(token.matches(b"0123456789abcdef"));
    assert!(
        !token.matches(b"0123456789abcdeX")
            && !token.matches(b"0123456789abcde")
            && !token.matches(b"")
    );
    assert_eq!(format!("{token:?}"), "Token(…)");
    assert!(Token::new(b"short").is_err());
    assert!(Token::new(b"with a space inside it").is_err());
}

#[test]
fn help_fits_one_screen() {
    let help = help();
    assert!(help.lines().count() <= 50, "{} lines", help.lines().count());
    assert!(
        help.lines().all(|line| line.chars().count() <= 90),
        "{help}"
    );
}

#[test]
fn durability_without_a_directory_is_refused() {
    let error = parse_with(&["--fsync", "always"], &[]).unwrap_err();
    assert!(error.contains("--data-dir"), "{error}");
}

#[test]
fn ports_and_sizes_as_people_write_them() {
    let listens = |arguments: &[&str]| {
        let config = parse_with(arguments, &[]).expect("valid");
        config.listen.to_string()
    };
    for arguments in [
        &["--port", "21001"][..],
        &["-p", "21001"],
        &["-p21001"],
        &["--port=21001"],
        &["--listen", "21001"],
        &["--listen", ":21001"],
        &["-p", ":21001"],
        &["--port", "127.0.0.1:21001"],
        &["--listen", "127.0.0.1:1", "-p", "21001"],
    ] {
        assert_eq!(listens(arguments), "127.0.0.1:21001", "{arguments:?}");
    }
    for leader in ["9513", ":9513", "127.0.0.1:9513"] {
        let config = parse_with(&["--replica-of", leader], &[]).expect("valid");
        let expected = Some("http://127.0.0.1:9513");
        assert_eq!(config.replica_of.as_deref(), expected, "{leader}");
    }
    assert!(
        parse_peer("9513").is_err(),
        "an order of another node means another machine"
    );
    let by_variable = parse_with(&[], &[("DB_NODE_LISTEN", "21001")]).expect("valid");
    assert_eq!(by_variable.listen.port(), 21001);
    for (text, bytes) in [
        ("1GB", 1 << 30),
        ("1g", 1 << 30),
        ("1G", 1 << 30),
        ("1GiB", 1 << 30),
        ("1 gb", 1 << 30),
        ("64m", 64 << 20),
        ("64MB", 64 << 20),
        ("8192k", 8 << 20),
        ("8192Kb", 8 << 20),
        ("1t", 1 << 40),
        ("1.5GiB", 3 << 29),
        ("1.5 g", 3 << 29),
        ("4.0MiB", 4 << 20),
        ("16.125MB", 129 << 17),
        ("5000000", 5_000_000),
    ] {
        let config = parse_with(&["--max-memory", text], &[]).expect(text);
        assert_eq!(config.max_memory_bytes, Some(bytes), "{text}");
    }
    for wrong in [
        "1.5", "1.G", ".5G", "1..5G", "1,5G", "1.2345G", "GB", "1gib5", "-1g", "1e9", "1.5.5G",
    ] {
        let error = parse_with(&["--max-memory", wrong], &[]).unwrap_err();
        assert!(error.contains("KiB, MiB, GiB or TiB"), "{error}");
    }
}

#[test]
fn words_for_help_and_version_and_a_check() {
    let checked = |arguments: &[&str]| parse(arguments.iter().map(OsString::from), |_| None);
    for arguments in [&["--check", "-p", "1"][..], &["-p", "1", "--check"]] {
        assert!(
            matches!(checked(arguments), Ok(Invocation::Check(config)) if config.listen.port() == 1)
        );
    }
    assert!(checked(&["--check", "--log", "loud"]).is_err());
    let parse_word = |word: &str| parse([OsString::from(word)], |_| None);
    assert!(matches!(parse_word("help"), Ok(Invocation::Help)));
    assert!(matches!(parse_word("version"), Ok(Invocation::Version)));
}

#[test]
fn the_documentation_has_a_row_for_each_option() {
    let document = include_str!("../../docs/operations.md");
    for option in OPTIONS {
        let flag = format!("--{} {}", option.flag, option.value);
        let default = match option.default {
            "" => "–".to_owned(),
            default => format!("`{default}`"),
        };
        let row = format!(
            "| `{}` | {default} | {} |\n",
            flag.trim_end(),
            option.meaning
        );
        assert!(document.contains(&row), "docs/operations.md lacks {row}");
    }
}

/// `packaging/db-node.env` names variables that there are, with values that are valid.
#[test]
fn the_environment_file_is_valid() {
    let file = include_str!("../../packaging/db-node.env");
    let settings: Vec<(&str, &str)> = (file.lines())
        .map(|line| line.trim_start_matches('#'))
        .filter(|line| line.starts_with("DB_NODE_"))
        .filter_map(|line| line.split_once('='))
        .collect();
    assert!(settings.len() >= 5, "{settings:?}");
    let names: Vec<String> = (OPTIONS.iter())
        .map(|option| environment_name(option.flag))
        .collect();
    for (name, _) in &settings {
        assert!(names.iter().any(|known| known == name), "{name}");
    }
    let given = settings
        .into_iter()
        .filter(|(name, _)| *name != "DB_NODE_TOKEN_FILE");
    parse_with(&[], &given.collect::<Vec<_>>()).expect("valid");
}

#[test]
fn variables_that_mean_nothing_are_named() {
    let warnings =
        |name: &str, value: &str| warnings_about_variables([(name.into(), value.into())]);
    for (name, value, way_out) in [
        ("DB_NODE_LISTN", "9002", "did you mean DB_NODE_LISTEN?"),
        ("DB_NODE_MAX_MEMROY", "", "DB_NODE_MAX_MEMORY?"),
        ("DB_NODE_listen", "", "DB_NODE_LISTEN?"),
        ("DB_NODE_MAX-MEMORY", "", "DB_NODE_MAX_MEMORY?"),
        ("DB_NODE_PORT", "9512", "set DB_NODE_LISTEN=127.0.0.1:9512"),
        ("DB_NODE_CHECK", "true", "give --check on the command line"),
    ] {
        let told = warnings(name, value);
        assert!(
            told.len() == 1 && told[0].contains(way_out),
            "{name}: {told:?}"
        );
    }
    // As Kubernetes sets them for a service of that name.
    for name in [
        "DB_NODE_LISTEN",
        // Of the client, of the build, and of the tests.
        "DB_NODE_URL",
        "DB_NODE_TOKEN_FILE",
        "DB_NODE_COMMIT",
        "DB_NODE_TEST_SEED",
        "DB_NODE_TEST_RUNS",
        "DB_NODE_TEST_REWRITE",
        "DB_NODE_SERVICE_HOST",
        "DB_NODE_SERVICE_PORT",
        "DB_NODE_PORT",
        "DB_NODE_PORT_9001_TCP_ADDR",
        "PATH",
    ] {
        assert_eq!(warnings(name, "tcp://10.0.0.1:9001"), [""; 0], "{name}");
    }
}
