//! `completions`: scripts for shells. A completed word is a command, an option of the command, or a
//! file where one is wanted.

use super::failure::CommandError;
use super::template::Part::{OfOperand, OfServer, OfSwitches, OfValues, OfWords, Once};
use super::template::{Escapes, Part, add_commands};
use super::text::push;

/// In single quotes of a shell.
const QUOTED: Escapes = &[('\'', "'\\''")];

/// In single quotes, where zsh reads punctuation as its own.
const QUOTED_FOR_ZSH: Escapes = &[('\'', "'\\''"), ('[', "\\["), (']', "\\]"), (':', "\\:")];

const BASH_BEGIN: &str = r#"_db_node() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}
  local command=serve words= files= valued= filed=
  COMPREPLY=()
  if [ "$COMP_CWORD" -gt 1 ]; then
    case ${COMP_WORDS[1]} in -*) ;; *) command=${COMP_WORDS[1]} ;; esac
  fi
  case $command in
"#;
const BASH_COMMAND: &[Part] = &[
    Once("    @c) words='--help "),
    OfWords("@w "),
    OfSwitches("--@f "),
    OfValues(false, "--@f "),
    OfValues(true, "--@f "),
    Once("' valued='"),
    OfValues(false, "--@f "),
    Once("' filed='"),
    OfValues(true, "--@f "),
    Once("' files="),
    OfOperand(true, "1"),
    Once(" ;;\n"),
];
const BASH_NAMES: &[Part] = &[Once(" @c")];
const BASH_FIRST: &str = r#"  esac
  if [ "$COMP_CWORD" -eq 1 ]; then words="$words"#;
const BASH_END: &str = r#""; fi
  case " $filed " in *" $previous "*) words= files=1 ;; esac
  case " $valued " in *" $previous "*) return ;; esac
  local IFS=$' \t\n'
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  if [ -n "$files" ]; then IFS=$'\n'; COMPREPLY+=($(compgen -f -- "$current")); fi
}
complete -o filenames -F _db_node db-node
"#;

const ZSH_BEGIN: &str = "#compdef db-node
_db_node() {
  local -a commands=(
";
const ZSH_NAMES: &[Part] = &[Once("    '@c:@m'\n")];
const ZSH_FIRST: &str = "  )
  local command=serve
  if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then
    _describe -t commands command commands
    return
  fi
  if [[ $words[2] != -* ]]; then
    command=$words[2]
    shift words
    (( CURRENT-- ))
  fi
  case $command in
";
const ZSH_COMMAND: &[Part] = &[
    Once("    @c) _arguments '--help[tell about it]'"),
    OfSwitches(" \\\n      '--@f[@t]'"),
    OfValues(false, " \\\n      '--@f=[@t]:@v: '"),
    OfValues(true, " \\\n      '--@f=[@t]:@v:_files'"),
    OfWords(" \\\n      '*: :(@w)'"),
    OfOperand(false, " \\\n      '*:@o: '"),
    OfOperand(true, " \\\n      '*:@o:_files'"),
    Once(" ;;\n"),
];
const ZSH_END: &str = "  esac
}
if [ \"$funcstack[1]\" = _db_node ]; then _db_node \"$@\"; else compdef _db_node db-node; fi
";

const FISH_NAMES: &[Part] = &[Once(
    "complete -c db-node -n __fish_use_subcommand -a @c -d '@m'\n",
)];
/// For each command a condition, and what is completed where it holds.
const FISH_COMMAND: &[Part] = &[
    OfServer(true, "set -l at 'not __fish_seen_subcommand_from @w'\n"),
    OfServer(false, "set -l at '__fish_seen_subcommand_from @c'\n"),
    OfSwitches("complete -c db-node -n $at -l @f -d '@t'\n"),
    OfValues(false, "complete -c db-node -n $at -l @f -x -d '@t'\n"),
    OfValues(true, "complete -c db-node -n $at -l @f -r -F -d '@t'\n"),
    OfWords("complete -c db-node -n $at -a '@w'\n"),
    OfOperand(true, "complete -c db-node -n $at -F\n"),
];

/// Appends the script for a shell.
pub(crate) fn add_script(shell: &str, out: &mut String) -> Result<(), CommandError> {
    match shell {
        "bash" => {
            push(out, BASH_BEGIN);
            add_commands(out, BASH_COMMAND, QUOTED);
            push(out, BASH_FIRST);
            add_commands(out, BASH_NAMES, QUOTED);
            push(out, BASH_END);
        }
        "zsh" => {
            push(out, ZSH_BEGIN);
            add_commands(out, ZSH_NAMES, QUOTED_FOR_ZSH);
            push(out, ZSH_FIRST);
            add_commands(out, ZSH_COMMAND, QUOTED_FOR_ZSH);
            push(out, ZSH_END);
        }
        "fish" => {
            push(out, "complete -c db-node -f\n");
            add_commands(out, FISH_NAMES, QUOTED);
            add_commands(out, FISH_COMMAND, QUOTED);
        }
        _ => {
            return Err(CommandError::usage(format_args!(
                "give bash, zsh or fish, not {shell}"
            )));
        }
    }
    Ok(())
}
