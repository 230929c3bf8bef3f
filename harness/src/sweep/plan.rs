//! What a sweep is going to do: its cells, each with its resolved protocol, and the units that workers take.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use results::write_whole;
use schema::RunPlan;
use serde::{Deserialize, Serialize};

use super::schedule::{self, DeviceCost, ProbeCost, Schedule, StreamCost};
use super::{State, SweepError};
use crate::run::{Cell, Outlines, streams};

/// Version of the plan's file.
const FORMAT: u32 = 1;
/// Seconds that a unit takes before its first image: a process, an encoder, lists of data.
const STARTUP: f64 = 5.0;
/// Encoder seconds above which several devices extract one k-NN stream's features.
const SHARED_EXTRACTION: f64 = 60.0;

/// A sweep's plan, in its state folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SweepPlan {
    /// Version of this format.
    pub format: u32,
    /// The sweep's name.
    pub name: String,
    /// Version of the program that planned it.
    pub version: String,
    /// The newest launch of it.
    pub launch: String,
    /// Folder that relative paths start from.
    pub folder: PathBuf,
    /// Arguments of the command that planned it: where the data is, and how to compute.
    pub arguments: Vec<String>,
    /// Every run, once.
    pub cells: Vec<PlannedCell>,
    /// What workers take, in the order of the queue.
    pub units: Vec<Unit>,
}

/// One run of a sweep.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlannedCell {
    /// What it is.
    pub cell: Cell,
    /// What is to be done.
    pub plan: RunPlan,
}

/// Some runs of one stream, for one worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unit {
    /// Its name.
    pub id: String,
    /// Places of its cells.
    pub cells: Vec<usize>,
    /// Whether it only makes k-NN features, which other units of the stream make too: they share the work.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub extract: bool,
    /// Expected seconds.
    pub seconds: f64,
}

impl PlannedCell {
    /// The key under which it is claimed.
    pub fn key(&self) -> String {
        self.plan.key().short().to_owned()
    }

    /// What it is called, for people.
    pub fn label(&self) -> String {
        let seed = match self.plan.seed {
            0 => String::new(),
            seed => format!(", seed {seed}"),
        };
        let (plan, name) = (&self.plan, &self.plan.protocol.name);
        format!("{} {} ({name}{seed})", plan.task, plan.backbone.name)
    }
}

/// Costs of the streams of what is not done yet, and the places of their runs.
pub(crate) fn costs(outlines: &Outlines, devices: usize) -> (Vec<StreamCost>, Vec<Vec<usize>>) {
    let (mut costs, mut places) = (Vec::new(), Vec::new());
    for stream in streams(&outlines.runs) {
        let left: Vec<usize> =
            stream.into_iter().filter(|&at| !outlines.runs[at].finished).collect();
        let runs = || left.iter().map(|&at| &outlines.runs[at]);
        let Some(first) = runs().next() else { continue };
        let encode = runs().map(|run| run.encode_seconds).fold(0.0, f64::max);
        let shared_memory = runs().map(|run| run.memory.0).max().unwrap_or(0);
        let knn = first.plan.task.head == "knn";
        let divided = knn && devices > 1 && encode > SHARED_EXTRACTION;
        let whole = StreamCost {
            fixed: STARTUP,
            encode,
            probes: Vec::new(),
            shared_memory,
            needs: None,
            splittable_encode: divided,
        };
        let probe = |run: &crate::run::Outline| ProbeCost {
            seconds: run.head_seconds,
            memory: run.memory.1,
        };
        let probes = runs().map(probe).collect();
        if divided {
            costs.push(whole.clone());
            places.push(left.clone());
        }
        let needs = divided.then(|| costs.len() - 1);
        let encode = if divided { 0.0 } else { encode };
        costs.push(StreamCost { encode, probes, needs, splittable_encode: false, ..whole });
        places.push(left);
    }
    (costs, places)
}

