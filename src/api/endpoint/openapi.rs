//! `/openapi.json`: the description of the node. It is written by hand; the tests below
//! compare it with the table of routes and the codes of refusals, and `.ci/run` tests a running
//! node against it.

use crate::http::Reply;
use crate::version::VERSION;

use crate::api::context::Api;
use crate::api::request::values::JSON;

use super::packed::{OPENAPI, unpack};

/// Replaced in the text by the version of this build.
const VERSION_MARK: &str = "VERSION";

impl Api<'_> {
    pub(crate) fn answer_openapi(reply: Reply<'_>) {
        let document = unpack(OPENAPI).replacen(VERSION_MARK, VERSION, 1);
        let reply = reply.status(200).content_type(JSON);
        reply.body(document.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use serde_json::Value as Json;

    use crate::http::{Field, Method};

    use super::*;
    use crate::api::request::params::Param;
    use crate::api::request::route::{MEANING, Route};

    fn document() -> Json {
        serde_json::from_str(&unpack(OPENAPI)).expect("JSON")
    }

    #[test]
    fn every_route_is_described_with_its_methods_and_nothing_else_is() {
        let document = document();
        let paths = document["paths"].as_object().expect("paths");
        let names: BTreeSet<String> = paths.keys().cloned().collect();
        assert_eq!(
            names,
            Route::ALL
                .iter()
                .map(|route| route.pattern().to_owned())
                .collect()
        );
        for route in Route::ALL {
            let path = route.pattern();
            let item = paths[path].as_object().expect("a path");
            let methods: BTreeSet<String> = item
                .keys()
                .filter(|name| *name != "parameters")
                .cloned()
                .collect();
            let allowed = route
                .allowed_methods()
                .split(", ")
                .map(str::to_lowercase)
                .collect();
            assert_eq!(methods, allowed, "{route:?}");
            for method in &methods {
                let is_public = item[method]["security"]
                    .as_array()
                    .is_some_and(Vec::is_empty);
                assert_eq!(is_public, route.is_public(), "{method} {route:?}");
                let responses = item[method]["responses"].as_object().expect("responses");
                assert_eq!(
                    responses.contains_key("401"),
                    !route.is_public(),
                    "{method} {route:?}"
                );
            }
        }
    }

    /// A parameter of the description, followed where it refers to.
    fn parameter<'d>(document: &'d Json, found: &'d Json) -> &'d Json {
        let Some(reference) = found["$ref"].as_str() else {
            return found;
        };
        document
            .pointer(&reference[1..])
            .expect("a reference within")
    }

    #[test]
    fn parameters_and_headers_are_those_that_requests_take() {
        let document = document();
        let methods = [
            Method::Get,
            Method::Head,
            Method::Post,
            Method::Put,
            Method::Delete,
        ];
        for route in Route::ALL {
            let path = route.pattern();
            for method in &methods {
                let Some(takes) = route.takes(*method) else {
                    continue;
                };
                let operation = &document["paths"][path][method.name().to_lowercase()];
                let listed = |object: &Json| object["parameters"].as_array().cloned();
                let listed = [listed(&document["paths"][path]), listed(operation)];
                let (mut params, mut fields) = (BTreeSet::new(), BTreeSet::new());
                for found in listed.iter().flatten().flatten() {
                    let found = parameter(&document, found);
                    let name = found["name"].as_str().expect("a name").to_owned();
                    match found["in"].as_str() {
                        Some("query") => params.insert(name),
                        Some("header") => fields.insert(name),
                        _ => continue,
                    };
                }
                let named = |param: Param| param.name().to_owned();
                assert_eq!(
                    params,
                    takes.params.iter().map(named).collect(),
                    "{method:?} {path}"
                );
                let named = |field: Field| field.name().to_owned();
                let read = takes.fields.within(MEANING);
                assert_eq!(
                    fields,
                    read.iter().map(named).collect(),
                    "{method:?} {path}"
                );
            }
        }
    }

    #[test]
    fn the_version_stands_in_one_place() {
        assert_eq!(unpack(OPENAPI).matches(VERSION_MARK).count(), 1);
        assert_eq!(document()["info"]["version"], VERSION_MARK);
    }

    /// All strings of a member, wherever it is.
    fn members(value: &Json, name: &str, found: &mut Vec<String>) {
        match value {
            Json::Object(object) => {
                found.extend(object.get(name).and_then(Json::as_str).map(str::to_owned));
                object
                    .values()
                    .for_each(|value| members(value, name, found));
            }
            Json::Array(array) => array.iter().for_each(|value| members(value, name, found)),
            _ => {}
        }
    }

    #[test]
    fn references_lead_somewhere_and_every_component_is_used() {
        let document = document();
        let (mut references, mut names) = (Vec::new(), Vec::new());
        members(&document, "$ref", &mut references);
        for reference in &references {
            let pointer = reference.strip_prefix('#').expect("a reference within");
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
        for kind in ["parameters", "headers", "responses", "schemas"] {
            for name in document["components"][kind]
                .as_object()
                .expect("components")
                .keys()
            {
                let reference = format!("#/components/{kind}/{name}");
                assert!(references.contains(&reference), "{reference} is not used");
            }
        }
        members(&document["paths"], "operationId", &mut names);
        assert_eq!(
            names.iter().collect::<BTreeSet<_>>().len(),
            names.len(),
            "an operationId is there twice"
        );
    }

    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                sources(&path, found);
            } else if !path.to_string_lossy().ends_with("tests.rs") {
                found.push(path);
            }
        }
    }

    /// The codes of refusals in a text: what stands in `Refusal::new(status, "code", …)`.
    fn codes_in(text: &str) -> impl Iterator<Item = &str> {
        text.split("Refusal::new(").skip(1).filter_map(|call| {
            let (_, behind) = call.trim_start().split_at_checked(3)?;
            behind
                .strip_prefix(',')?
                .trim_start()
                .strip_prefix('"')?
                .split('"')
                .next()
        })
    }

    #[test]
    fn codes_are_those_that_refusals_have() {
        let mut paths = Vec::new();
        sources(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
            &mut paths,
        );
        let mut codes = BTreeSet::from(["bad_request".to_owned()]);
        for path in paths
            .iter()
            .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        {
            let text = std::fs::read_to_string(path).expect("text");
            let code = text
                .split("#[cfg(test)]\nmod tests {")
                .next()
                .unwrap_or_default();
            codes.extend(codes_in(code).map(str::to_owned));
        }
        let document = document();
        let listed = document["components"]["schemas"]["Code"]["enum"]
            .as_array()
            .expect("codes");
        let listed: BTreeSet<String> = listed
            .iter()
            .filter_map(Json::as_str)
            .map(str::to_owned)
            .collect();
        assert_eq!(listed, codes);
    }
}
