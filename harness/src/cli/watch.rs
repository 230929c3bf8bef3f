//! `pixio-eval runs watch` and `cancel`: a sweep's workers, wherever they are.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use results::Store;

use super::{CliError, EXIT_DONE, EXIT_FAILED, print, write_file};
use crate::interrupt;
use crate::progress::Reporter;
use crate::run::RunError;
use crate::sweep::claims::{Life, Observer, Watched};
use crate::sweep::launch;
use crate::sweep::overview::line;
use crate::sweep::plan::SweepPlan;
use crate::sweep::{State, SweepError};

const POLL: Duration = Duration::from_secs(2);

/// Which sweep.
#[derive(Args, Clone, Debug)]
pub struct WatchArgs {
    /// Name of the sweep (default: the only one)
    pub name: Option<String>,
    /// Folder of results
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub out: PathBuf,
}

fn state(args: &WatchArgs) -> Result<(State, SweepPlan), CliError> {
    let known = State::known(&args.out)?;
    let name = match (&args.name, known.as_slice()) {
        (Some(name), _) => name.clone(),
        (None, [one]) => one.clone(),
        (None, _) => String::new(),
    };
    let state = State::of(&args.out, &name);
    match SweepPlan::read(&state)?.filter(|_| known.contains(&name)) {
        Some(plan) => Ok((state, plan)),
        None => Err(SweepError::Unknown { name, out: args.out.clone(), known }.into()),
    }
}

/// Shows workers, jobs and cells until every worker has ended; with `once`, as they are now.
pub(super) fn watch(args: &WatchArgs, once: bool, reporter: &Reporter) -> Result<u8, CliError> {
    let (state, _) = state(args)?;
    let observer = Observer::new(state.folder(), super::sweep::timing()?.expiry);
    let mut said = String::new();
    loop {
        // A launch meanwhile may have planned anew.
        let missing = || SweepError::Plan { path: state.plan(), why: "it is gone".to_owned() };
        let plan = SweepPlan::read(&state)?.ok_or_else(missing)?;
        let workers = observer.workers().map_err(SweepError::from)?;
        let lives = |worker: &&Watched| worker.life == Life::Alive;
        let alive: Vec<&Watched> = workers.iter().filter(lives).collect();
        let queue = launch::queue(state.folder(), &super::sweep::search_path());
        let queue = queue.unwrap_or_else(|error| {
            reporter.detail(error.to_string());
            Vec::new()
        });
        let (done, failed) = cells(&plan, args)?;
        let mut text = format!(
            "{}: {done} of {} cells done, {failed} failed, {} workers\n",
            plan.name,
            plan.cells.len(),
            alive.len()
        );
        for job in &queue {
            text += &format!(
                "  job {} {}: {} {}{}\n",
                job.id,
                job.kind.name(),
                job.tasks,
                job.state.to_lowercase(),
                if job.place.is_empty() { String::new() } else { format!(" ({})", job.place) }
            );
        }
        for worker in &alive {
            text += &format!("  {}\n", line(worker));
        }
        if text != said {
            print(text.as_bytes())?;
            said = text;
        }
        let over = alive.is_empty() && queue.is_empty();
        if once || over || interrupt::requested() {
            return Ok(if failed > 0 && over { EXIT_FAILED } else { EXIT_DONE });
        }
        std::thread::sleep(POLL);
    }
}

/// Numbers of cells that are done, and that failed.
fn cells(plan: &SweepPlan, args: &WatchArgs) -> Result<(usize, usize), CliError> {
    let store = Store::open(&args.out).map_err(RunError::from)?;
    let (mut done, mut failed) = (0, 0);
    for cell in &plan.cells {
        if store.finished(&cell.plan).map_err(RunError::from)?.is_some() {
            done += 1;
        } else if store.folder(&cell.plan).map_err(RunError::from)?.join("failed.txt").is_file() {
            failed += 1;
        }
    }
    Ok((done, failed))
}

/// Asks every worker of a sweep to stop, and takes its jobs back.
pub(super) fn cancel(args: &WatchArgs, reporter: &Reporter) -> Result<u8, CliError> {
    let (state, plan) = state(args)?;
    write_file(&state.cancelled(), b"asked for with `pixio-eval runs cancel`\n")?;
    let observer = Observer::new(state.folder(), super::sweep::timing()?.expiry);
    let workers = observer.workers().map_err(SweepError::from)?;
    let alive = workers.iter().filter(|worker| worker.life == Life::Alive).count();
    for cancelled in launch::cancel(state.folder(), &super::sweep::search_path())? {
        let launch::Cancelled { id, kind, tasks, refused, .. } = cancelled;
        reporter.say(match refused {
            None => format!("job {id}: {tasks} tasks ({}) cancelled", kind.name()),
            Some(why) => format!("job {id}: {tasks} tasks ({}) not cancelled: {why}", kind.name()),
        });
    }
    let out = args.out.display();
    reporter.say(format!(
        "{}: {alive} workers were asked to stop; what is done is kept, and the sweep's command continues it \
         (`pixio-eval runs watch {} --out {out}` shows when they have ended)",
        plan.name, plan.name
    ));
    Ok(EXIT_DONE)
}
