use std::time::Instant;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::Value;
use tasks::robot::Suite;

use super::{CliError, EXIT_DONE, EXIT_FAILED, print, print_json};
use crate::locate;
use crate::progress::Reporter;
use crate::simulators::{Ask, Environment, Pool, SimulatorError, Simulators};

/// `pixio-eval simulators`.
#[derive(Debug, Subcommand)]
pub enum SimulatorsCommand {
    /// Make a Python environment with the simulators, in the cache folder
    Install {
        /// The Python to make it with: 3.11 has every suite, 3.12 and 3.13 all but TriFinger
        #[arg(long, value_name = "PATH", default_value = "python3")]
        python: String,
    },
    /// Render one frame and take one step of every task (exit 1 if any fails)
    Check(CheckArgs),
}

/// `pixio-eval simulators check`.
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Serialize)]
struct Checked {
    task: String,
    ok: bool,
    found: String,
}

pub(super) fn simulators(command: &SimulatorsCommand, reporter: &Reporter) -> Result<u8, CliError> {
    let cache = locate::cache();
    match command {
        SimulatorsCommand::Install { python } => {
            let folder = Simulators::install(&cache, python, reporter)?;
            print(format!("{}\n", folder.display()).as_bytes())?;
            Ok(EXIT_DONE)
        }
        SimulatorsCommand::Check(args) => check(args, &Simulators::find(&cache, reporter)?),
    }
}

fn check(args: &CheckArgs, simulators: &Simulators<'_>) -> Result<u8, CliError> {
    let mut checked = Vec::new();
    for suite in tasks::robot::SUITES {
        for task in suite.tasks() {
            let found = one(simulators, suite, task);
            if matches!(found, Err(SimulatorError::Interrupted)) {
                return Err(CliError::Interrupted);
            }
            let task = format!("{}/{task}", suite.name);
            let (ok, found) = match found {
                Ok(found) => (true, found),
                Err(error) => (false, error.to_string()),
            };
            if !args.json {
                let mark = if ok { "ok" } else { "--" };
                print(format!("{mark}  {task:<34} {found}\n").as_bytes())?;
            }
            checked.push(Checked { task, ok, found });
        }
    }
    if args.json {
        print_json(&checked)?;
    }
    Ok(if checked.iter().all(|one| one.ok) { EXIT_DONE } else { EXIT_FAILED })
}

/// One reset and one step with images, in a process of its own.
pub(super) fn one(
    simulators: &Simulators<'_>,
    suite: &Suite,
    task: &str,
) -> Result<String, SimulatorError> {
    let began = Instant::now();
    let mut pool = Pool::start(simulators, 1, 1, true)?;
    let render = suite.render();
    let (suite, task) = (suite.name.to_owned(), task.to_owned());
    let space = pool.open(&[0], &Environment { suite, task, render, repeat: 1 })?;
    pool.step(vec![(0, Ask::Reset { seed: 0, start: Value::Null })])?;
    let opened = began.elapsed();
    let began = Instant::now();
    let seen = pool.step(vec![(0, Ask::Step(vec![0.0; space.actions]))])?;
    let image = seen.first().map_or(&[][..], |(_, seen)| &seen.image);
    let mean = image.iter().map(|&x| f64::from(x)).sum::<f64>() / image.len().max(1) as f64;
    let [height, width, _] = space.image;
    Ok(format!(
        "{} actions, {height}x{width}, mean pixel {mean:.1}; opened in {:.1} s, a step with image {:.0} ms",
        space.actions,
        opened.as_secs_f64(),
        1e3 * began.elapsed().as_secs_f64(),
    ))
}
