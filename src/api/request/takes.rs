//! Refuses header fields and query parameters that would change what a request means and that its
//! endpoint does not read.
//!
//! Invariants:
//! 1. A field or parameter that changes what a request means is obeyed or refused by name, never
//!    ignored: an ignored condition is a lost update, and a mistyped time to live leaves a key for
//!    good. The table of routes says which ones an endpoint reads.
//! 2. Other fields are ignored, as HTTP requires.
//! 3. Public paths ignore all fields: load balancers send the same ones everywhere.
//!
//! Not here: what each request takes (`route.rs`), what the values mean (the endpoints).

use crate::config::nearest;
use crate::http::{Field, Framing, Head, Method, Refusal, given_twice};

use crate::api::request::params::{Param, ParamSet};
use crate::api::request::query::Query;
use crate::api::request::route::{AcceptedInput, MEANING, Route, SENDER};

/// Of a longer parameter name only the beginning is in the refusal.
const NAME_SHOWN_BYTES: usize = 64;

/// Refuses a request in which a field that the endpoint reads, and that has one value, stands on
/// several lines.
#[inline]
pub(crate) fn check_repeated(route: Option<Route>, head: &Head<'_>) -> Result<(), Refusal> {
    if head.repeated.is_empty() {
        return Ok(());
    }
    let matters = route.map_or(SENDER, |route| route.fields(head.method));
    head.repeated
        .within(matters)
        .iter()
        .next()
        .map_or(Ok(()), |field| Err(given_twice(field)))
}

/// The parameters of a request; refuses a field or parameter that its endpoint does not read, and a
/// parameter that is repeated.
#[inline]
pub(crate) fn check(
    route: Route,
    takes: &'static AcceptedInput,
    head: &Head<'_>,
) -> Result<ParamSet, Refusal> {
    let others = head
        .given
        .within(MEANING)
        .without(takes.fields.and(takes.tolerated));
    if !others.is_empty() {
        others
            .iter()
            .try_for_each(|field| check_other_field(field, route, head))?;
    }
    let mut given = ParamSet::EMPTY;
    if head.query.is_some() {
        for (name, _) in Query::new(head.target()).pairs() {
            match Param::of(&name) {
                Some(param) if takes.params.has(param) => {
                    if !given.insert(param) {
                        return Err(param_given_twice(param));
                    }
                }
                _ => return Err(unknown_param(&name, route, takes, head.method)),
            }
        }
    }
    Ok(given)
}

/// Refuses a field that the endpoint does not read, unless it has no effect on this request.
#[cold]
fn check_other_field(field: Field, route: Route, head: &Head<'_>) -> Result<(), Refusal> {
    let is_read = route == Route::Get || matches!(head.method, Method::Get | Method::Head);
    let way_out = match field {
        // A request without content has nothing that could be encoded.
        Field::ContentEncoding if head.framing == Framing::None => return Ok(()),
        Field::ContentEncoding => {
            let message = "the content is encoded, and would be stored as if it were not: send it \
                           as it is, without Content-Encoding";
            return Err(Refusal::new(415, "unsupported_encoding", message)
                .with_header("Accept-Encoding", "identity"));
        }
        // A read may ignore it: the answer is whole and current (RFC 9110, section 13.1.4).
        Field::IfUnmodifiedSince if is_read => return Ok(()),
        Field::IfUnmodifiedSince => {
            "values have no modification times: send If-Match with the ETag of what was read"
                .to_owned()
        }
        Field::ContentRange => {
            "a part of a value cannot be written: send the whole value without it".to_owned()
        }
        Field::MethodOverride | Field::HttpMethod | Field::OtherMethod => {
            "send the method itself".to_owned()
        }
        Field::MinAck | Field::MinAcksJoined => "did you mean X-Min-Acks?".to_owned(),
        Field::Partition | Field::PartitionIdJoined => "did you mean X-Partition-ID?".to_owned(),
        Field::IfMatch if route == Route::Batch => in_operation("ifMatch"),
        Field::IfNoneMatch if route == Route::Batch => in_operation("ifNoneMatch"),
        Field::Ttl if route == Route::Batch => in_operation("ttl"),
        Field::PartitionId => about_partition(route),
        _ => belongs_to(|takes| takes.fields.has(field)),
    };
    let (name, request) = (field.name(), request_name(route, head.method));
    let message = format!("{name} has no meaning for {request}: {way_out}");
    Err(Refusal::new(400, "unexpected_header", message))
}

