//! What a request with a wrong path or method most likely means, as a curl line that works.
//!
//! Invariant: a line holds bytes of the request only if a shell takes them for a word.
//!
//! Not here: the lines (`route.rs` has one for each method of each path), the address in them
//! (`node_url.rs`).

use crate::config::{Config, nearest};
use crate::http::{Head, Method, Refusal};

use crate::api::request::node_url::{is_word, node_url};
use crate::api::request::route::Route;

/// Of a longer path only the beginning is in the refusal.
const PATH_SHOWN_BYTES: usize = 64;

/// The key in a line where the request has none.
const ANY_KEY: &str = "k";

/// What others call it.
const OTHER_NAMES: &[(&str, Route)] = &[
    ("help", Route::Root),
    ("docs", Route::Root),
    ("index.html", Route::Root),
    ("ui", Route::Root),
    ("api", Route::OpenApi),
    ("swagger", Route::OpenApi),
    ("ping", Route::Live),
    ("alive", Route::Live),
    ("up", Route::Live),
    ("put", Route::Key),
    ("keys", Route::Scan),
    ("list", Route::Scan),
    ("range", Route::Scan),
    ("del", Route::Delete),
    ("remove", Route::Delete),
    ("subscribe", Route::Watch),
    ("events", Route::Watch),
    ("changes", Route::Watch),
    ("info", Route::Status),
    ("stats", Route::Status),
    ("config", Route::Status),
    ("version", Route::Status),
    ("backup", Route::Snapshot),
    ("master", Route::Leader),
    ("primary", Route::Leader),
    ("slave", Route::Replica),
];

/// First parts of paths that have a key behind them in other systems, and the method that they
/// stand for; none: that of the request.
const BEFORE_KEYS: &[(&str, Option<Method>)] = &[
    ("get", Some(Method::Get)),
    ("set", Some(Method::Put)),
    ("put", Some(Method::Put)),
    ("delete", Some(Method::Delete)),
    ("del", Some(Method::Delete)),
    ("kv", None),
    ("key", None),
    ("keys", None),
];

/// A path and method that were most likely meant.
#[derive(Debug, PartialEq, Eq)]
struct Guess<'p> {
    route: Route,
    method: Method,
    key: &'p str,
}

#[cold]
pub(crate) fn no_such_path(head: &Head<'_>, config: &Config) -> Refusal {
    let path = String::from_utf8_lossy(&head.path[..head.path.len().min(PATH_SHOWN_BYTES)]);
    let all = Guess {
        route: Route::Root,
        method: Method::Get,
        key: ANY_KEY,
    };
    let guess = guess(&path, head.method);
    let line = line(guess.as_ref().unwrap_or(&all), head, config);
    let message = guess.map_or_else(
        || {
            format!(
                "there is no {path}, and nothing of a similar name. To see all paths, try: {line}"
            )
        },
        |guess| {
            let meant = patterns_below(&path).unwrap_or_else(|| guess.route.pattern().to_owned());
            format!("there is no {path}: did you mean {meant}? Try: {line}")
        },
    );
    Refusal::new(404, "not_found", message)
}

#[cold]
pub(crate) fn method_not_allowed(route: Route, head: &Head<'_>, config: &Config) -> Refusal {
    let allowed = route.allowed_methods();
    let key = match route {
        Route::Key => str::from_utf8(Route::raw_key(head.path)).unwrap_or(ANY_KEY),
        // Its number.
        Route::Partition => last_part(head.path),
        _ => any_key(route),
    };
    let guess = Guess {
        route,
        method: head.method,
        key,
    };
    let message = format!(
        "this path takes {allowed}. Try: {}",
        line(&guess, head, config)
    );
    Refusal::new(405, "method_not_allowed", message).with_header("Allow", &allowed)
}

/// What stands for a key, or for the number of a partition, where the request has none.
fn any_key(route: Route) -> &'static str {
    match route {
        Route::Partition => "0",
        _ => ANY_KEY,
    }
}

fn last_part(path: &[u8]) -> &str {
    let path = str::from_utf8(path).unwrap_or(ANY_KEY);
    path.rsplit_once('/').map_or(path, |(_, last)| last)
}

