//! `secateur completions` and `secateur man`: what a shell and `man` know about the program.

use std::io::Write;

use clap::{Command, builder::PossibleValuesParser};
use clap_complete::generate;
use secateur_backends::BACKENDS;

use super::args::{CompletionsArgs, command};
use crate::{
    pruner::{Params, methods},
    task::TASKS,
};

/// Prints a script that completes commands, flags and names in a shell.
pub(super) fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    generate(args.shell, &mut with_names(), "secateur", &mut script);
    Ok(std::io::stdout().write_all(&script)?)
}

/// The command, whose names of methods, benchmarks and backends are listed.
fn with_names() -> Command {
    let methods: Vec<&'static str> = methods(Params::default()).iter().map(|method| method.name()).collect();
    let benchmarks: Vec<&'static str> = TASKS.iter().map(|task| task.name()).collect();
    let backends: Vec<&'static str> = BACKENDS.iter().map(|row| row.name).collect();
    command().mut_subcommands(|command| {
        command.mut_args(|arg| {
            let names = match arg.get_id().as_str() {
                "method" => &methods,
                "benchmark" | "benchmarks" => &benchmarks,
                "backend" => &backends,
                _ => return arg,
            };
            arg.value_parser(PossibleValuesParser::new(names.clone()))
        })
    })
}

/// Prints the manual page in troff: that of the program with all of its commands.
pub(super) fn man() -> anyhow::Result<()> {
    let mut page = Vec::new();
    let all = command();
    clap_mangen::Man::new(all.clone()).render(&mut page)?;
    for command in all.get_subcommands().filter(|command| command.get_name() != "help") {
        let name = format!("secateur {}", command.get_name());
        writeln!(page, ".SH {}", name.to_uppercase())?;
        let man = clap_mangen::Man::new(command.clone().bin_name(name));
        man.render_description_section(&mut page)?;
        man.render_options_section(&mut page)?;
    }
    Ok(std::io::stdout().write_all(&page)?)
}
