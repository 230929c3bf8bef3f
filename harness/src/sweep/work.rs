//! A worker: takes units of a plan that nobody works on, one after the other, until nothing is left.
//!
//! Workers know of each other through the state folder alone: any number may start and end at any time, on
//! any machine that shares it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::OpenOptions;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use results::Store;
use serde::Serialize;

use super::claims::State as At;
use super::claims::{Claim, Claims, Released, Status, Taken, Timing, Worker};
use super::plan::{PlannedCell, SweepPlan, Unit};
use super::progress::Features;
use super::{State, SweepError};
use crate::backbone::encoded;
use crate::interrupt;
use crate::progress::Reporter;
use crate::run::{Cell, Report, Request, RunError, datasets, execute};

/// How often a worker with nothing to take looks again.
const POLL: Duration = Duration::from_millis(500);
/// How long a worker finds nothing whole before it takes what is left of units that others have begun: who
/// takes a unit takes its cells one after the other.
const LEFTOVERS: Duration = Duration::from_secs(5);
/// How long a cell that a process outside the sweep works on is left alone.
const IN_USE: Duration = Duration::from_secs(30);
/// How often a working one looks whether it may go on.
const WATCH: Duration = Duration::from_secs(1);

/// What a worker is given.
pub struct Work<'a> {
    /// The sweep.
    pub state: &'a State,
    /// The launch it belongs to.
    pub launch: &'a str,
    /// Name of its device.
    pub device: &'a str,
    /// Where and how to compute; its cells are replaced.
    pub request: Request,
    /// Whether to make k-NN features alone.
    pub extract_only: bool,
    /// The process that started it and whose end ends it, if any.
    pub parent: Option<u32>,
    /// Beats and expiry.
    pub timing: Timing,
}

/// How a worker ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything is done.
    Done,
    /// Nothing is left but cells that failed, so many.
    Failed(usize),
    /// It was asked to stop.
    Stopped,
}

/// A line of `units/WORKER.jsonl`: what a unit took.
#[derive(Debug, Serialize)]
struct Took<'a> {
    unit: &'a str,
    cells: Vec<String>,
    extract: bool,
    /// Passes of the encoder, and images in them.
    passes: u64,
    images: u64,
    seconds: f64,
    outcome: &'a str,
}

pub(super) struct Worked<'a> {
    pub(super) work: &'a Work<'a>,
    pub(super) plan: SweepPlan,
    pub(super) store: Store,
    pub(super) worker: Arc<Worker>,
    pub(super) claims: Claims,
    pub(super) reporter: &'a Reporter,
    pub(super) features: Features,
    /// Keys of finished cells, and of failed ones.
    finished: HashSet<String>,
    failed: HashMap<String, String>,
    /// Extractions that nobody tries again.
    pub(super) given_up: HashSet<String>,
    /// Cells that a process outside the sweep works on, and when that was seen.
    in_use: HashMap<String, Instant>,
}

/// Ends the watching when it goes.
struct Over<'a> {
    over: &'a AtomicBool,
    thread: &'a std::thread::Thread,
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.thread.unpark();
    }
}

/// What a look at a unit came to.
pub(super) enum Look {
    /// It was worked on.
    Worked,
    /// Others hold something of it.
    Held,
    /// Nothing is left of it.
    Over,
}

/// Enters the process among the workers of a sweep and works.
pub fn work(work: &Work<'_>, reporter: Reporter) -> Result<Ended, SweepError> {
    let plan = SweepPlan::of_launch(work.state, work.launch)?;
    work.state.create()?;
    let worker = Worker::register_with(work.state.folder(), work.launch, work.device, work.timing)?;
    let worker = Arc::new(worker);
    let told = Arc::clone(&worker);
    let status: Arc<std::sync::Mutex<Status>> = Arc::default();
    let shown = Arc::clone(&status);
    let reporter = reporter.watched(move |label, done, total| {
        let mut status = shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        (status.note, status.done, status.total) = (label.to_owned(), done, total);
        told.set_status(status.clone());
    });
    let claims = Claims::open(work.state.folder(), work.timing.expiry)?;
    let store = Store::open(&work.request.out).map_err(RunError::from)?;
    let mut worked = Worked {
        work,
        plan,
        store,
        worker,
        claims,
        reporter: &reporter,
        features: Features::default(),
        finished: HashSet::new(),
        failed: HashMap::new(),
        given_up: HashSet::new(),
        in_use: HashMap::new(),
    };
    let ended = worked.all(&status);
    let stopped = matches!(ended, Ok(Ended::Stopped));
    worked.worker.set_state(if stopped { At::Interrupted } else { At::Stopped });
    ended
}