/// Also if both have the same value: a proxy may have read the other one.
#[cold]
fn param_given_twice(param: Param) -> Refusal {
    let message = format!("?{}= is there twice: send it once", param.name());
    Refusal::new(400, "bad_query", message)
}

#[cold]
fn unknown_param(name: &[u8], route: Route, takes: &AcceptedInput, method: Method) -> Refusal {
    let params = takes.params;
    let shown = String::from_utf8_lossy(&name[..name.len().min(NAME_SHOWN_BYTES)]);
    let message = if let Some(param) = Param::of(name) {
        let way_out = match param {
            Param::Ttl if route == Route::Batch => in_operation("ttl"),
            Param::Partition => about_partition(route),
            _ => belongs_to(|takes| takes.params.has(param)),
        };
        let request = request_name(route, method);
        format!("the parameter \"{shown}\" has no meaning for {request}: {way_out}")
    } else if let Some(known) = nearest(&shown, params.iter().map(Param::name)) {
        format!("unknown parameter \"{shown}\": did you mean \"{known}\"?")
    } else {
        let known: Vec<&str> = params.iter().map(Param::name).collect();
        match &known[..] {
            [] => format!("unknown parameter \"{shown}\": this path takes none"),
            known => format!(
                "unknown parameter \"{shown}\": this path takes {}",
                known.join(", ")
            ),
        }
    };
    Refusal::new(400, "unknown_parameter", message)
}

fn in_operation(name: &str) -> String {
    format!("put \"{name}\" into an operation of the batch")
}

fn about_partition(route: Route) -> String {
    match route {
        Route::Assign | Route::Handover | Route::Recover | Route::Move => {
            "name the partition in the body, as \"id\"".to_owned()
        }
        Route::Partition => "name the partition in the path".to_owned(),
        _ => "this path is about the node as a whole".to_owned(),
    }
}

/// "it belongs to GET /scan, …": the requests for which `is_taken` holds.
fn belongs_to(is_taken: impl Fn(&AcceptedInput) -> bool) -> String {
    const METHODS: [Method; 4] = [Method::Get, Method::Post, Method::Put, Method::Delete];
    let mut places = Vec::new();
    for &route in Route::ALL {
        let is_place = |method: &Method| route.takes(*method).is_some_and(&is_taken);
        let methods = METHODS.into_iter().filter(is_place);
        places.extend(methods.map(|method| request_name(route, method)));
    }
    format!("it belongs to {}", places.join(", "))
}

fn request_name(route: Route, method: Method) -> String {
    format!("{} {}", method.name(), route.pattern())
}

#[cfg(test)]
mod tests {
    use crate::http::FieldSet;

    use super::*;

    /// What a request with one more field or parameter gets.
    fn verdict(route: Route, method: Method, query: &str, given: &[Field]) -> Result<(), String> {
        let head = Head {
            method,
            query: Some(query.as_bytes()),
            is_literal: !query.contains(['%', '+']),
            framing: Framing::Length(1),
            given: FieldSet::of(given),
            ..Head::default()
        };
        let takes = route.takes(method).expect("a method of the path");
        check(route, takes, &head)
            .map(drop)
            .map_err(|refusal| format!("{} {}", refusal.status, refusal.message))
    }

