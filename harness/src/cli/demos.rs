use std::path::PathBuf;

use clap::{Args, Subcommand};
use tasks::robot::{Demonstrations, Origin, SUITES, Suite, suite};

use super::options::positive;
use super::{CliError, EXIT_DONE, print};
use crate::device;
use crate::locate;
use crate::progress::Reporter;
use crate::registry::nearest;
use crate::simulators::Simulators;
use crate::simulators::demonstrate::{self, Wanted};

/// `pixio-eval demos`.
#[derive(Debug, Subcommand)]
pub enum DemosCommand {
    /// What demonstrations are there, by task
    List {
        /// Folder of a suite (default: $PIXIO_EVAL_DATA/NAME, else data/NAME); repeatable
        #[arg(long, value_name = "NAME=DIR", value_parser = super::options::named_folder)]
        data: Vec<(String, PathBuf)>,
    },
    /// Let a scripted expert demonstrate a task. Results on such demonstrations are not comparable with
    /// published ones, and say so
    Make(MakeArgs),
}

/// `pixio-eval demos make`.
#[derive(Args, Debug)]
pub struct MakeArgs {
    /// Tasks, for example metaworld/drawer-open
    #[arg(required = true, value_name = "SUITE/TASK")]
    pub tasks: Vec<String>,
    /// Demonstrations of each (default: as many as the published protocol trains on)
    #[arg(long, value_name = "N", value_parser = positive)]
    pub count: Option<usize>,
    /// Seed of the first episode
    #[arg(long, value_name = "N", default_value_t = 54321)]
    pub seed: u64,
    /// Steps of an episode (default: the task's horizon)
    #[arg(long, value_name = "N", value_parser = positive)]
    pub steps: Option<usize>,
    /// Simulator steps of an action (dmc only)
    #[arg(long, value_name = "N", default_value = "1", value_parser = positive)]
    pub repeat: usize,
    /// full, as the simulators render, or fast, without shadows, reflections and antialiasing; rollouts
    /// follow
    #[arg(long, value_name = "HOW", default_value = "full", value_parser = ["full", "fast"])]
    pub render: String,
    /// Folder of a suite (default: $PIXIO_EVAL_DATA/NAME, else data/NAME); repeatable
    #[arg(long, value_name = "NAME=DIR", value_parser = super::options::named_folder)]
    pub data: Vec<(String, PathBuf)>,
    /// Simulator processes (default: all cores)
    #[arg(long, value_name = "N", value_parser = positive)]
    pub workers: Option<usize>,
}

pub(super) fn demos(command: &DemosCommand, reporter: &Reporter) -> Result<u8, CliError> {
    match command {
        DemosCommand::List { data } => list(data),
        DemosCommand::Make(args) => make(args, reporter),
    }
}

fn list(data: &[(String, PathBuf)]) -> Result<u8, CliError> {
    for suite in SUITES {
        let root = locate::dataset(suite.name, data);
        for task in suite.tasks() {
            let found = match Demonstrations::open(suite, task, &root) {
                Ok(None) => "none".to_owned(),
                Ok(Some(found)) => match found.origin() {
                    Origin::Published => format!("{} published", found.len()),
                    Origin::Made(by) => {
                        format!(
                            "{} made by {}, mean score {:.1}",
                            found.len(),
                            by.generator,
                            by.mean_score
                        )
                    }
                },
                Err(error) => error.to_string(),
            };
            let task = format!("{}/{task}", suite.name);
            print(format!("{task:<34} {found}\n").as_bytes())?;
        }
    }
    Ok(EXIT_DONE)
}

fn make(args: &MakeArgs, reporter: &Reporter) -> Result<u8, CliError> {
    let tasks: Vec<(&Suite, &str)> =
        args.tasks.iter().map(|text| parse(text)).collect::<Result<_, _>>()?;
    let simulators = Simulators::find(&locate::cache(), reporter)?;
    for (suite, task) in tasks {
        let root = locate::dataset(suite.name, &args.data);
        let folder = demonstrate::make(
            &Wanted {
                suite,
                task,
                count: args.count,
                seed: args.seed,
                steps: args.steps,
                repeat: args.repeat,
                fast: args.render == "fast",
                workers: args.workers.unwrap_or_else(device::threads),
            },
            &root,
            &simulators,
            reporter,
        )?;
        print(format!("{}\n", folder.display()).as_bytes())?;
    }
    Ok(EXIT_DONE)
}

fn parse(text: &str) -> Result<(&'static Suite, &str), CliError> {
    let found = text.split_once('/').and_then(|(name, task)| {
        let suite = suite(name)?;
        suite.tasks().any(|known| known == task).then_some((suite, task))
    });
    found.ok_or_else(|| {
        let all: Vec<String> = SUITES
            .iter()
            .flat_map(|suite| suite.tasks().map(|task| format!("{}/{task}", suite.name)))
            .collect();
        let near = nearest(text, all.iter().map(String::as_str));
        CliError::Run(crate::run::RunError::Unknown {
            what: "task",
            name: text.to_owned(),
            known: all.join(", "),
            near,
        })
    })
}