impl Worked<'_> {
    fn all(&mut self, status: &std::sync::Mutex<Status>) -> Result<Ended, SweepError> {
        let units = self.plan.units.clone();
        let mut idle: Option<Instant> = None;
        'again: loop {
            let mut held = false;
            let leftovers = idle.is_some_and(|since| since.elapsed() > LEFTOVERS);
            for unit in &units {
                if self.stops() {
                    return Ok(Ended::Stopped);
                }
                match self.unit(unit, leftovers, status)? {
                    Look::Worked => {
                        idle = None;
                        continue 'again;
                    }
                    Look::Held => held = true,
                    Look::Over => {}
                }
            }
            if !held {
                break;
            }
            idle.get_or_insert_with(Instant::now);
            self.worker.set_state(At::Idle);
            std::thread::sleep(POLL);
        }
        match self.failed.len() {
            0 => Ok(Ended::Done),
            failed => Ok(Ended::Failed(failed)),
        }
    }

    fn stops(&self) -> bool {
        interrupt::requested() || self.work.state.is_cancelled() || self.orphaned()
    }

    /// Whether the process that started it is gone.
    fn orphaned(&self) -> bool {
        #[cfg(unix)]
        return self
            .work
            .parent
            .is_some_and(|parent| std::os::unix::process::parent_id() != parent);
        #[cfg(not(unix))]
        return false;
    }

    fn unit(
        &mut self,
        unit: &Unit,
        leftovers: bool,
        status: &std::sync::Mutex<Status>,
    ) -> Result<Look, SweepError> {
        let (mut left, mut held) = (Vec::new(), false);
        for &at in &unit.cells {
            let cell = self.plan.cells[at].clone();
            if self.is_over(&cell)? {
                continue;
            }
            match self.in_use.get(&cell.key()).is_some_and(|seen| seen.elapsed() < IN_USE) {
                true => held = true,
                false => left.push(at),
            }
        }
        if left.is_empty() {
            return Ok(if held { Look::Held } else { Look::Over });
        }
        if unit.extract {
            return self.extraction(unit, &left, status);
        }
        if self.work.extract_only {
            return Ok(Look::Over);
        }
        if self.awaits_features(unit)? {
            return Ok(Look::Held);
        }
        let mut mine = Vec::new();
        for at in left {
            let cell = self.plan.cells[at].clone();
            let progress = self.features.progress(&self.store, &cell);
            match self.take(&cell.key(), &unit.id, progress)? {
                Some(Taken::Mine(claim)) if self.is_over(&cell)? => {
                    claim.give_back(Released::Done)?;
                }
                Some(Taken::Mine(claim)) => mine.push((at, claim)),
                Some(Taken::GaveUp { crashes, worker }) => self.give_up(&cell, crashes, &worker)?,
                Some(Taken::Failed { why, .. }) => {
                    self.failed.insert(cell.key(), why);
                }
                // Somebody takes this unit: its heads are better off together.
                Some(Taken::HeldBy { .. } | Taken::Contested) if mine.is_empty() && !leftovers => {
                    return Ok(Look::Held);
                }
                Some(Taken::HeldBy { .. } | Taken::Contested) => held = true,
                None => return Ok(Look::Held),
            }
        }
        if mine.is_empty() {
            return Ok(if held { Look::Held } else { Look::Over });
        }
        let (places, claims): (Vec<usize>, Vec<Claim>) = mine.into_iter().unzip();
        let labels: Vec<String> = places.iter().map(|&at| self.plan.cells[at].label()).collect();
        self.note_status(status, unit, &places, &labels);
        let (request, reporter) = (self.request(&places), self.reporter);
        let (ran, took) = self.watched(&claims, || execute(&request, reporter));
        let outcome = self.ended(&places, claims, ran);
        self.log(unit, &places, took, outcome.as_ref().map_or("failed", |outcome| outcome))?;
        outcome.map(|outcome| if outcome == "in use" { Look::Held } else { Look::Worked })
    }

    /// The request for these cells. Their data must be there, and what they come to must be what was planned.
    pub(super) fn request(&self, places: &[usize]) -> Request {
        let planned = || places.iter().map(|&at| &self.plan.cells[at]);
        let cells: Vec<Cell> = planned().map(|planned| planned.cell.clone()).collect();
        let keys = planned().map(|planned| planned.plan.key()).collect();
        Request { required: datasets(&cells), cells, keys, ..self.work.request.clone() }
    }

    /// Takes a key; none where this worker may take nothing now.
    pub(super) fn take(&self, key: &str, unit: &str, at: u64) -> Result<Option<Taken>, SweepError> {
        match self.claims.try_claim(&self.worker, key, unit, at) {
            Err(super::claims::ClaimError::NotBeating(why)) => {
                self.reporter.warn(format!("waiting: {why}"));
                Ok(None)
            }
            taken => Ok(taken.map(Some)?),
        }
    }

    fn is_over(&mut self, cell: &PlannedCell) -> Result<bool, SweepError> {
        let key = cell.key();
        if self.finished.contains(&key) || self.failed.contains_key(&key) {
            return Ok(true);
        }
        let there = self.store.finished(&cell.plan).map_err(RunError::from)?.is_some();
        if there {
            self.finished.insert(key);
        }
        Ok(there)
    }

    pub(super) fn note_status(
        &self,
        status: &std::sync::Mutex<Status>,
        unit: &Unit,
        places: &[usize],
        labels: &[String],
    ) {
        let label = match labels {
            [] => String::new(),
            [one] => one.clone(),
            [first, ..] => format!("{first} and {} more", labels.len() - 1),
        };
        self.reporter.say(format!("unit {}: {label}", unit.id));
        let mut status = status.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *status = Status {
            label,
            unit: unit.id.clone(),
            cells: places.iter().map(|&at| self.plan.cells[at].key()).collect(),
            since: Some(jiff::Timestamp::now().to_string()),
            ..Status::default()
        };
        self.worker.set_status(status.clone());
        self.worker.set_state(At::Working);
    }

    /// Works while a thread looks whether it may go on: whether its claims are still its own, and whether
    /// anybody wants it to.
    pub(super) fn watched<T>(
        &self,
        claims: &[Claim],
        run: impl FnOnce() -> T,
    ) -> (T, (u64, u64, f64)) {
        let (over, before, began) = (AtomicBool::new(false), encoded(), Instant::now());
        let ran = std::thread::scope(|scope| {
            let over = &over;
            let thread = scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let lost = claims.iter().find_map(Claim::lost).or_else(|| self.worker.lost());
                    if let Some(why) = lost {
                        self.reporter.warn(format!("stops what it does: {why}"));
                        interrupt::pause();
                        return;
                    }
                    if self.work.state.is_cancelled() || self.orphaned() {
                        interrupt::request();
                        return;
                    }
                    std::thread::park_timeout(WATCH);
                }
            });
            // Also where it panics: the claims are given back then, and nobody waits for them.
            let _over = Over { over, thread: thread.thread() };
            run()
        });
        interrupt::resume();
        let (passes, images) = encoded();
        let took = (passes - before.0, images - before.1, began.elapsed().as_secs_f64());
        (ran, took)
    }

    /// Gives the cells back, each as what became of it. What went wrong before any work is this worker's
    /// trouble, and ends it: another may do better.
    fn ended(
        &mut self,
        places: &[usize],
        claims: Vec<Claim>,
        ran: Result<Report, RunError>,
    ) -> Result<&'static str, SweepError> {
        let report = match ran {
            Ok(report) => report,
            Err(RunError::Interrupted) => {
                claims.into_iter().try_for_each(|claim| claim.give_back(Released::Interrupted))?;
                return Ok("interrupted");
            }
            Err(error) => {
                claims.into_iter().try_for_each(|claim| claim.give_back(Released::Crashed))?;
                return Err(error.into());
            }
        };
        let reasons: BTreeMap<String, &RunError> = report
            .failed
            .iter()
            .map(|failed| (failed.key.short().to_owned(), &failed.error))
            .collect();
        let mut outcome = "done";
        for (&at, claim) in places.iter().zip(claims) {
            let cell = self.plan.cells[at].clone();
            if self.is_over(&cell)? {
                claim.give_back(Released::Done)?;
                continue;
            }
            let why = match reasons.get(&cell.key()) {
                Some(error) if error.is_in_use() => {
                    claim.give_back(Released::Interrupted)?;
                    self.in_use.insert(cell.key(), Instant::now());
                    if outcome == "done" {
                        outcome = "in use";
                    }
                    continue;
                }
                Some(error) => error.to_string(),
                None => {
                    let why = "it was left out here (see the log)";
                    self.note_failure(&cell, why);
                    why.to_owned()
                }
            };
            outcome = "failed";
            self.reporter.warn(format!("{} failed: {why}", cell.label()));
            claim.give_back(Released::Failed(why.clone()))?;
            self.failed.insert(cell.key(), why);
        }
        Ok(outcome)
    }

    /// What ended workers twice in the same place is not tried again in this launch.
    fn give_up(
        &mut self,
        cell: &PlannedCell,
        crashes: usize,
        worker: &str,
    ) -> Result<(), SweepError> {
        let log = self.work.state.logs();
        let why = format!(
            "its worker died {crashes} times without getting further, at last {worker} (logs: {})",
            log.display()
        );
        self.note_failure(cell, &why);
        self.failed.insert(cell.key(), why);
        Ok(())
    }

    /// Says in the run's folder why it failed.
    fn note_failure(&self, cell: &PlannedCell, why: &str) {
        let noted = self.store.begin(&cell.plan).and_then(|dir| dir.fail(why));
        if let Err(error) = noted {
            self.reporter
                .warn(format!("{}: the failure could not be noted: {error}", cell.label()));
        }
    }

    pub(super) fn log(
        &self,
        unit: &Unit,
        places: &[usize],
        (passes, images, seconds): (u64, u64, f64),
        outcome: &str,
    ) -> Result<(), SweepError> {
        let took = Took {
            unit: &unit.id,
            cells: places.iter().map(|&at| self.plan.cells[at].key()).collect(),
            extract: unit.extract,
            passes,
            images,
            seconds,
            outcome,
        };
        let path = self.work.state.units().join(format!("{}.jsonl", self.worker.id()));
        let line = serde_json::to_string(&took).unwrap_or_default() + "\n";
        let file = OpenOptions::new().create(true).append(true).open(&path);
        file.and_then(|mut file| file.write_all(line.as_bytes()))
            .map_err(SweepError::io("write", &path))
    }
}
