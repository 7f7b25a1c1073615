//! Flags from environment variables and from a file: a flag on the command line counts before both.

use std::{ffi::OsString, path::Path};

use clap::{ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches, parser::ValueSource};
use toml::{Table, Value};

use super::Args;
use crate::{
    cli::{Usage, version::version},
    files::read_text,
};

/// The beginning of every variable's name.
const PREFIX: &str = "SECATEUR_";

/// A reason why the arguments cannot be read.
pub enum Unread {
    /// The message of clap, which also prints help and the version.
    Clap(clap::Error),
    /// A sentence about the file with flags.
    File(anyhow::Error),
}

/// Reads the arguments of the program.
///
/// # Errors
/// When they are wrong.
pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Args, Unread> {
    let arguments = with_file(arguments.collect()).map_err(Unread::File)?;
    let matches = command().try_get_matches_from(arguments).map_err(Unread::Clap)?;
    note_variables(&matches);
    Args::from_arg_matches(&matches).map_err(|error| Unread::Clap(error.format(&mut command())))
}

/// The command with its version, and a variable for every flag.
pub(in crate::cli) fn command() -> Command {
    let command = Args::command().version(leak(version())).long_version(leak(long_version()));
    command.mut_subcommands(|command| {
        command.mut_args(|arg| {
            let Some(long) = arg.get_long().map(str::to_owned) else { return arg };
            if arg.is_global_set() || long == "config" || arg.get_env().is_some() {
                return arg;
            }
            arg.env(leak(variable(&long))).hide_env(true)
        })
    })
}

/// The name of a flag's variable: `--max-new-tokens` is `SECATEUR_MAX_NEW_TOKENS`.
fn variable(long: &str) -> String {
    format!("{PREFIX}{}", long.to_uppercase().replace('-', "_"))
}

/// A text that lives as long as the program, as clap wants names.
fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// The version with what was compiled in and the instructions that kernels use here.
fn long_version() -> String {
    let compiled = secateur_backends::BACKENDS.iter().filter(|row| row.compiled).map(|row| row.name);
    let mut text = format!("{}\nbackends: {}", version(), compiled.collect::<Vec<_>>().join(", "));
    for row in secateur_backends::BACKENDS.iter().filter(|row| row.compiled) {
        if let Some(kernels) = secateur_backends::kernels_of(row.name) {
            text += &format!("\n{} on this processor: {}", row.name, kernels.instructions);
        }
    }
    text
}

/// Names the flags that come from variables: one that was set long ago is easily forgotten.
fn note_variables(matches: &ArgMatches) {
    let Some((_, matches)) = matches.subcommand() else { return };
    let from_variable = |id: &&clap::Id| matches.value_source(id.as_str()) == Some(ValueSource::EnvVariable);
    let names: Vec<String> =
        matches.ids().filter(from_variable).map(|id| format!("--{}", id.as_str().replace('_', "-"))).collect();
    if !names.is_empty() {
        say!("note: from the environment ({PREFIX}…): {}", names.join(", "));
    }
}

/// The arguments, with those of the file that `--config` names in its place. Flags that are given on the command line are left out of the file.
fn with_file(mut arguments: Vec<OsString>) -> anyhow::Result<Vec<OsString>> {
    let is_config = |argument: &OsString| argument == "--config" || argument.to_string_lossy().starts_with("--config=");
    let Some(at) = arguments.iter().position(is_config) else { return Ok(arguments) };
    let argument = arguments.remove(at).to_string_lossy().into_owned();
    let path: OsString = match argument.split_once('=') {
        Some((_, path)) => path.into(),
        None if at < arguments.len() => arguments.remove(at),
        None => usage!("--config names a file with flags"),
    };
    let path = Path::new(&path);
    let text = read_text(path, "the file with flags cannot be read")?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        let place = error.span().map_or(0, |span| text[..span.start].lines().count().max(1));
        Usage(format!("{}: line {place} is no `flag = value` of TOML", path.display()))
    })?;
    let name = arguments.get(1).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let given = |long: &str| {
        let flag = format!("--{long}");
        let is_it = |argument: &OsString| {
            let text = argument.to_string_lossy();
            *text == flag || text.starts_with(&format!("{flag}="))
        };
        arguments.iter().any(is_it)
    };
    let all = command();
    let Some(subcommand) = all.find_subcommand(&name) else { return Ok(arguments) };
    let mut added: Vec<OsString> = Vec::new();
    for (key, value) in &table {
        let long = key.replace('_', "-");
        let known = subcommand.get_arguments().find(|arg| arg.get_long() == Some(&long));
        let positional = subcommand.get_positionals().find(|arg| arg.get_id() == key.as_str());
        match (known, positional) {
            (Some(_), _) if given(&long) => {}
            (Some(arg), _) if matches!(arg.get_action(), ArgAction::SetTrue) => match value {
                Value::Boolean(true) => added.push(format!("--{long}").into()),
                Value::Boolean(false) => {}
                _ => usage!("{}: {key} is true or false", path.display()),
            },
            (Some(_), _) => added.push(format!("--{long}={}", plain(value, key, path)?.join(",")).into()),
            // Positional values, such as the benchmarks, may stand in the file, too.
            (None, Some(_)) => added.extend(plain(value, key, path)?.into_iter().map(OsString::from)),
            (None, None) => {
                usage!("{}: {key} is no flag of `secateur {name}`; see `secateur help {name}`", path.display())
            }
        }
    }
    arguments.splice(2..2, added);
    Ok(arguments)
}

/// A value, or the values of a list, as they would be typed.
fn plain(value: &Value, key: &str, path: &Path) -> anyhow::Result<Vec<String>> {
    Ok(match value {
        Value::String(text) => vec![text.clone()],
        Value::Integer(number) => vec![number.to_string()],
        Value::Float(number) => vec![number.to_string()],
        Value::Boolean(truth) => vec![truth.to_string()],
        Value::Array(values) => {
            values.iter().map(|value| plain(value, key, path)).collect::<anyhow::Result<Vec<_>>>()?.concat()
        }
        Value::Table(_) | Value::Datetime(_) => {
            usage!("{}: {key} is a text, a number, true or false, or a list of these", path.display())
        }
    })
}
