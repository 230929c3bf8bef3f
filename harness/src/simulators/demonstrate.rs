//! Demonstrations by the simulators' scripted experts.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tasks::robot::{MadeBy, Recorded, Suite, Variant, Writer};

use super::{Ask, Environment, Observed, Pool, Simulators};
use crate::interrupt;
use crate::progress::Reporter;
use crate::run::RunError;

/// Mean score below which whole demonstrations are refused: a policy cannot be judged by worse ones.
const LEAST: f64 = 80.0;

/// Episodes recorded at once, at most: each holds all its images.
const AT_ONCE: usize = 8;
/// How often an episode is recorded anew when a worker fails.
const TRIES: usize = 3;

/// What is to be demonstrated.
pub struct Wanted<'a> {
    /// The suite.
    pub suite: &'a Suite,
    /// The task.
    pub task: &'a str,
    /// Demonstrations; as many as the published protocol uses when absent.
    pub count: Option<usize>,
    /// Seed of the first episode; each next one's is one more.
    pub seed: u64,
    /// Steps of an episode; the task's horizon when absent.
    pub steps: Option<usize>,
    /// Simulator steps of an action.
    pub repeat: usize,
    /// Without shadows, reflections and antialiasing.
    pub fast: bool,
    /// Simulator processes.
    pub workers: usize,
}

/// Lets the expert act and writes what it did to `ROOT/TASK`, which is returned.
///
/// # Errors
/// For tasks without an expert, or whose demonstrations are too poor, with the reason; nothing is
/// written under a final name then.
pub fn make(
    wanted: &Wanted<'_>,
    root: &Path,
    simulators: &Simulators<'_>,
    reporter: &Reporter,
) -> Result<PathBuf, RunError> {
    let &Wanted { suite, task, seed, repeat, fast, .. } = wanted;
    let render = if fast { suite.fast() } else { suite.render() };
    let published = suite.setup(Variant::Published).tasks;
    let published = published.into_iter().find(|known| known.name == task);
    let tested = if suite.tests_on_demonstrations() { 25 } else { 0 };
    let usual = published.map_or(0, |task| task.demonstrations) + tested;
    let count = wanted.count.unwrap_or(usual).max(1);
    let slots: Vec<usize> = (0..wanted.workers.clamp(1, count.min(AT_ONCE))).collect();
    let mut pool = Pool::start(simulators, slots.len(), slots.len(), true)?;
    let (suite_name, task_name) = (suite.name.to_owned(), task.to_owned());
    let environment = Environment { suite: suite_name, task: task_name, render, repeat };
    let space = pool.open(&slots, &environment)?;
    let steps = wanted.steps.unwrap_or(space.horizon).min(space.horizon);
    // Whether there is an expert at all, before anything is replaced.
    pool.step(vec![(0, Ask::Reset { seed, start: Value::Null })])?;
    pool.expert(&slots[..1])?;
    let by = MadeBy {
        generator: "scripted expert".to_owned(),
        seed,
        versions: simulators.versions(),
        render,
        repeat,
        mean_score: 0.0,
    };
    let mut writer = Writer::begin(suite, task, root, by)?;
    let bar = reporter.items(&format!("{}/{task}", suite.name), count as u64, "demonstrations");
    bar.set(0);
    for first in (0..count).step_by(slots.len()) {
        let seeds: Vec<u64> = (first..count).take(slots.len()).map(|at| seed + at as u64).collect();
        for one in undisturbed(&mut pool, simulators, &environment, &seeds, steps)? {
            writer.add(&one)?;
        }
        bar.set((first + seeds.len()) as u64);
    }
    let mean = writer.mean_score();
    if mean < LEAST && steps == space.horizon {
        return Err(RunError::Unfit {
            folder: root.join(task),
            why: format!(
                "the expert's mean score on {task} is {mean:.1}; expected at least {LEAST}"
            ),
        });
    }
    reporter.say(format!("{}/{task}: {count} demonstrations, mean score {mean:.1}", suite.name));
    Ok(writer.finish()?)
}

/// Episodes during which no worker failed: an expert may remember what it did, which a new worker does not.
fn undisturbed<'a>(
    pool: &mut Pool<'a>,
    simulators: &'a Simulators<'a>,
    environment: &Environment,
    seeds: &[u64],
    steps: usize,
) -> Result<Vec<Recorded>, RunError> {
    let slots: Vec<usize> = (0..seeds.len()).collect();
    for _ in 1..TRIES {
        let before = pool.restarts();
        match record(pool, seeds, steps) {
            Ok(recorded) if pool.restarts() == before => return Ok(recorded),
            Ok(_) => {}
            Err(RunError::Simulator(error)) => {
                simulators.note(&format!("{error}; its episodes are recorded again"));
                *pool = Pool::start(simulators, slots.len(), slots.len(), true)?;
                pool.open(&slots, environment)?;
            }
            Err(error) => return Err(error),
        }
    }
    record(pool, seeds, steps)
}

/// One episode a seed, in lockstep.
fn record(pool: &mut Pool<'_>, seeds: &[u64], steps: usize) -> Result<Vec<Recorded>, RunError> {
    let resets = seeds.iter().enumerate();
    let resets = resets.map(|(slot, &seed)| (slot, Ask::Reset { seed, start: Value::Null }));
    let mut seen = pool.step(resets.collect())?;
    let slots: Vec<usize> = (0..seeds.len()).collect();
    let mut all: Vec<Recorded> =
        seeds.iter().map(|&seed| Recorded { seed, ..Recorded::default() }).collect();
    for _ in 0..steps {
        if interrupt::requested() {
            return Err(RunError::Interrupted);
        }
        let actions = pool.expert(&slots)?;
        for (((_, seen), action), one) in seen.into_iter().zip(&actions).zip(&mut all) {
            take(one, seen, action);
        }
        let asks = actions.into_iter().enumerate().map(|(slot, action)| (slot, Ask::Step(action)));
        seen = pool.step(asks.collect())?;
        for ((_, seen), one) in seen.iter().zip(&mut all) {
            one.rewards.push(seen.reward as f32);
            one.score = seen.score;
        }
    }
    Ok(all)
}

fn take(one: &mut Recorded, seen: Observed, action: &[f64]) {
    let narrow = |values: &[f64]| values.iter().map(|&x| x as f32).collect();
    one.images.push(seen.image);
    one.proprio.push(narrow(&seen.proprio));
    one.state.push(narrow(&seen.state));
    one.actions.push(narrow(action));
}
