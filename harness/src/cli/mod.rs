//! The command line: flags in, exit status out. Data goes to stdout, everything else to stderr.

pub mod args;
mod backbones;
mod bench;
mod cache;
mod card;
mod check;
mod compare;
mod data;
mod data_card;
mod demos;
mod doctor;
mod error;
mod features;
mod hints;
pub mod options;
mod plot;
mod prepare;
mod report;
mod run;
mod runs;
mod shown;
mod simulators;
mod sweep;
mod table;
mod verify;
mod watch;

use std::io::{BufRead, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use results::write_whole;

use args::{Cli, Command};
pub use error::CliError;

use crate::interrupt;
use crate::progress::{Reporter, Verbosity};

/// Done.
const EXIT_DONE: u8 = 0;
/// A run failed; the others ran and are recorded.
const EXIT_FAILED: u8 = 1;
/// Wrong usage or configuration: nothing was run.
const EXIT_USAGE: u8 = 2;

/// Parses the command line, does what it says, and returns the exit status of the README's table.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let verbosity = match (cli.quiet, cli.verbose) {
        (true, _) => Verbosity::Quiet,
        (_, true) => Verbosity::Verbose,
        _ => Verbosity::Normal,
    };
    let reporter = Reporter::new(verbosity);
    if let Err(error) = interrupt::install() {
        reporter.warn(format!("Ctrl-C ends this command at once: {error}"));
    }
    let done = match cli.command {
        Command::All(args) => run::all(args, &reporter),
        Command::Run(args) => run::run(args, &reporter),
        Command::Sweep(args) => sweep::sweep(&args, &reporter),
        Command::Work(args) => sweep::work_on(&args, reporter),
        Command::Table(args) => table::table(&args),
        Command::Compare(args) => compare::compare(&args),
        Command::Runs(args) => runs::runs(args, &reporter),
        Command::Card(args) => card::card(&args, &reporter),
        Command::Plot(args) => plot::plot(&args),
        Command::Report(args) => report::report(&args),
        Command::Data(command) => data::data(command, &reporter),
        Command::Backbones(command) => backbones::backbones(command, &reporter),
        Command::Cache(command) => cache::cache(command, &reporter),
        Command::Features(args) => features::features(&args, &reporter),
        Command::Simulators(command) => simulators::simulators(&command, &reporter),
        Command::Demos(command) => demos::demos(&command, &reporter),
        Command::Bench(args) => bench::bench(&args, &reporter),
        Command::Doctor(args) => doctor::doctor(&args, &reporter),
    };
    match done {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("error: {error}");
            for hint in error.hints() {
                eprintln!("hint: {hint}");
            }
            ExitCode::from(error.status())
        }
    }
}

/// Writes data to stdout. A reader that has gone away (`| head`) is not an error.
fn print(bytes: &[u8]) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(CliError::Output { what: "stdout".to_owned(), why: error.to_string() })
        }
        _ => Ok(()),
    }
}

/// Asks whoever sits at the terminal; anything but a yes is a no.
fn confirmed(question: &str) -> bool {
    let _ = write!(std::io::stderr(), "{question} [y/N] ");
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

/// Writes a whole file, or none.
fn write_file(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let what = path.display().to_string();
    write_whole(path, bytes).map_err(|e| CliError::Output { what, why: e.to_string() })
}

/// Prints a value as JSON.
fn print_json(value: &impl serde::Serialize) -> Result<(), CliError> {
    let json = serde_json::to_string_pretty(value)
        .map_err(|e| CliError::Output { what: "JSON".to_owned(), why: e.to_string() })?;
    print(format!("{json}\n").as_bytes())
}
