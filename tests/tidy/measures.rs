//! Measures of the code: how long functions and lines are, how many fields and parameters there
//! are, and which words comments use. The text is as rustfmt leaves it, which is what makes
//! counting lines exact.

use std::collections::BTreeMap;

use crate::Source;

/// Lines in the body of a function.
const FUNCTION_LINE_MAX: usize = 60;
/// Fields of a struct.
const FIELD_MAX: usize = 16;
/// Parameters of a function, `self` not counted.
const PARAMETER_MAX: usize = 6;
/// Characters in a line, of code and of comments.
const COLUMN_MAX: usize = 100;
/// Characters in a line of a document besides tables and code.
const DOCUMENT_COLUMN_MAX: usize = 140;
/// Lines of a file of tests.
const TEST_FILE_LINE_MAX: usize = 800;

/// What is over a limit, by what it is; and by how much, as a number that may only shrink.
pub(crate) type Findings = BTreeMap<String, usize>;

/// Everything in the sources that is over a limit.
pub(crate) fn findings(sources: &[Source]) -> Findings {
    let mut found = Findings::new();
    for source in sources {
        add_long_lines(source, &mut found);
        add_vague_words(source, &mut found);
        let path = source.path.display();
        let line_count = source.text.lines().count();
        if source.is_test_file() && line_count > TEST_FILE_LINE_MAX {
            found.insert(format!("lines of test file {path}"), line_count);
        }
        // Tests are scenarios, which read best in one piece.
        if !source.path.starts_with("tests") && !source.is_unit_tests() {
            add_functions(source, &mut found);
            add_structs(source, &mut found);
        }
    }
    add_names(sources, &mut found);
    found
}

fn add_long_lines(source: &Source, found: &mut Findings) {
    let is_long = |line: &&str| line.chars().count() > COLUMN_MAX;
    let count = source.text.lines().filter(is_long).count();
    if count > 0 {
        let path = source.path.display();
        found.insert(format!("lines over {COLUMN_MAX} columns in {path}"), count);
    }
}

/// Pronouns that leave open which part of the system is meant. Split so that this file does not
/// find itself.
fn add_vague_words(source: &Source, found: &mut Findings) {
    let words = [
        ["wh", "o"],
        ["who", "ever"],
        ["some", "body"],
        ["some", "one"],
        ["who", "se"],
        ["who", "m"],
        ["no", "body"],
        ["any", "body"],
        ["every", "body"],
    ];
    let words: Vec<String> = words.iter().map(|parts| parts.concat()).collect();
    let is_vague = |word: &str| words.iter().any(|vague| word.eq_ignore_ascii_case(vague));
    let comments = source.text.lines().filter_map(|line| line.split_once("//"));
    let in_words = |comment: &str| {
        let mut parts = comment.split(|c: char| !c.is_alphanumeric() && c != '_');
        parts.any(is_vague)
    };
    let count = comments.filter(|(_, comment)| in_words(comment)).count();
    if count > 0 {
        let path = source.path.display();
        found.insert(format!("comments with vague pronouns in {path}"), count);
    }
}

/// The declaration in a line without what stands before it, such as `pub(crate) const`.
fn declaration<'a>(line: &'a str, keyword: &str) -> Option<&'a str> {
    let line = line.trim_start();
    let (before, rest) = line.split_once(&format!("{keyword} "))?;
    let is_qualifier = |word: &str| {
        word.starts_with("pub") || ["const", "unsafe", "extern", "\"C\""].contains(&word)
    };
    before.split_whitespace().all(is_qualifier).then_some(rest)
}

fn name_of(declaration: &str) -> &str {
    let is_end = |c: char| !c.is_alphanumeric() && c != '_';
    declaration.split(is_end).next().unwrap_or_default()
}

fn add_functions(source: &Source, found: &mut Findings) {
    let lines: Vec<&str> = source.code().lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let Some(rest) = declaration(line, "fn") else {
            continue;
        };
        let indent = &line[..line.len() - line.trim_start().len()];
        let after = &lines[at..];
        let is_last = |end: &str| {
            end.starts_with(indent)
                && !end[indent.len()..].starts_with(' ')
                && end.ends_with(['{', '}', ';'])
        };
        // The signature ends with the first line that is not deeper and opens the body.
        let Some(open) = after.iter().position(|line| is_last(line)) else {
            continue;
        };
        let open = if after[open].ends_with('{') || open == 0 {
            open
        } else {
            continue;
        };
        let close = format!("{indent}}}");
        let body = after[open + 1..]
            .iter()
            .take_while(|line| **line != close)
            .count();
        let path = source.path.display();
        let name = name_of(rest);
        if after[open].ends_with('{') && body > FUNCTION_LINE_MAX {
            found.insert(format!("lines of {name} in {path}"), body);
        }
        let count = parameter_count(&after[..=open].join("\n"));
        if count > PARAMETER_MAX {
            found.insert(format!("parameters of {name} in {path}"), count);
        }
    }
}

