//! What is to be done with a suite: which tasks, by which protocol, in which simulators.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use schema::{
    BackboneRecord, DataRecord, ObservationStage, PolicyProtocol, PolicyTask, PolicyTraining,
    Protocol, Render, RolloutStage, RunPlan, SimulatorStage, Source, SplitRecord, Stages,
};
use tasks::robot::{Demonstrations, Origin, Suite, Variant, suite};

use super::data::Lesson;
use crate::resolve::Resolved;
use crate::run::memory::{BatchSize, STANDARD};
use crate::run::session::Host;
use crate::run::{Cell, RunError, Settings, embed, set};
use crate::simulators::Simulators;
use crate::simulators::demonstrate::{self, Wanted};

/// Protocol of the reduced suites.
const LITE: &str = "cortexbench-lite";
/// Protocol of generated demonstrations.
const MADE: &str = "cortexbench-made";
const SAMPLE: &str = "sample";
/// Simulators take 32 bits, and episodes count from it.
const LARGEST_SEED: u64 = u32::MAX as u64 - 100_000;

/// A suite ready to run on.
pub(in crate::run) struct Opened<'a> {
    pub(super) simulators: Simulators<'a>,
    pub(super) lessons: Vec<Lesson>,
    suite: &'static Suite,
    training: PolicyTraining,
    seeds: Vec<u64>,
    render: Render,
    /// The protocol's name up to what a backbone adds.
    name: String,
    record: DataRecord,
    /// What a reader of the numbers must know.
    notes: Vec<String>,
}

/// Finds the demonstrations of the tasks that the protocol asks for, and the simulators.
pub(in crate::run) fn open<'a>(
    host: &'a Host<'a>,
    name: &str,
    root: &Path,
    settings: &Settings,
) -> Result<Opened<'a>, RunError> {
    open_with(host, name, root, settings, Simulators::find(&host.cache, host.reporter)?)
}

/// The same on a few short demonstrations, which are made on first use.
pub(in crate::run) fn open_sample<'a>(
    host: &'a Host<'a>,
    name: &str,
    settings: &Settings,
) -> Result<Opened<'a>, RunError> {
    let simulators = Simulators::find(&host.cache, host.reporter)?;
    let root = host.cache.join(format!("samples-v{}", tasks::sample::REVISION)).join(name);
    if let Some(suite) = suite(name) {
        for task in suite.setup(Variant::Sample).tasks {
            demonstrate_sample(host, suite, &task, &root, &simulators)?;
        }
    }
    open_with(host, name, &root, settings, simulators)
}

fn demonstrate_sample(
    host: &Host<'_>,
    suite: &'static Suite,
    task: &PolicyTask,
    root: &Path,
    simulators: &Simulators<'_>,
) -> Result<(), RunError> {
    if Demonstrations::open(suite, &task.name, root)?.is_some() {
        return Ok(());
    }
    let tested = if suite.tests_on_demonstrations() { task.episodes } else { 0 };
    let wanted = Wanted {
        suite,
        task: &task.name,
        count: Some(task.demonstrations + tested),
        seed: 0,
        steps: Some(task.horizon),
        repeat: 1,
        fast: true,
        workers: host.workers(),
    };
    demonstrate::make(&wanted, root, simulators, host.reporter)?;
    Ok(())
}

