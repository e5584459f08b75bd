//! Rings of files: files that import each other, directly or through others. An import of the
//! parent module counts, and so does the parent's import of a child.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::Source;

type Module = Vec<String>;

/// The module path of a file below `src`.
fn module_of(path: &Path) -> Option<Module> {
    let inside = path.strip_prefix("src").ok()?.with_extension("");
    let parts = inside
        .iter()
        .map(|part| part.to_string_lossy().into_owned());
    let mut module: Module = parts.collect();
    if module
        .last()
        .is_some_and(|last| last == "mod" || last == "lib")
    {
        module.pop();
    }
    Some(module)
}

/// The paths that a use tree stands for.
fn expanded(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((prefix, body)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        return vec![path.trim().to_owned()];
    };
    let body = body.trim_end().strip_suffix('}').unwrap_or(body);
    let (mut depth, mut parts, mut part) = (0, Vec::new(), String::new());
    for c in body.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if c == ',' && depth == 0 {
            parts.push(std::mem::take(&mut part));
        } else {
            part.push(c);
        }
    }
    parts.push(part);
    let parts = parts.iter().filter(|part| !part.trim().is_empty());
    parts
        .flat_map(|part| expanded(&format!("{prefix}{}", part.trim())))
        .collect()
}

/// Paths in code that begin with `crate` or `super`.
fn inline_paths(code: &str) -> Vec<String> {
    let is_of_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let words = code.split(|c: char| !is_of_path(c));
    let starts = |word: &&str| word.starts_with("crate::") || word.starts_with("super::");
    words
        .filter(starts)
        .map(|word| word.trim_matches(':').to_owned())
        .collect()
}

/// The file that a path in a module's code leads to.
fn target(module: &Module, path: &str, files: &BTreeMap<Module, String>) -> Option<Module> {
    let mut parts: Vec<&str> = path.split("::").collect();
    let mut base = match parts[0] {
        "crate" | "super" | "self" => module.clone(),
        first => {
            let child = [&module[..], &[first.to_owned()]].concat();
            if !files.contains_key(&child) {
                return None;
            }
            module.clone()
        }
    };
    while let Some(first @ ("crate" | "super" | "self")) = parts.first().copied() {
        match first {
            "crate" => base.clear(),
            "super" => drop(base.pop()),
            _ => {}
        }
        parts.remove(0);
    }
    base.extend(parts.iter().map(ToString::to_string));
    while !base.is_empty() && !files.contains_key(&base) {
        base.pop();
    }
    (!base.is_empty() && base != *module).then_some(base)
}

/// Which files each file imports from, by module.
fn imports(files: &BTreeMap<Module, String>) -> BTreeMap<Module, BTreeSet<Module>> {
    let mut all = BTreeMap::new();
    for (module, code) in files {
        let uses = code.split(';').filter_map(|statement| {
            let at = statement.rfind("use ")?;
            let before = statement[..at].chars().next_back();
            before
                .is_none_or(char::is_whitespace)
                .then(|| &statement[at + 4..])
        });
        let paths = uses.flat_map(expanded).chain(inline_paths(code));
        let found = paths
            .filter_map(|path| target(module, &path, files))
            .collect();
        all.insert(module.clone(), found);
    }
    all
}

/// The rings, each with its files in order.
pub(crate) fn rings(sources: &[Source]) -> Vec<Vec<String>> {
    let is_code = |source: &&Source| source.path.starts_with("src") && !source.is_unit_tests();
    let mut files = BTreeMap::new();
    for source in sources.iter().filter(is_code) {
        if let Some(module) = module_of(&source.path) {
            let lines: Vec<&str> = source.code_lines().collect();
            // A visibility is no import.
            files.insert(module, lines.join("\n").replace("pub(in crate", "pub(in "));
        }
    }
    let imports = imports(&files);
    let reached: BTreeMap<&Module, BTreeSet<&Module>> = imports
        .keys()
        .map(|from| (from, reached_from(from, &imports)))
        .collect();
    let mut rings: BTreeSet<Vec<String>> = BTreeSet::new();
    for (from, others) in &reached {
        let is_back = |other: &&&Module| reached[**other].contains(from);
        let ring: Vec<String> = others
            .iter()
            .filter(is_back)
            .map(|module| module.join("/"))
            .collect();
        if !ring.is_empty() {
            rings.insert(ring);
        }
    }
    rings.into_iter().collect()
}

/// All modules that imports lead to from one, itself included if they lead back to it.
fn reached_from<'a>(
    from: &Module,
    imports: &'a BTreeMap<Module, BTreeSet<Module>>,
) -> BTreeSet<&'a Module> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&Module> = imports[from].iter().collect();
    while let Some(module) = open.pop() {
        if reached.insert(module) {
            open.extend(&imports[module]);
        }
    }
    reached
}

#[test]
fn made_up_rings_are_found() {
    let source = |path: &str, text: &str| Source {
        path: path.into(),
        text: text.to_owned(),
    };
    let sources = [
        source("src/a/mod.rs", "mod b;\nuse b::B;\npub struct A;\n"),
        source("src/a/b.rs", "use super::A;\npub struct B;\n"),
        source(
            "src/c.rs",
            "use crate::{\n    d::D,\n};\nfn f() { crate::e::g() }\n",
        ),
        source("src/d.rs", "// use crate::c::C;\n"),
        source("src/e.rs", "use crate::f::{F, G as H};\n"),
        source("src/f.rs", "use crate::c;\n"),
    ];
    assert_eq!(rings(&sources), [vec!["a", "a/b"], vec!["c", "e", "f"]]);
}
