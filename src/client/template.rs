//! Texts made of the tables of commands and options: what is said once of each, with blanks.
//!
//! A blank is `@` and a letter. Of a command: `c` its name, `o` its operands, `m` its meaning, `d`
//! its details, `u` its options and operands, `w` the words that its operand may be. Of an option:
//! `f` its flag, `v` what stands for its value, `t` its meaning, `b` its default. What fills `m`,
//! `d`, `t`, `u` and `b` is escaped.

use crate::config::OptionSpec;

use super::commands::{COMMANDS, CommandSpec, Verb};
use super::text::{add_escaped, push, put};

/// A part of what is said of each command.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    /// Said once.
    Once(&'static str),
    /// Said if it is the server, or if it is not.
    OfServer(bool, &'static str),
    /// Said if there are words that its operand may be.
    OfWords(&'static str),
    /// Said if its operand is a file, or if there is another without known words.
    OfOperand(bool, &'static str),
    /// Said of each option that has no value.
    OfSwitches(&'static str),
    /// Said of each option that has a value, which is a file or is not.
    OfValues(bool, &'static str),
}

/// Texts in place of characters.
pub(crate) type Escapes = &'static [(char, &'static str)];

/// Appends what is said of each command.
#[inline(never)]
pub(crate) fn add_commands(out: &mut String, parts: &[Part], escapes: Escapes) {
    for command in COMMANDS {
        for part in parts {
            add_part(out, *part, command, escapes);
        }
    }
}

#[inline(never)]
fn add_part(out: &mut String, part: Part, command: &'static CommandSpec, escapes: Escapes) {
    let is_server = command.verb == Verb::Serve;
    let has_words = matches!(command.verb, Verb::Help | Verb::Completions);
    let has_operand = !has_words && !command.operands.is_empty();
    let (is_said, text) = match part {
        Part::Once(text) => (true, text),
        Part::OfServer(is_wanted, text) => (is_server == is_wanted, text),
        Part::OfWords(text) => (has_words, text),
        Part::OfOperand(is_wanted, text) => {
            (has_operand && is_file(command.operands) == is_wanted, text)
        }
        Part::OfSwitches(text) | Part::OfValues(_, text) => {
            for option in command.options() {
                let is_said = match part {
                    Part::OfValues(is_wanted, _) => {
                        !option.value.is_empty() && is_file(option.value) == is_wanted
                    }
                    _ => option.value.is_empty(),
                };
                if is_said {
                    fill(out, text, command, Some(option), escapes);
                }
            }
            return;
        }
    };
    if is_said {
        fill(out, text, command, None, escapes);
    }
}

/// Appends a text with its blanks filled.
#[inline(never)]
pub(crate) fn fill(
    out: &mut String,
    text: &str,
    command: &'static CommandSpec,
    option: Option<&'static OptionSpec>,
    escapes: Escapes,
) {
    let mut pieces = text.split('@');
    push(out, pieces.next().unwrap_or_default());
    for piece in pieces {
        let (blank, rest) = piece.split_at_checked(1).unwrap_or_default();
        let of_option = |field: fn(&OptionSpec) -> &'static str| option.map_or("", field);
        let mut synopsis = String::new();
        let (filling, is_escaped) = match blank {
            "c" => (command.name, false),
            "o" => (command.operands, false),
            "m" => (command.meaning, true),
            "d" => (command.details, true),
            "f" => (of_option(|option| option.flag), false),
            "v" => (of_option(|option| option.value), false),
            "t" => (of_option(|option| option.meaning), true),
            "b" => (of_option(|option| option.default), true),
            "u" => {
                command.add_synopsis(&mut synopsis);
                (&*synopsis, true)
            }
            _ => {
                add_words(out, command);
                ("", false)
            }
        };
        add_escaped(out, filling, if is_escaped { escapes } else { &[] });
        push(out, rest);
    }
}

/// Appends the words that an operand may be; those that are not the server's for a server.
fn add_words(out: &mut String, command: &CommandSpec) {
    if command.verb == Verb::Completions {
        return add_escaped(out, command.operands, &[('|', " ")]);
    }
    for other in COMMANDS.iter().filter(|other| other.verb != Verb::Serve) {
        put(out, format_args!("{} ", other.name));
    }
    if command.verb == Verb::Help {
        push(out, "serve");
    }
}

/// Whether an operand or the value of an option names a file.
fn is_file(value: &str) -> bool {
    value == "FILE" || value == "DIR"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_are_filled() {
        let mut out = String::new();
        let command = CommandSpec::named("snapshot").expect("a command");
        let option = command.options().next();
        fill(
            &mut out,
            "a @c @o --@f @v|@u",
            command,
            option,
            &[('[', "<")],
        );
        assert_eq!(out, "a snapshot FILE --url URL|snapshot <OPTIONS] FILE");
    }
}
