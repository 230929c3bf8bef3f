use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use results::{
    Listed, RunFilter, Status, Store, delete_run, diff_runs, export_runs, find_run, import_runs,
    show_run,
};

use super::watch::{self, WatchArgs};
use super::{CliError, EXIT_DONE, EXIT_FAILED, confirmed, print, print_json};
use crate::progress::Reporter;

/// `pixio-eval runs`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct RunsArgs {
    /// What to do (default: list)
    #[command(subcommand)]
    pub command: Option<RunsCommand>,
    #[command(flatten)]
    /// What to list.
    pub list: ListArgs,
}

/// Where runs are.
#[derive(Args, Clone, Debug)]
pub struct OutArgs {
    /// Folder of results; repeatable
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub out: Vec<PathBuf>,
}

/// `pixio-eval runs list`.
#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    #[command(flatten)]
    /// Where.
    pub out: OutArgs,
    /// Only these backbones, by their name in the table; repeatable
    #[arg(long, value_name = "NAME")]
    pub backbone: Vec<String>,
    /// Only these data sets
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub data: Vec<String>,
    /// Only these heads
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub head: Vec<String>,
    /// Only runs that are finished, unfinished, failed, newer-format or unreadable
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = ["finished", "unfinished", "failed", "newer-format", "unreadable"])]
    pub state: Vec<String>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// What can be done with runs. A run's ID is the end of its folder's name, or the beginning of that