/// Splits what is left of a sweep into units for these devices.
pub(crate) fn schedule(
    outlines: &Outlines,
    devices: &[DeviceCost],
) -> Result<(Schedule, Vec<Unit>, Vec<String>), SweepError> {
    let (costs, places) = costs(outlines, devices.len());
    let plan = schedule::schedule(&costs, devices)?;
    let mut parts: BTreeMap<usize, usize> = BTreeMap::new();
    let unit = |unit: &schedule::Unit| {
        let cost = &costs[unit.stream];
        let cells: Vec<usize> = match cost.splittable_encode {
            true => places[unit.stream].clone(),
            false => unit.probes.iter().map(|&probe| places[unit.stream][probe]).collect(),
        };
        let runs: Vec<_> = cells.iter().map(|&at| outlines.runs[at].plan.key().0).collect();
        let part = parts.entry(unit.stream).or_insert(0);
        *part += 1;
        let kind = if cost.splittable_encode { "extract" } else { "probe" };
        let number = if cost.splittable_encode { *part } else { 0 };
        let id = schema::fingerprint(&(kind, runs, number)).short().to_owned();
        Unit { id, cells, extract: cost.splittable_encode, seconds: unit.seconds }
    };
    let units = plan.units.iter().map(unit).collect();
    let names = places
        .iter()
        .zip(&costs)
        .map(|(cells, cost)| {
            let plan = &outlines.runs[cells[0]].plan;
            let heads: std::collections::BTreeSet<&str> =
                cells.iter().map(|&at| outlines.runs[at].plan.task.head.as_str()).collect();
            let what = match cost.splittable_encode {
                true => "features".to_owned(),
                false => heads.into_iter().collect::<Vec<_>>().join("+"),
            };
            format!("{} {what}, {}", plan.task.dataset, plan.backbone.name)
        })
        .collect();
    Ok((plan, units, names))
}

impl SweepPlan {
    /// A plan of these cells.
    pub(crate) fn new(
        name: &str,
        arguments: Vec<String>,
        cells: &[Cell],
        outlines: &Outlines,
        units: Vec<Unit>,
    ) -> Self {
        let cells = outlines
            .runs
            .iter()
            .map(|run| PlannedCell { cell: cells[run.cell].clone(), plan: run.plan.clone() });
        Self {
            format: FORMAT,
            name: name.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            launch: String::new(),
            folder: std::env::current_dir().unwrap_or_default(),
            arguments,
            cells: cells.collect(),
            units,
        }
    }

    /// The newest plan in a state folder, if there is one.
    pub fn read(state: &State) -> Result<Option<Self>, SweepError> {
        Self::read_file(&state.plan())
    }

    /// The plan of a launch, whatever was planned since; the newest one for workers of no launch.
    pub fn of_launch(state: &State, launch: &str) -> Result<Self, SweepError> {
        let own = Self::read_file(&state.plan_of(launch))?;
        let plan = if own.is_some() { own } else { Self::read(state)? };
        let missing = || SweepError::Plan { path: state.plan(), why: "it is not there".to_owned() };
        plan.ok_or_else(missing)
    }

    fn read_file(path: &Path) -> Result<Option<Self>, SweepError> {
        let wrong = |why: String| SweepError::Plan { path: path.to_path_buf(), why };
        let text = match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            text => text.map_err(SweepError::io("read", path))?,
        };
        let format: Format = serde_json::from_slice(&text).map_err(|e| wrong(e.to_string()))?;
        if format.format > FORMAT {
            let (found, program) = (format.format, format.version);
            return Err(wrong(format!("it has format {found}, written by version {program}")));
        }
        serde_json::from_slice(&text).map(Some).map_err(|error| wrong(error.to_string()))
    }

    /// Puts the plan into its state folder, in place of an older one; those of other launches stay for their
    /// workers.
    pub fn write(&self, state: &State) -> Result<(), SweepError> {
        for path in [state.plan_of(&self.launch), state.plan()] {
            let wrong = |error: serde_json::Error| SweepError::Plan {
                path: path.clone(),
                why: error.to_string(),
            };
            let text = serde_json::to_vec_pretty(self).map_err(wrong)?;
            write_whole(&path, &text).map_err(SweepError::io("write", &path))?;
        }
        Ok(())
    }

    /// Refuses an older plan of the same cells under another protocol: its results and these would share
    /// one folder and one name.
    pub fn check_before(&self, before: &Self, path: &Path) -> Result<(), SweepError> {
        let same = |cell: &PlannedCell| {
            let (backbone, data) = (&cell.plan.backbone.identity, &cell.plan.data.fingerprint);
            schema::fingerprint(&(&cell.cell, backbone, data)).0
        };
        let known: HashMap<String, &PlannedCell> =
            before.cells.iter().map(|cell| (same(cell), cell)).collect();
        for cell in &self.cells {
            let Some(other) = known.get(&same(cell)) else { continue };
            let [now, then] =
                [cell, *other].map(|cell| cell.plan.protocol_fingerprint.short().to_owned());
            if now != then {
                return Err(SweepError::OtherProtocol {
                    path: path.to_path_buf(),
                    cell: cell.label(),
                    before: (before.version.clone(), then),
                    now: (self.version.clone(), now),
                });
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Format {
    format: u32,
    #[serde(default)]
    version: String,
}
