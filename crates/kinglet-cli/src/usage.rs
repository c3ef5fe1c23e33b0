//! What was typed: parsed, or refused in one sentence with the help to read (exit 1, as `kn` has no other code).

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};

use crate::{Arguments, Command};

/// Parses the program's arguments; prints help and refusals itself and says how to exit.
pub fn parse() -> Result<Arguments, ExitCode> {
    interpret(std::env::args_os()).map_err(|refusal| match refusal {
        Exit::Text(text) => {
            // Help that nobody reads any more is no failure.
            let _ = std::io::Write::write_all(&mut anstream::stdout(), text.as_bytes());
            ExitCode::SUCCESS
        }
        Exit::Error(text) => {
            anstream::eprintln!("Error: {text}");
            ExitCode::FAILURE
        }
    })
}

#[derive(Debug)]
enum Exit {
    /// Help or version was asked for.
    Text(String),
    Error(String),
}

fn interpret(
    words: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<Arguments, Exit> {
    let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
    if words.len() <= 1 {
        return Err(Exit::Text(
            Arguments::command().render_help().ansi().to_string(),
        ));
    }
    let parsed = Arguments::command()
        .try_get_matches_from(&words)
        .and_then(|matches| {
            let mut arguments = Arguments::from_arg_matches(&matches)?;
            note_given(&mut arguments, &matches);
            Ok(arguments)
        });
    parsed.map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            Exit::Text(error.render().ansi().to_string())
        }
        _ => Exit::Error(explain(&error, &words)),
    })
}

/// Remembers which flags of `up` were typed or set in the environment.
fn note_given(arguments: &mut Arguments, matches: &ArgMatches) {
    if let (Command::Up(up), Some(("up", matches))) = (&mut arguments.command, matches.subcommand())
    {
        let given = matches.ids().map(|id| id.as_str()).filter(|id| {
            // Groups have ids as well, but no source.
            matches!(
                matches
                    .try_contains_id(id)
                    .ok()
                    .and_then(|_| matches.value_source(id)),
                Some(ValueSource::CommandLine | ValueSource::EnvVariable)
            )
        });
        up.given = given.map(|id| id.replace('_', "-")).collect();
    }
}

fn explain(error: &clap::Error, words: &[OsString]) -> String {
    let (path, group) = command_path(words);
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            | ErrorKind::MissingSubcommand
            | ErrorKind::InvalidSubcommand
    ) && let Some(known) = group
    {
        let said = match error.get(ContextKind::InvalidSubcommand) {
            Some(ContextValue::String(word)) => format!("unknown sub-command '{word}'"),
            _ => "no sub-command given".to_owned(),
        };
        let near = match error.get(ContextKind::SuggestedSubcommand) {
            Some(ContextValue::Strings(near)) if !near.is_empty() => {
                format!(" Did you mean '{}'?", near.join("' or '"))
            }
            _ => String::new(),
        };
        return format!(
            "{said} for '{path}'. Available sub-commands: {}.{near}\nRun '{path} --help' for usage",
            known.join(", ")
        );
    }
    let text = error.render().to_string();
    // The paragraphs before the usage: what is wrong, and a tip where there is one.
    let paragraphs = text.split("\n\n").take_while(|paragraph| {
        !paragraph.starts_with("Usage:") && !paragraph.starts_with("For more information")
    });
    let said = paragraphs
        .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join("; ");
    let said = said.trim_start_matches("error: ").trim_end_matches(';');
    format!("{said} for '{path}'\nRun '{path} --help' for usage")
}