/// The paths below one that is none itself, if there are several: `/a, /b or /c`.
fn patterns_below(path: &str) -> Option<String> {
    let path = path.trim_matches('/');
    let patterns = Route::ALL.iter().map(|route| route.pattern());
    let is_below = |pattern: &&str| {
        let behind = pattern
            .strip_prefix('/')
            .and_then(|all| all.strip_prefix(path));
        behind.is_some_and(|behind| behind.len() > 1 && behind.starts_with('/'))
    };
    let below: Vec<&str> = patterns.filter(is_below).collect();
    let (last, others) = below.split_last()?;
    (!others.is_empty()).then(|| format!("{} or {last}", others.join(", ")))
}

/// The request that a path which is none most likely stands for.
fn guess(path: &str, method: Method) -> Option<Guess<'_>> {
    let name = path.trim_matches('/');
    let (first, behind) = name.split_once('/').unwrap_or((name, ""));
    let is = |known: &str| first.eq_ignore_ascii_case(known);
    if !behind.is_empty()
        && let Some((_, meant)) = BEFORE_KEYS.iter().find(|(known, _)| is(known))
    {
        return Some(Guess {
            route: Route::Key,
            method: meant.unwrap_or(method),
            key: behind,
        });
    }
    let other = OTHER_NAMES.iter().find(|(known, _)| is(known));
    let route = route_near(name)
        .or(other.map(|(_, route)| *route))
        .or_else(|| route_near(first))?;
    let method = if name.eq_ignore_ascii_case("put") {
        Method::Put
    } else {
        method
    };
    Some(Guess {
        route,
        method,
        key: any_key(route),
    })
}

/// The route with the name that is nearest, if one is near.
fn route_near(name: &str) -> Option<Route> {
    let names = |route: &Route| {
        let pattern = route.pattern().trim_start_matches('/');
        pattern.split_once("/{").map_or(pattern, |(name, _)| name)
    };
    let known = Route::ALL.iter().map(names);
    let known = nearest(name, known.filter(|name| !name.is_empty()))?;
    Route::ALL
        .iter()
        .copied()
        .find(|route| names(route) == known)
}