    /// Every field that changes a meaning, and every parameter, at every route with every method:
    /// taken as the table says, or refused by name.
    #[test]
    fn what_is_not_taken_is_refused_by_name() {
        let methods = [
            Method::Get,
            Method::Head,
            Method::Post,
            Method::Put,
            Method::Delete,
        ];
        for &route in Route::ALL {
            for method in methods {
                let Some(takes) = route.takes(method) else {
                    continue;
                };
                for field in MEANING.iter() {
                    let is_read =
                        route == Route::Get || matches!(method, Method::Get | Method::Head);
                    let means_nothing = field == Field::IfUnmodifiedSince && is_read;
                    match verdict(route, method, "", &[field]) {
                        Ok(()) => assert!(
                            takes.fields.has(field) || takes.tolerated.has(field) || means_nothing,
                            "{method:?} {route:?} {field:?}"
                        ),
                        Err(text) => assert!(
                            !takes.fields.has(field)
                                && (text.contains(field.name())
                                    || text.contains("Content-Encoding")),
                            "{method:?} {route:?}: {text}"
                        ),
                    }
                }
                for &param in Param::ALL {
                    let query = format!("{}=1", param.name());
                    let found = verdict(route, method, &query, &[]);
                    assert_eq!(
                        found.is_ok(),
                        takes.params.has(param),
                        "{route:?}: {found:?}"
                    );
                    if let Err(text) = found {
                        assert!(text.starts_with("400 "), "{text}");
                        assert!(text.contains(&format!("\"{}\"", param.name())), "{text}");
                        continue;
                    }
                    // With the same value, another one, and a name in other letters.
                    let encoded = format!("%{:02x}{}", query.as_bytes()[0], &query[1..]);
                    for twice in [
                        format!("{query}&{query}"),
                        format!("{query}&{query}2"),
                        format!("{query}&{encoded}"),
                    ] {
                        let found = verdict(route, method, &twice, &[]);
                        assert!(
                            found.is_err_and(|text| text.contains("twice")),
                            "{route:?}: {twice}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn refusals_say_where_a_thing_belongs() {
        for (route, method, query, given, expected) in [
            (
                Route::Key,
                Method::Put,
                "tll=5",
                &[][..],
                "400 unknown parameter \"tll\": did you mean \"ttl\"?",
            ),
            (
                Route::Scan,
                Method::Get,
                "&prefx=user/",
                &[],
                "400 unknown parameter \"prefx\": did you mean \"prefix\"?",
            ),
            (
                Route::Scan,
                Method::Get,
                "pr%65fx=a",
                &[],
                "400 unknown parameter \"prefx\": did you mean \"prefix\"?",
            ),
            (
                Route::Key,
                Method::Delete,
                "x=1",
                &[],
                "400 unknown parameter \"x\": this path takes partition",
            ),
            (
                Route::Metrics,
                Method::Get,
                "x",
                &[],
                "400 unknown parameter \"x\": this path takes none",
            ),
            (
                Route::Get,
                Method::Get,
                "key=a&ttl=1",
                &[],
                "400 the parameter \"ttl\" has no meaning for GET /get: it belongs to POST /set, \
                 PUT /kv/{key}",
            ),
            (
                Route::Batch,
                Method::Post,
                "",
                &[Field::IfMatch],
                "400 If-Match has no meaning for POST /batch: put \"ifMatch\" into an operation of \
                 the batch",
            ),
            (
                Route::Watch,
                Method::Get,
                "",
                &[Field::Ttl],
                "400 X-TTL has no meaning for GET /watch: it belongs to POST /set, PUT /kv/{key}",
            ),
            (
                Route::Assign,
                Method::Post,
                "",
                &[Field::PartitionId],
                "400 X-Partition-ID has no meaning for POST /partition/assign: name the partition \
                 in the body, as \"id\"",
            ),
        ] {
            assert_eq!(
                verdict(route, method, query, given),
                Err(expected.to_owned())
            );
        }
    }
}
