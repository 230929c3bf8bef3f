//! Before any work: find the data and the backbones of every cell, and resolve its protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use results::Store;
use schema::RunPlan;
use tasks::data::Registry;
use tasks::files::Files;

use super::request::Request;
use super::session::Host;
use super::{Cell, RunError, dense, knn, policy};
use crate::backbone::BackboneError;
use crate::cache;
use crate::device;
use crate::interrupt;
use crate::locate;
use crate::progress::Reporter;
use crate::resolve::{Resolved, Resolver, SourceOptions};
use crate::simulators::SimulatorError;
use crate::upload::Uploader;

/// A data set of either kind, ready to run on.
pub(super) enum Data<'a> {
    Images(knn::Opened),
    Pairs(dense::Opened),
    Robots(Box<policy::Opened<'a>>),
}

/// A data set as some cells read it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DataKey {
    name: String,
    /// What cuts it, and shuffles what is left.
    limit: Option<usize>,
    seed: u64,
    /// Protocol and epochs, which decide the tasks of a suite.
    suite: Option<(String, Option<usize>)>,
}

/// Data sets as cells read them; one that is not there is missing.
pub(super) type DataSets<'a> = BTreeMap<DataKey, Data<'a>>;

/// A cell whose protocol is resolved.
#[derive(Debug)]
pub(super) struct Planned {
    /// Its place among the request's cells.
    pub(super) cell: usize,
    /// The place of its backbone.
    pub(super) backbone: usize,
    pub(super) data: DataKey,
    pub(super) plan: RunPlan,
}

/// Everything that is settled before work begins.
pub(super) struct Prepared<'a> {
    /// Distinct backbones, in the order of the cells.
    pub(super) resolved: Vec<Resolved>,
    pub(super) data: DataSets<'a>,
    /// Cells that can run, in order. Those left out were said.
    pub(super) planned: Vec<Planned>,
}

/// Prepares a request and hands it on.
pub(super) fn prepared<T>(
    request: &Request,
    reporter: &Reporter,
    then: impl FnOnce(&Host<'_>, Prepared<'_>) -> Result<T, RunError>,
) -> Result<T, RunError> {
    if request.cells.iter().any(|cell| cell.backbone.is_empty()) {
        return Err(RunError::NoBackbone);
    }
    if request.head_weights.is_some() && request.cells.len() != 1 {
        return Err(RunError::OneHead);
    }
    let store = Store::open(&request.out)?;
    store.check_writable()?;
    let folder = locate::cache();
    cache::check_writable(&folder)?;
    let device = device::open(request.device, reporter)?;
    let dtype = device::dtype(request.dtype, &device);
    let memory = request.memory.unwrap_or_else(|| device::free_memory(&device) / 10 * 9);
    let uploader = Uploader::new(&device)
        .map_err(|error| RunError::from(BackboneError::Candle(error)).on(&device))?;
    let host = Host { request, device, uploader, dtype, store, cache: folder, memory, reporter };
    let present = host.present()?;
    let cells: Vec<(usize, Cell)> = request
        .cells
        .iter()
        .map(|cell| cell.clone().normalised())
        .enumerate()
        .filter(|(_, cell)| present.contains_key(&cell.task.dataset))
        .collect();
    let (resolved, places) = host.resolve(&cells)?;
    for (at, resolved) in resolved.iter().enumerate() {
        let of_it = cells.iter().zip(&places).filter(|(_, place)| **place == at);
        let of_it: Vec<&Cell> = of_it.map(|((_, cell), _)| cell).collect();
        host.check_grid(resolved, &of_it)?;
    }
    let data = host.open(&cells, &present)?;
    let mut planned = Vec::new();
    let records: Vec<_> = resolved.iter().map(Resolved::record).collect::<Result<_, _>>()?;
    for ((cell, asked), backbone) in cells.iter().zip(places) {
        let key = DataKey::of(asked);
        let (resolved, record) = (&resolved[backbone], &records[backbone]);
        let plan = match data.get(&key) {
            None => continue,
            Some(Data::Robots(data)) => policy::plan(&host, asked, resolved, record, data),
            Some(Data::Images(_)) if resolved.is_state() => continue,
            Some(Data::Images(data)) => knn::plan(&host, asked, resolved, record, data),
            Some(Data::Pairs(_)) if !resolved.dimensions().patches => continue,
            Some(Data::Pairs(data)) => dense::plan(&host, asked, resolved, record, data),
        };
        let plan = plan.map_err(|error| match error {
            RunError::Setting { .. } | RunError::Set { .. } if cells.len() > 1 => RunError::Cell {
                cell: format!("{} {}", asked.task, asked.backbone),
                source: Box::new(error),
            },
            error => error,
        })?;
        if let Some(expected) = request.keys.get(*cell).filter(|key| **key != plan.key()) {
            return Err(RunError::Moved {
                cell: format!("{} {}", asked.task, asked.backbone),
                expected: expected.short().to_owned(),
                found: plan.key().short().to_owned(),
            });
        }
        planned.push(Planned { cell: *cell, backbone, data: key, plan });
    }
    // One run, however many cells come to it.
    let mut known = BTreeSet::new();
    planned.retain(|planned| known.insert(planned.plan.key().0));
    then(&host, Prepared { resolved, data, planned })
}