/// `curl …`, with the address that the request was sent to.
fn line(guess: &Guess<'_>, head: &Head<'_>, config: &Config) -> String {
    let url = node_url(head, config);
    let key = if is_word(guess.key.as_bytes()) {
        guess.key
    } else {
        ANY_KEY
    };
    // A line that removes a partition is only for a client that wants that.
    let example = if guess.route == Route::Partition && guess.method != Method::Delete {
        "'URL/status?partition=KEY'"
    } else {
        guess.route.example(guess.method)
    };
    let arguments = example.replace("URL", &url).replace("KEY", key);
    format!("curl {arguments}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Invocation, parse};

    fn config() -> Box<Config> {
        match parse(["-p".into(), "21001".into()], |_| None) {
            Ok(Invocation::Run(config)) => config,
            other => panic!("{other:?}"),
        }
    }

    fn told(method: Method, path: &str) -> String {
        let head = Head {
            method,
            path: path.as_bytes(),
            ..Head::default()
        };
        no_such_path(&head, &config()).message.to_string()
    }

    #[test]
    fn paths_that_people_type_lead_to_those_that_there_are() {
        for (path, meant, example) in [
            ("/help", "/", "URL/"),
            ("/index.html", "/", "URL/"),
            ("/swagger", "/openapi.json", "URL/openapi.json"),
            ("/ping", "/livez", "URL/livez"),
            ("/get/a", "/kv/{key}", "URL/kv/a"),
            ("/GET/a/b%2Fc", "/kv/{key}", "URL/kv/a/b%2Fc"),
            ("/set/a", "/kv/{key}", "-X PUT URL/kv/a -d v"),
            ("/delete/a", "/kv/{key}", "-X DELETE URL/kv/a"),
            ("/keys/a", "/kv/{key}", "URL/kv/a"),
            ("/Kv/a", "/kv/{key}", "URL/kv/a"),
            ("/kv", "/kv/{key}", "URL/kv/k"),
            ("/put", "/kv/{key}", "-X PUT URL/kv/k -d v"),
            ("/healthz", "/health", "URL/health"),
            ("/healht", "/health", "URL/health"),
            ("/ready", "/readyz", "URL/readyz"),
            ("/set/", "/set", "URL/set -d 'key=k&value=v'"),
            ("/SET", "/set", "URL/set -d 'key=k&value=v'"),
            ("//get", "/get", "'URL/get?key=k'"),
            ("/metrics/", "/metrics", "URL/metrics"),
            ("/metric", "/metrics", "URL/metrics"),
            ("/admin/frezze", "/admin/freeze", "-X POST URL/admin/freeze"),
            ("/admin/fr", "/admin/freeze", "-X POST URL/admin/freeze"),
            (
                "/admin/",
                "/admin/freeze, /admin/compact or /admin/checkpoint",
                "-X POST URL/admin/freeze",
            ),
            (
                "/partition",
                "/partition/assign, /partition/handover, /partition/recover, /partition/move or \
                 /partition/{id}",
                "'URL/status?partition=0'",
            ),
            (
                "/partition/x",
                "/partition/{id}",
                "'URL/status?partition=0'",
            ),
            ("/openapi", "/openapi.json", "URL/openapi.json"),
            (
                "/watch/user",
                "/watch",
                "'URL/watch?prefix=user/&timeout=5'",
            ),
            ("/stats", "/status", "URL/status"),
            ("/keys", "/scan", "'URL/scan?prefix=user/&limit=10'"),
            // What a shell would not take for a word is left out.
            ("/get/$(reboot)", "/kv/{key}", "URL/kv/k"),
            ("/get/a'b", "/kv/{key}", "URL/kv/k"),
            ("/get/a;b", "/kv/{key}", "URL/kv/k"),
        ] {
            let example = example.replace("URL", "http://127.0.0.1:21001");
            assert_eq!(
                told(Method::Get, path),
                format!("there is no {path}: did you mean {meant}? Try: curl {example}")
            );
        }
        assert!(told(Method::Put, "/kv").ends_with("curl -X PUT http://127.0.0.1:21001/kv/k -d v"));
        for path in ["/frobnicate", "/v2/x", "/\u{fffd}"] {
            let told = told(Method::Get, path);
            assert!(told.contains("nothing of a similar name"), "{told}");
            assert!(
                told.ends_with("try: curl http://127.0.0.1:21001/"),
                "{told}"
            );
        }
    }

    #[test]
    fn a_wrong_method_is_answered_with_one_that_works() {
        for (method, path, example) in [
            (Method::Get, "/set", "URL/set -d 'key=k&value=v'"),
            (Method::Put, "/set", "URL/set -d 'key=k&value=v'"),
            (Method::Put, "/get", "URL/get -d key=k"),
            (Method::Get, "/delete", "-X DELETE 'URL/delete?key=k'"),
            (Method::Post, "/kv/a", "-X PUT URL/kv/a -d v"),
            (Method::Patch, "/kv/", "-X PUT URL/kv/k -d v"),
            (Method::Get, "/admin/freeze", "-X POST URL/admin/freeze"),
            (Method::Get, "/partition/0", "'URL/status?partition=0'"),
            (Method::Post, "/partition/31", "'URL/status?partition=31'"),
            (Method::Post, "/scan", "'URL/scan?prefix=user/&limit=10'"),
        ] {
            let head = Head {
                method,
                path: path.as_bytes(),
                host: Some(b"db-0.example:80"),
                ..Head::default()
            };
            let route = Route::of(path.as_bytes()).expect("a route");
            let refusal = method_not_allowed(route, &head, &config());
            let line = format!(
                "Try: curl {}",
                example.replace("URL", "http://db-0.example:80")
            );
            assert!(refusal.message.ends_with(&line), "{}", refusal.message);
            let head = Head {
                host: Some(b"$(reboot)"),
                ..head
            };
            let refusal = method_not_allowed(route, &head, &config());
            assert!(refusal.message.contains("127.0.0.1"), "{}", refusal.message);
        }
    }
}