fn open_with<'a>(
    host: &'a Host<'a>,
    name: &str,
    root: &Path,
    settings: &Settings,
    simulators: Simulators<'a>,
) -> Result<Opened<'a>, RunError> {
    let (request, unfit) =
        (host.request, |why: String| RunError::Unfit { folder: root.to_path_buf(), why });
    let Some(suite) = suite(name) else {
        return Err(RunError::NoData { name: name.to_owned(), folder: root.to_path_buf() });
    };
    let variant = match settings.protocol.as_str() {
        LITE => Variant::Lite,
        SAMPLE => Variant::Sample,
        _ => Variant::Published,
    };
    let mut setup = suite.setup(variant);
    let mut departures = String::new();
    if let Some(epochs) = settings.epochs {
        setup = setup.with_epochs(epochs);
        departures.push_str(&format!("+epochs={epochs}"));
    }
    if settings.seed != 0 {
        setup.seeds = vec![settings.seed];
        departures.push_str(&format!("+seeds={}", settings.seed));
    }
    if let Some(limit) = settings.limit {
        let more = setup.tasks.iter().any(|task| task.demonstrations > limit);
        setup.tasks.iter_mut().for_each(|t| t.demonstrations = t.demonstrations.min(limit));
        if more {
            departures.push_str(&format!("+limit={limit}"));
        }
    }
    let wanted = setup.tasks.len();
    let (mut lessons, mut missing): (Vec<Lesson>, Vec<String>) = (Vec::new(), Vec::new());
    for task in setup.tasks {
        let Some(found) = Demonstrations::open(suite, &task.name, root)? else {
            missing.push(task.name);
            continue;
        };
        let tested = if suite.tests_on_demonstrations() { task.episodes } else { 0 };
        let needed = task.demonstrations + tested;
        let first = found.tests_from(tested);
        let overlap = tested > 0 && first < task.demonstrations;
        if found.len() < needed || overlap || found.len() < first + tested {
            let (name, found) = (task.name, found.len());
            return Err(unfit(format!("{found} demonstrations of {name}; expected {needed}")));
        }
        lessons.push(Lesson::new(suite, task, found)?);
    }
    // Nobody has shown what to do after the end of the longest demonstration.
    let mut steps = BTreeSet::new();
    for lesson in lessons.iter_mut().filter(|l| l.is_made()) {
        let longest =
            (0..lesson.task.demonstrations).map(|at| lesson.demonstrations.frames(at)).max();
        let longest = longest.unwrap_or(0);
        if longest < lesson.task.horizon / lesson.repeat().max(1) {
            lesson.task.horizon = longest;
            steps.insert(longest.to_string());
        }
    }
    if !steps.is_empty() {
        let steps: Vec<String> = steps.into_iter().collect();
        departures.push_str(&format!("+steps={}", steps.join(",")));
    }
    let Some(first) = lessons.first() else {
        let tasks = missing.join(", ");
        return Err(unfit(format!("none of {tasks}")));
    };
    if lessons.len() < wanted {
        let tasks: Vec<&str> = lessons.iter().map(|lesson| lesson.task.name.as_str()).collect();
        departures.push_str(&format!("+tasks={}", tasks.join(",")));
        host.reporter.warn(format!("{name}: no demonstrations of {}", missing.join(", ")));
    }
    let made = first.is_made();
    if lessons.iter().any(|lesson| lesson.is_made() != made) {
        return Err(unfit("some are published and some generated; expected one kind".to_owned()));
    }
    let render = first.demonstrations.render(suite);
    if let Some(other) = lessons.iter().find(|l| l.demonstrations.render(suite) != render) {
        let name = &other.task.name;
        return Err(unfit(format!("images of {name} were made in another way than the others'")));
    }
    let notes = notes(&lessons, &simulators.versions(), &setup.seeds);
    // Sample data is always drawn the fast way.
    if made && !request.sample && render != suite.render() {
        departures.push_str(if render == suite.fast() { "+render=fast" } else { "+render=other" });
    }
    let repeats: BTreeSet<usize> = lessons.iter().map(Lesson::repeat).collect();
    if made && repeats.iter().any(|&repeat| repeat != 1) {
        let repeats: Vec<String> = repeats.iter().map(usize::to_string).collect();
        departures.push_str(&format!("+repeat={}", repeats.join(",")));
    }
    if setup.seeds.iter().any(|&seed| seed > LARGEST_SEED) {
        let found = settings.seed;
        return Err(unfit(format!("--seed {found}; simulators take at most {LARGEST_SEED}")));
    }
    let base = match (settings.protocol.as_str(), made) {
        (SAMPLE, _) => SAMPLE.to_owned(),
        (LITE, true) => format!("{LITE}+made"),
        (LITE, false) => LITE.to_owned(),
        (_, true) => MADE.to_owned(),
        (other, false) => format!("{other}+simulators={}", simulators.short(name)),
    };
    let record = record(name, root, &lessons, request.sample);
    Ok(Opened {
        name: base + &departures,
        training: setup.training,
        seeds: setup.seeds,
        simulators,
        lessons,
        suite,
        render,
        record,
        notes,
    })
}