/// Parameters in a signature, `self` not counted: names that a colon follows at the outermost
/// level.
fn parameter_count(signature: &str) -> usize {
    let Some((_, list)) = signature.split_once('(') else {
        return 0;
    };
    let (mut depth, mut count, mut before) = (0, 0, ' ');
    let mut characters = list.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '(' | '[' | '<' | '{' => depth += 1,
            ')' if depth == 0 => break,
            ')' | ']' | '}' => depth -= 1,
            '>' if before != '-' => depth -= 1,
            ':' if depth == 0 && characters.peek() != Some(&':') && before != ':' => count += 1,
            _ => {}
        }
        before = c;
    }
    count
}

fn add_structs(source: &Source, found: &mut Findings) {
    let lines: Vec<&str> = source.code().lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let Some(rest) = declaration(line, "struct").filter(|_| line.ends_with('{')) else {
            continue;
        };
        let indent = line.len() - line.trim_start().len();
        let close = format!("{}}}", " ".repeat(indent));
        let body = lines[at + 1..].iter().take_while(|line| **line != close);
        let is_field = |line: &&&str| {
            let depth = line.len() - line.trim_start().len();
            let name = line.trim_start().trim_start_matches("pub ");
            let name = name.split_once(") ").map_or(name, |(_, name)| name);
            depth == indent + 4 && name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        };
        let count = body.filter(is_field).count();
        if count > FIELD_MAX {
            let path = source.path.display();
            found.insert(format!("fields of {} in {path}", name_of(rest)), count);
        }
    }
}

/// Names that more than one public type has.
fn add_names(sources: &[Source], found: &mut Findings) {
    let mut count_of = BTreeMap::new();
    for source in sources {
        if !source.path.starts_with("src") || source.is_unit_tests() {
            continue;
        }
        for line in source
            .code_lines()
            .filter(|line| line.trim_start().starts_with("pub "))
        {
            let kinds = ["struct", "enum", "trait", "union", "type"];
            if let Some(rest) = kinds.iter().find_map(|kind| declaration(line, kind)) {
                *count_of.entry(name_of(rest).to_owned()).or_insert(0) += 1;
            }
        }
    }
    for (name, count) in count_of.into_iter().filter(|(_, count)| *count > 1) {
        found.insert(format!("public types named {name}"), count);
    }
}

/// Lines of a document that are too wide; tables and code cannot be wrapped.
pub(crate) fn wide_line_count(document: &str) -> usize {
    let mut is_code = false;
    let is_wide = |line: &&str| {
        is_code ^= line.starts_with("```");
        !is_code && !line.starts_with('|') && line.chars().count() > DOCUMENT_COLUMN_MAX
    };
    document.lines().filter(is_wide).count()
}

/// The measures on made-up files, each of which must find something.
#[test]
fn the_measures_can_fail() {
    let source = |path: &str, text: &str| Source {
        path: path.into(),
        text: text.to_owned(),
    };
    let body = "    x();\n".repeat(FUNCTION_LINE_MAX + 1);
    let fields = "    pub(crate) a: u8,\n".repeat(FIELD_MAX + 1);
    let parameters = "    a: u8,\n".repeat(PARAMETER_MAX + 1);
    let vague = ["// Some", "one.\n"].concat();
    for (path, text, found) in [
        (
            "src/a.rs",
            format!("pub fn f() {{\n{body}}}\n"),
            "lines of f in src/a.rs",
        ),
        (
            "src/a.rs",
            format!("struct S {{\n{fields}}}\n"),
            "fields of S in src/a.rs",
        ),
        (
            "src/a.rs",
            format!("fn f(\n{parameters}) {{\n}}\n"),
            "parameters of f in src/a.rs",
        ),
        (
            "tests/a.rs",
            format!("// {}\n", "x".repeat(98)),
            "lines over 100 columns in tests/a.rs",
        ),
        (
            "benches/a.rs",
            vague,
            "comments with vague pronouns in benches/a.rs",
        ),
        (
            "tests/a.rs",
            "x\n".repeat(TEST_FILE_LINE_MAX + 1),
            "lines of test file tests/a.rs",
        ),
    ] {
        let all = findings(&[source(path, &text)]);
        assert!(
            all.len() == 1 && all.contains_key(found),
            "{found}: {all:?}"
        );
    }
    let twice = ["src/a.rs", "src/b.rs"].map(|path| source(path, "pub enum E {}\n"));
    assert!(findings(&twice).contains_key("public types named E"));
    let short = format!(
        "fn f(a: u8, b: fn(u8) -> u8, c: &[u8]) -> u8 {{\n{}}}\n",
        &body[9..]
    );
    assert!(findings(&[source("src/a.rs", &short)]).is_empty());
    assert_eq!(wide_line_count(&"x".repeat(DOCUMENT_COLUMN_MAX + 1)), 1);
}