/// where no other run begins so, or the folder.
#[derive(Debug, Subcommand)]
pub enum RunsCommand {
    /// List runs: finished, unfinished and failed
    List(ListArgs),
    /// One run in full: plan, host, metrics with their intervals
    Show {
        /// End of its folder's name, or a beginning of it; or the folder
        id: String,
        #[command(flatten)]
        /// Where.
        out: OutArgs,
        /// As JSON: record.json, or plan.json of an unfinished run
        #[arg(long)]
        json: bool,
    },
    /// What tells two runs apart: differing settings, versions, metrics
    Diff {
        /// First run
        a: String,
        /// Second run
        b: String,
        #[command(flatten)]
        /// Where.
        out: OutArgs,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Follow a sweep's workers, jobs and cells until they have ended
    Watch {
        #[command(flatten)]
        /// Which sweep.
        sweep: WatchArgs,
        /// Print how it is now, and end
        #[arg(long)]
        once: bool,
    },
    /// End a sweep's workers and jobs; what is done is kept
    Cancel(WatchArgs),
    /// Delete runs; never one that a process works on
    Delete {
        /// Runs
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
        #[command(flatten)]
        /// Where.
        out: OutArgs,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Write finished runs to one archive
    Export {
        /// Runs
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
        #[command(flatten)]
        /// Where.
        out: OutArgs,
        /// The archive: FILE.tar, or FILE.tar.gz
        #[arg(long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Take the runs of an archive in: all of them or none
    Import {
        /// The archive
        file: PathBuf,
        /// Folder for results
        #[arg(long, value_name = "DIR", default_value = "runs")]
        out: PathBuf,
        /// Refuse an archive that unpacks to more
        #[arg(long, value_name = "GB", default_value = "16")]
        max_gb: u32,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn runs(args: RunsArgs, reporter: &Reporter) -> Result<u8, CliError> {
    match args.command.unwrap_or(RunsCommand::List(args.list)) {
        RunsCommand::List(args) => list(args),
        RunsCommand::Show { id, out, json } => {
            let found = Found::at(&out)?;
            let run = found.run(&id)?;
            match (json, &run.status) {
                (true, Status::Finished(record)) => print_json(record)?,
                (true, Status::Unfinished(plan) | Status::Failed(plan, _)) => print_json(plan)?,
                _ => print(show_run(run).as_bytes())?,
            }
            Ok(EXIT_DONE)
        }
        RunsCommand::Diff { a, b, out, json } => {
            let found = Found::at(&out)?;
            let diff = diff_runs(found.run(&a)?, found.run(&b)?);
            match json {
                true => print_json(&diff)?,
                false => print(diff.text().as_bytes())?,
            }
            Ok(EXIT_DONE)
        }
        RunsCommand::Watch { sweep, once } => watch::watch(&sweep, once, reporter),
        RunsCommand::Cancel(sweep) => watch::cancel(&sweep, reporter),
        RunsCommand::Delete { ids, out, yes } => delete(&ids, &out, yes, reporter),
        RunsCommand::Export { ids, out, output } => {
            let found = Found::at(&out)?;
            let runs = found.runs(&ids)?;
            let bytes = export_runs(&runs, &output)?;
            reporter.say(format!("{} runs, {bytes} bytes: {}", runs.len(), output.display()));
            Ok(EXIT_DONE)
        }
        RunsCommand::Import { file, out, max_gb, json } => {
            let limit = u64::from(max_gb) * 1_000_000_000;
            let imported = import_runs(&file, &Store::open(&out)?, limit)?;
            match json {
                true => print_json(&imported)?,
                false => {
                    let lines =
                        imported.added.iter().map(|folder| format!("{}\n", folder.display()));
                    print(lines.collect::<String>().as_bytes())?;
                }
            }
            let (added, kept) = (imported.added.len(), imported.kept.len());
            let there =
                if kept > 0 { format!(", {kept} were there already") } else { String::new() };
            reporter.say(format!("{added} runs imported{there}"));
            Ok(EXIT_DONE)
        }
    }
}

fn list(args: ListArgs) -> Result<u8, CliError> {
    let filter = RunFilter {
        backbones: args.backbone,
        datasets: args.data,
        heads: args.head,
        states: args.state,
    };
    let mut listed = Store::list_all(&args.out.out)?;
    let all = listed.len();
    listed.retain(|run| filter.passes(run));
    if args.json {
        let json = results::runs_json(&listed)
            .map_err(|e| CliError::Output { what: "JSON".to_owned(), why: e.to_string() })?;
        print(format!("{json}\n").as_bytes())?;
    } else if listed.is_empty() && all > 0 {
        print(format!("None of {all} runs passes the filters.\n").as_bytes())?;
    } else {
        print(results::runs_table(&listed).as_bytes())?;
    }
    Ok(EXIT_DONE)
}

fn delete(ids: &[String], out: &OutArgs, yes: bool, reporter: &Reporter) -> Result<u8, CliError> {
    let found = Found::at(out)?;
    let runs = found.runs(ids)?;
    if !yes {
        if !std::io::stdin().is_terminal() {
            return Err(CliError::NeedsYes);
        }
        let mut err = std::io::stderr().lock();
        for run in &runs {
            let _ = writeln!(err, "{}", run.folder.display());
        }
        drop(err);
        if !confirmed(&format!("delete {} of them?", runs.len())) {
            reporter.say("nothing was deleted");
            return Ok(EXIT_DONE);
        }
    }
    let mut status = EXIT_DONE;
    for run in runs {
        match delete_run(&run.folder) {
            Ok(()) => print(format!("{}\n", run.folder.display()).as_bytes())?,
            Err(error) => {
                eprintln!("error: {error}");
                status = EXIT_FAILED;
            }
        }
    }
    Ok(status)
}

/// Listed runs, and where they were looked for.
struct Found {
    listed: Vec<Listed>,
    outs: String,
}

impl Found {
    fn at(out: &OutArgs) -> Result<Self, CliError> {
        let outs: Vec<String> = out.out.iter().map(|out| out.display().to_string()).collect();
        Ok(Self { listed: Store::list_all(&out.out)?, outs: outs.join(", ") })
    }

    fn run(&self, id: &str) -> Result<&Listed, CliError> {
        Ok(find_run(&self.listed, id, &self.outs)?)
    }

    /// Each run once.
    fn runs(&self, ids: &[String]) -> Result<Vec<&Listed>, CliError> {
        let mut runs: Vec<&Listed> = Vec::new();
        for id in ids {
            let run = self.run(id)?;
            if !runs.iter().any(|known| known.folder == run.folder) {
                runs.push(run);
            }
        }
        Ok(runs)
    }
}