/// What made the demonstrations, where they are not the published ones.
fn notes(lessons: &[Lesson], versions: &[String], seeds: &[u64]) -> Vec<String> {
    let mut made: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut others = Vec::new();
    for lesson in lessons {
        let Origin::Made(by) = lesson.demonstrations.origin() else { continue };
        let name = &lesson.task.name;
        let generated = format!("{name} (mean score {:.1})", by.mean_score);
        made.entry(by.generator).or_default().push(generated);
        if by.versions != versions {
            others.push(name.clone());
        }
    }
    let mut shared: Vec<String> = Vec::new();
    for lesson in lessons.iter().filter(|lesson| lesson.starts.is_empty()) {
        let Origin::Made(by) = lesson.demonstrations.origin() else { continue };
        let demonstrated = by.seed..by.seed + lesson.demonstrations.len() as u64;
        let episodes = lesson.task.episodes as u64;
        if seeds.iter().any(|&seed| seed < demonstrated.end && demonstrated.start < seed + episodes)
        {
            shared.push(lesson.task.name.clone());
        }
    }
    let mut notes: Vec<String> = made
        .into_iter()
        .map(|(generator, tasks)| format!("demonstrations by {generator}: {}", tasks.join(", ")))
        .collect();
    if !shared.is_empty() {
        let tasks = shared.join(", ");
        notes.push(format!("some rollouts start where demonstrations did: {tasks}"));
    }
    if !others.is_empty() {
        let tasks = others.join(", ");
        notes
            .push(format!("made with other versions of the simulators than the rollouts: {tasks}"));
    }
    notes
}

fn record(name: &str, root: &Path, lessons: &[Lesson], sample: bool) -> DataRecord {
    let parts: Vec<_> = lessons
        .iter()
        .map(|lesson| (&lesson.task.name, lesson.demonstrations.fingerprint()))
        .collect();
    let found = lessons.iter().map(|lesson| lesson.demonstrations.len()).sum();
    let split = SplitRecord { found, published: None, list: None };
    DataRecord {
        name: name.to_owned(),
        root: root.display().to_string(),
        fingerprint: schema::fingerprint(&parts),
        splits: BTreeMap::from([("train".to_owned(), split)]),
        classes: 0,
        labels: None,
        sample,
        container: None,
        accepted: Vec::new(),
    }
}

/// Resolves the protocol for one backbone.
pub(in crate::run) fn plan(
    host: &Host<'_>,
    cell: &Cell,
    resolved: &Resolved,
    backbone: &BackboneRecord,
    data: &Opened<'_>,
) -> Result<RunPlan, RunError> {
    let (request, (dtype, standard_dtype)) = (host.request, host.dtypes());
    let settings = &cell.settings;
    let mut name = data.name.clone();
    if request.dtype.is_some_and(|asked| asked.as_str() != standard_dtype) {
        name.push_str(&format!("+dtype={dtype}"));
    }
    name.push_str(&resolved.departures);
    let together = match host.batch_size() {
        BatchSize::Images(images) => images,
        BatchSize::Auto => STANDARD,
    };
    if together != STANDARD {
        name.push_str(&format!("+together={together}"));
    }
    let (image, feature, departs) = embed::stages(resolved, backbone, dtype, settings)?;
    name.push_str(&departs);
    let source = if resolved.is_state() { Source::State } else { Source::Images };
    let protocol = PolicyProtocol {
        image,
        feature,
        observation: ObservationStage {
            revision: 1,
            source,
            // A state has velocities: it needs no history.
            frames: if source == Source::State { 1 } else { data.suite.frames },
            proprioception: data.suite.proprio && source == Source::Images,
        },
        training: data.training.clone(),
        rollout: RolloutStage { revision: 1, together },
        simulator: SimulatorStage { versions: data.simulators.versions(), render: data.render },
        tasks: data.lessons.iter().map(|lesson| lesson.task.clone()).collect(),
        seeds: data.seeds.clone(),
    };
    let training = ["training.rate", "training.weight_decay"];
    let (stages, departs) = set::apply_with(
        Stages::Policy(protocol),
        [settings.learning_rate, settings.weight_decay],
        training,
        &settings.set,
    )?;
    name.push_str(&departs);
    let protocol = Protocol { name, stages };
    Ok(RunPlan {
        task: cell.task.clone(),
        backbone: backbone.clone(),
        protocol_fingerprint: protocol.fingerprint(),
        protocol,
        data: data.record.clone(),
        seed: settings.seed,
        stream_seed: None,
        skip_bad_images: false,
        head_weights: None,
        micro_batch: together,
    })
}

impl Opened<'_> {
    /// What a reader of the numbers must know.
    pub(super) fn notes(&self, restarts: u64) -> Vec<String> {
        let workers = || format!("simulator workers replaced during rollouts: {restarts}");
        self.notes.iter().cloned().chain((restarts > 0).then(workers)).collect()
    }
}