impl DataKey {
    pub(super) fn of(cell: &Cell) -> Self {
        let settings = &cell.settings;
        let seed = settings.stream_seed.unwrap_or(settings.seed);
        let suite =
            (cell.task.head == "policy").then(|| (settings.protocol.clone(), settings.epochs));
        let shuffled = settings.limit.is_some() || cell.task.head != "knn";
        Self {
            name: cell.task.dataset.clone(),
            limit: settings.limit,
            seed: if shuffled { seed } else { 0 },
            suite,
        }
    }
}

impl Host<'_> {
    /// The request's data sets that are there, with their folders; sample data is made later.
    fn present(&self) -> Result<BTreeMap<String, PathBuf>, RunError> {
        let request = self.request;
        let mut present = BTreeMap::new();
        let cells = request.cells.iter().map(|cell| &cell.task.dataset);
        let names: BTreeSet<&String> = cells.chain(&request.required).collect();
        for name in names {
            let folder = locate::dataset(name, &request.data);
            if request.sample || folder.exists() {
                present.insert(name.clone(), folder);
            } else if request.required.contains(name) {
                return Err(RunError::NoData { name: name.clone(), folder });
            } else {
                self.reporter.say(format!("{name}: skipped, not at {}", folder.display()));
            }
        }
        Ok(present)
    }

    /// Distinct backbones, in order, and the place of each cell's.
    fn resolve(&self, cells: &[(usize, Cell)]) -> Result<(Vec<Resolved>, Vec<usize>), RunError> {
        let mut known: Vec<(&str, Vec<String>)> = Vec::new();
        let (mut resolved, mut places) = (Vec::new(), Vec::new());
        for (_, cell) in cells {
            let overrides = cell.overrides.iter().map(ToString::to_string).collect();
            let asked = (cell.backbone.as_str(), overrides);
            if let Some(place) = known.iter().position(|known| *known == asked) {
                places.push(place);
                continue;
            }
            let mut options: SourceOptions = self.request.source.clone();
            options.overrides.extend(cell.overrides.iter().cloned());
            resolved.push(Resolver::new(options, self.reporter)?.resolve(&cell.backbone)?);
            places.push(known.len());
            known.push(asked);
        }
        Ok((resolved, places))
    }

    /// Says which cells an encoder without a token grid is left out of; an error if those are all.
    fn check_grid(&self, resolved: &Resolved, cells: &[&Cell]) -> Result<(), RunError> {
        if resolved.is_state() {
            return self.check_state(cells);
        }
        // The floor is there for k-NN alone, which is no news.
        if resolved.dimensions().patches || resolved.source == "pixels" {
            return Ok(());
        }
        let (dense, others): (Vec<&Cell>, Vec<&Cell>) =
            cells.iter().copied().partition(|cell| cell.is_dense());
        let (backbone, tasks) = (resolved.name.clone(), listed(&dense));
        match (dense.is_empty(), others.is_empty()) {
            (true, _) => {}
            (false, true) => return Err(RunError::NoGrid { backbone, tasks }),
            (false, false) => {
                self.reporter.say(format!("{backbone}: {tasks} skipped, it has no token grid"));
            }
        }
        Ok(())
    }

    /// Says which cells the simulators' true state is left out of; an error if those are all.
    fn check_state(&self, cells: &[&Cell]) -> Result<(), RunError> {
        let (robots, others): (Vec<&Cell>, Vec<&Cell>) =
            cells.iter().copied().partition(|cell| cell.task.head == "policy");
        let others = listed(&others);
        if robots.is_empty() {
            return Err(RunError::NoState(others));
        }
        if !others.is_empty() {
            self.reporter.say(format!("state: {others} skipped, they have images alone"));
        }
        Ok(())
    }

    /// Lists the data sets as the cells read them.
    fn open(
        &self,
        cells: &[(usize, Cell)],
        present: &BTreeMap<String, PathBuf>,
    ) -> Result<DataSets<'_>, RunError> {
        let request = self.request;
        let registry = Registry::builtin()?;
        let mut open = DataSets::new();
        let mut trees: BTreeMap<String, Files> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (_, cell) in cells {
            let key = DataKey::of(cell);
            let Some(folder) = present.get(&key.name).filter(|_| seen.insert(key.clone())) else {
                continue;
            };
            if interrupt::requested() {
                return Err(RunError::Interrupted);
            }
            if cell.task.head == "policy" {
                if let Some(opened) = self.open_robots(cell, folder)? {
                    open.insert(key, Data::Robots(Box::new(opened)));
                }
                continue;
            }
            let name = &key.name;
            let Some(dataset) = registry.get(name) else {
                return Err(RunError::NoData { name: name.clone(), folder: folder.clone() });
            };
            let files = match trees.get(name) {
                Some(files) => files.clone(),
                None if request.sample => {
                    Files::folder(&locate::sample(name, &self.cache, self.reporter)?)
                }
                None => locate::files(dataset, folder, &self.cache, self.reporter)?,
            };
            trees.insert(name.clone(), files.clone());
            let opened = match cell.task.head.as_str() {
                "knn" => Data::Images(knn::open(dataset, &files, key.limit, key.seed)?),
                _ => {
                    let asked = (request, &cell.settings);
                    Data::Pairs(dense::open(dataset, &files, asked, self.reporter)?)
                }
            };
            open.insert(key, opened);
        }
        Ok(open)
    }

    /// A suite of robot tasks, unless nothing simulates it here and it was not asked for by name.
    fn open_robots(
        &self,
        cell: &Cell,
        folder: &Path,
    ) -> Result<Option<policy::Opened<'_>>, RunError> {
        let (suite, settings) = (&cell.task.dataset, &cell.settings);
        let asked = self.request.required.contains(suite);
        let opened = match self.request.sample {
            true => policy::open_sample(self, suite, settings),
            false => policy::open(self, suite, folder, settings),
        };
        match opened {
            Err(RunError::Simulator(SimulatorError::NotInstalled { .. })) if !asked => {
                self.reporter.say(format!(
                    "{suite}: skipped, the simulators are not installed: `pixio-eval simulators install`"
                ));
                Ok(None)
            }
            Err(RunError::Simulator(error)) if !asked => {
                self.reporter.warn(format!("{suite}: skipped, {error}"));
                Ok(None)
            }
            opened => opened.map(Some),
        }
    }
}

/// The tasks of cells, each once.
fn listed(cells: &[&Cell]) -> String {
    let mut tasks: Vec<String> = Vec::new();
    for cell in cells {
        let task = cell.task.to_string();
        if !tasks.contains(&task) {
            tasks.push(task);
        }
    }
    tasks.join(", ")
}