/// The command that the words lead to, and its sub-commands where it is a group.
fn command_path(words: &[OsString]) -> (String, Option<Vec<String>>) {
    let mut command = Arguments::command();
    let mut path = command.get_name().to_owned();
    for word in words.iter().skip(1) {
        let Some(next) = word
            .to_str()
            .and_then(|word| command.find_subcommand(word))
            .cloned()
        else {
            break;
        };
        path = format!("{path} {}", next.get_name());
        command = next;
    }
    let known: Vec<String> = command
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .map(|command| command.get_name().to_owned())
        .collect();
    (path, (!known.is_empty()).then_some(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(line: &str) -> String {
        match interpret(line.split(' ').map(str::to_owned)) {
            Err(Exit::Error(text)) => text,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn refusals_are_one_sentence_and_a_hint() {
        for (line, wanted) in [
            (
                "kinglet image",
                "no sub-command given for 'kinglet image'. Available sub-commands: ls, pull, import, rm.\nRun 'kinglet image --help' for usage",
            ),
            (
                "kinglet image lss",
                "unknown sub-command 'lss' for 'kinglet image'. Available sub-commands: ls, pull, import, rm. Did you mean 'ls'?\nRun 'kinglet image --help' for usage",
            ),
            (
                "kinglet up --api-port x",
                "invalid value 'x' for '--api-port <N>': invalid digit found in string for 'kinglet up'\nRun 'kinglet up --help' for usage",
            ),
            (
                "kinglet apply",
                "the following required arguments were not provided: --filename <FILE> for 'kinglet apply'\nRun 'kinglet apply --help' for usage",
            ),
            (
                "kinglet wait ksvc/a --timeout soon",
                "invalid value 'soon' for '--timeout <TIME>': \"soon\" is no duration; write for example 30s or 5m for 'kinglet wait'\nRun 'kinglet wait --help' for usage",
            ),
        ] {
            assert_eq!(error(line), wanted);
        }
        let unknown = error("kinglet get ksvc --wat");
        assert!(
            unknown.starts_with("unexpected argument '--wat' found")
                && unknown.contains("Run 'kinglet get --help' for usage"),
            "{unknown}"
        );
        assert!(error("kinglet stauts").contains("Did you mean 'status'"));
    }

    #[test]
    fn typed_flags_are_known_apart_from_defaults() {
        let given = |line: &str| match interpret(line.split(' ').map(str::to_owned)) {
            Ok(Arguments {
                command: Command::Up(up),
            }) => up.given,
            other => panic!("{line}: {other:?}"),
        };
        assert!(
            given("kinglet up")
                .iter()
                .all(|flag| flag == "log" || flag == "data")
        );
        let typed = given("kinglet up --detach --api-port 6443 --domain a.b");
        for flag in ["api-port", "domain"] {
            assert!(typed.iter().any(|one| one == flag), "{typed:?}");
        }
        assert!(!typed.iter().any(|one| one == "http-port"), "{typed:?}");
    }

    #[test]
    fn help_is_not_an_error() {
        for line in [
            "kinglet",
            "kinglet --help",
            "kinglet up --help",
            "kinglet image pull -h",
            "kinglet --version",
        ] {
            assert!(
                matches!(
                    interpret(line.split(' ').map(str::to_owned)),
                    Err(Exit::Text(_))
                ),
                "{line}"
            );
        }
    }

    /// `cargo test -p kinglet-cli help_reads -- --nocapture` shows all of it.
    #[test]
    fn help_reads_well() {
        fn each(command: &mut clap::Command, path: &str) {
            let help = command.render_help().to_string();
            eprintln!("$ {path} --help\n{help}\n");
            for argument in command
                .get_arguments()
                .filter(|argument| !argument.is_hide_set() && argument.get_id() != "help")
            {
                let text = argument
                    .get_help()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                assert!(
                    !text.is_empty() && !text.ends_with('.'),
                    "{path} {}: {text:?}",
                    argument.get_id()
                );
            }
            let about = command
                .get_about()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(
                !about.is_empty() && !about.ends_with('.'),
                "{path}: {about:?}"
            );
            for sub in command
                .get_subcommands_mut()
                .filter(|sub| !sub.is_hide_set())
            {
                let path = format!("{path} {}", sub.get_name());
                each(sub, &path);
            }
        }
        let mut command = Arguments::command().term_width(100);
        command.build();
        each(&mut command, "kinglet");
    }
}
