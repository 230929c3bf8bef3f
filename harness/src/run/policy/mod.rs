//! Robot learning (CortexBench, arXiv 2303.18240): policies cloned from demonstrations on kept vectors
//! of their frames, then rolled out in the simulators.
//!
//! All tasks and seeds of a suite are trained side by side, evaluation by evaluation: every policy is
//! trained up to its next evaluation, then the rollouts of all of them share the encoder's batches.

mod data;
mod inputs;
mod plan;
mod progress;
mod rollout;
mod score;
mod train;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use results::RunDir;
use results::picture::{self, rollout::Episode};
use schema::{EpisodeRow, PolicyProtocol, PolicyTask, RunPlan, SampleRows, Source, Stages};

use super::RunError;
use super::dense;
use super::embed::{self, Embedder};
use super::extract::Extraction;
use super::session::{Host, Lazy, Measured, label};
use crate::cache::{Bank, BankKey};
use crate::device;
use crate::simulators::{Environment, Pool};
use data::{Frames, Lesson as Demonstrated, Start};
use inputs::Inputs;
pub(super) use plan::{Opened, open, open_sample, plan};
use progress::Progress;
pub(super) use progress::clear;
use rollout::{Job, Made, Stage};
use train::{Lesson, Probe};

/// Trains, rolls out, scores.
pub(super) fn run(
    host: &Host<'_>,
    lazy: &Lazy<'_>,
    plan: &RunPlan,
    data: &Opened<'_>,
    dir: &RunDir,
) -> Result<Measured, RunError> {
    let Stages::Policy(protocol) = &plan.protocol.stages else {
        return Err(RunError::Stream("another protocol on demonstrations".to_owned()));
    };
    let _held = dense::lock(dir.folder())?;
    let width = embed::width(protocol.feature.tokens, &lazy.resolved.dimensions());
    let embedder = Embedder::new(&host.uploader, &protocol.image, &protocol.feature, width, false)?;
    let run = Run { host, lazy, plan, protocol, data, embedder: &embedder, dir };
    run.whole()
}

/// One run under way.
struct Run<'a> {
    host: &'a Host<'a>,
    lazy: &'a Lazy<'a>,
    plan: &'a RunPlan,
    protocol: &'a PolicyProtocol,
    data: &'a Opened<'a>,
    embedder: &'a Embedder<'a>,
    dir: &'a RunDir,
}

/// Vectors of a task's demonstrations.
struct Prepared {
    inputs: Inputs,
    /// Vectors of the goals of the episodes of an evaluation; empty where policies see none.
    goals: Vec<Vec<f32>>,
}

impl Run<'_> {
    /// A task's samples; vectors that are not kept yet are made, and their number is told.
    fn prepare(&self, lesson: &Demonstrated) -> Result<(Prepared, u64), RunError> {
        let mut encoded = 0;
        let vectors = if self.sees_images() {
            let (plan, task) = (self.plan, &lesson.task.name);
            let key = BankKey {
                backbone: plan.backbone.identity.clone(),
                image: self.protocol.image.clone(),
                feature: self.protocol.feature.clone(),
                data: lesson.demonstrations.fingerprint(),
                part: Some((lesson.needed().len(), lesson.first_goal())),
                device: device::kind(&self.host.device).to_owned(),
                micro_batch: plan.micro_batch,
                raw: true,
            };
            let (backbone, dtype) = (&plan.backbone.name, &self.protocol.feature.dtype);
            let about =
                format!("{}, {task}, features of demonstrations, {backbone}, {dtype}", plan.task);
            let bank = Bank::open(&self.host.cache, &key, &about)?;
            let extraction = Extraction {
                embedder: self.embedder,
                bank: &bank,
                others: &[],
                micro_batch: plan.micro_batch,
                workers: self.host.workers(),
                skip_bad_images: false,
                reporter: self.host.reporter,
            };
            let frames = Frames::new(&lesson.demonstrations, lesson.needed());
            let made = extraction.split("train", &frames, &mut || self.lazy.get(self.host))?;
            encoded = made.encoded;
            Some((made.features, self.embedder.width))
        } else {
            None
        };
        let (inputs, goals) = lesson.inputs(&self.protocol.observation, vectors)?;
        Ok((Prepared { inputs, goals }, encoded))
    }

    fn whole(&self) -> Result<Measured, RunError> {
        let began = Instant::now();
        let mut encoded = 0;
        let mut prepared = Vec::new();
        for lesson in &self.data.lessons {
            let (one, images) = self.prepare(lesson)?;
            prepared.push(one);
            encoded += images;
        }
        let extraction = began.elapsed();

        let lessons: Vec<Lesson<'_>> =
            prepared.iter().enumerate().map(|(at, p)| self.lesson(at, p)).collect();
        let mut probes = Vec::new();
        for (task, lesson) in lessons.iter().enumerate() {
            for &seed in &self.protocol.seeds {
                let policy = lesson.policy(seed)?;
                probes.push(Probe { task, seed, policy, epoch: 0, losses: Vec::new() });
            }
        }
        let names: Vec<String> = probes.iter().map(|probe| self.name(probe)).collect();
        let key = self.plan.key();
        let at = |probe: &Probe, evaluation: usize| self.epochs(probe.task, evaluation);
        let mut loaded = Progress::load(self.dir.folder(), &key, &mut probes, &names, at)?;
        if let Some(progress) = &mut loaded {
            let done = progress.rows.len();
            self.host.reporter.say(format!(
                "{}: goes on in evaluation {} with {done} rollouts made",
                label(self.plan),
                progress.evaluation + 1,
            ));
            self.forget_pictured(progress);
        }
        let mut progress =
            loaded.unwrap_or_else(|| Progress { key: Some(key), ..Progress::default() });
        let pictured = self.evaluate(&lessons, &prepared, &mut probes, &names, &mut progress)?;
        self.pictures(&pictured);
        self.keep_last(&probes, &names)?;

        let curve = score::curve(self.protocol, &progress);
        let metrics = score::metrics(self.protocol, &progress.rows);
        let mut seconds = progress.seconds.clone();
        seconds.insert("extract".to_owned(), extraction.as_secs_f64());
        let counts = [
            ("rollout-steps", progress.steps),
            ("rollout-images", progress.images),
            ("simulator-restarts", progress.restarts),
        ];
        let encoding = match encoded {
            0 => Duration::ZERO,
            _ => extraction,
        };
        Ok(Measured {
            metrics,
            curve,
            rows: SampleRows::Policy(self.sorted(progress.rows)),
            seconds,
            encoded,
            encoding,
            skipped: Vec::new(),
            warnings: self.data.notes(progress.restarts),
            counts: counts.map(|(name, count)| (name.to_owned(), count)).into(),
        })
    }

    /// Trains and rolls out, evaluation after evaluation; what was to be pictured of the last one.
    fn evaluate(
        &self,
        lessons: &[Lesson<'_>],
        prepared: &[Prepared],
        probes: &mut [Probe],
        names: &[String],
        progress: &mut Progress,
    ) -> Result<Vec<Made>, RunError> {
        let tasks = &self.protocol.tasks;
        let evaluations = tasks.iter().map(|task| task.evaluations.len()).max().unwrap_or(0);
        let rollouts = |task: &PolicyTask| task.evaluations.len() * task.episodes;
        let total = tasks.iter().map(rollouts).sum::<usize>() * self.protocol.seeds.len();
        let bar = self.host.reporter.items("rollouts", total as u64, "episodes");
        bar.set(progress.rows.len() as u64);
        let lanes = if self.host.device.is_cpu() { 1 } else { 2 };
        let mut pool: Option<Pool<'_>> = None;
        let mut pictured = Vec::new();
        // After a checkpoint its policies are trained already.
        let mut trained = progress.policies.is_some();
        while progress.evaluation < evaluations {
            if !std::mem::take(&mut trained) {
                let began = Instant::now();
                let losses = self.train(lessons, probes, names, progress.evaluation)?;
                progress.losses.push(losses);
                progress.add("train", began.elapsed().as_secs_f64());
                progress.keep_policies(self.dir.folder(), probes, names)?;
            }
            for (task, one) in prepared.iter().enumerate() {
                let batches = self.batches(task, probes, progress);
                if batches.is_empty() {
                    continue;
                }
                let pool = match &mut pool {
                    Some(pool) => pool,
                    None => pool.insert(self.pool(lanes)?),
                };
                let stage = self.stage(task, one)?;
                stage.run(pool, lanes, probes, &batches, &mut |made, took| {
                    for made in made {
                        progress.rows.retain(|row| !same_episode(row, &made.row));
                        progress.rows.push(made.row.clone());
                        pictured.extend((!made.frames.is_empty()).then_some(made));
                    }
                    took.seconds.iter().for_each(|(name, seconds)| progress.add(name, *seconds));
                    progress.images += took.images;
                    progress.steps += took.steps;
                    progress.restarts += took.restarts;
                    bar.set(progress.rows.len() as u64);
                    progress.keep(self.dir.folder())
                })?;
            }
            progress.evaluation += 1;
        }
        Ok(pictured)
    }

    fn pool(&self, lanes: usize) -> Result<Pool<'_>, RunError> {
        // No batch is twice as large as asked for.
        let slots = lanes * 2 * self.protocol.rollout.together;
        let workers = self.host.workers();
        Ok(Pool::start(&self.data.simulators, workers, slots, self.sees_images())?)
    }

    fn sees_images(&self) -> bool {
        self.protocol.observation.source == Source::Images
    }

    fn stage<'s>(&'s self, task: usize, prepared: &'s Prepared) -> Result<Stage<'s>, RunError> {
        let backbone = match self.sees_images() {
            true => Some(self.lazy.get(self.host)?),
            false => None,
        };
        Ok(Stage {
            environment: Environment {
                suite: self.plan.task.dataset.clone(),
                task: self.protocol.tasks[task].name.clone(),
                render: self.protocol.simulator.render,
                repeat: self.data.lessons[task].repeat(),
            },
            task: &self.protocol.tasks[task],
            observation: &self.protocol.observation,
            embedder: self.embedder,
            backbone,
            goals: &prepared.goals,
            largest_action: self.data.lessons[task].largest_action(&prepared.inputs),
            device: &self.host.device,
        })
    }

    /// Trains every policy that has this evaluation up to it; the mean loss of the epochs since the one
    /// before, by policy.
    fn train(
        &self,
        lessons: &[Lesson<'_>],
        probes: &mut [Probe],
        names: &[String],
        evaluation: usize,
    ) -> Result<BTreeMap<String, f64>, RunError> {
        let mut losses = BTreeMap::new();
        let missing = |probe: &Probe| self.epochs(probe.task, evaluation) - probe.epoch;
        let total: usize = probes.iter().map(missing).sum();
        let bar = self.host.reporter.items("training policies", total as u64, "epochs");
        bar.set(0);
        let mut done = 0;
        for (probe, name) in probes.iter_mut().zip(names) {
            let epochs = self.epochs(probe.task, evaluation);
            while probe.epoch < epochs {
                lessons[probe.task].train(probe)?;
                done += 1;
                bar.set(done);
            }
            let epochs = std::mem::take(&mut probe.losses);
            if !epochs.is_empty() {
                losses.insert(name.clone(), epochs.iter().sum::<f64>() / epochs.len() as f64);
            }
        }
        Ok(losses)
    }

    /// Epochs trained at an evaluation; those of the last one for a task that has fewer.
    fn epochs(&self, task: usize, evaluation: usize) -> usize {
        let evaluations = &self.protocol.tasks[task].evaluations;
        evaluations.get(evaluation).or(evaluations.last()).copied().unwrap_or(0)
    }

    /// The batches of a task's rollouts at the evaluation under way that are not made yet. They are made
    /// and kept as a whole.
    fn batches(&self, task: usize, probes: &[Probe], progress: &Progress) -> Vec<Vec<Job>> {
        let PolicyTask { name, evaluations, episodes, .. } = &self.protocol.tasks[task];
        let Some(&epoch) = evaluations.get(progress.evaluation) else { return Vec::new() };
        let last = progress.evaluation + 1 == evaluations.len();
        let starts = &self.data.lessons[task].starts;
        let mut jobs = Vec::new();
        for (probe, _) in probes.iter().enumerate().filter(|(_, probe)| probe.task == task) {
            for episode in 0..*episodes {
                let pictured = last && self.pictured(probes[probe].seed, episode);
                let Start { start, seed } = starts.get(episode).cloned().unwrap_or_default();
                let seed = seed.unwrap_or(probes[probe].seed + episode as u64);
                jobs.push(Job { probe, episode, seed, start, goal: episode, pictured });
            }
        }
        let made = |job: &Job| {
            progress.rows.iter().any(|row| {
                (row.task.as_str(), row.seed, row.epoch as usize, row.episode as usize)
                    == (name, probes[job.probe].seed, epoch, job.episode)
            })
        };
        let mut batches = even(jobs, self.protocol.rollout.together);
        batches.retain(|batch| !batch.iter().all(made));
        batches
    }

    /// Whether a last rollout's frames are kept.
    fn pictured(&self, seed: u64, episode: usize) -> bool {
        let first = self.protocol.seeds.first() == Some(&seed);
        self.sees_images() && first && episode < self.host.request.pictures
    }

    /// Rollouts to be pictured are made again: their frames were not kept. A task whose last evaluation came
    /// before the one under way keeps its own: nothing makes them again.
    fn forget_pictured(&self, progress: &mut Progress) {
        let (tasks, evaluation) = (&self.protocol.tasks, progress.evaluation);
        progress.rows.retain(|row| {
            let pictured = self.pictured(row.seed, row.episode as usize);
            !(pictured && ends(tasks, evaluation, row))
        });
    }

    /// The rows in the order of evaluations, tasks, seeds and episodes.
    fn sorted(&self, mut rows: Vec<EpisodeRow>) -> Vec<EpisodeRow> {
        let of = |row: &EpisodeRow| {
            let task = self.protocol.tasks.iter().position(|task| task.name == row.task);
            (row.epoch, task, row.seed, row.episode)
        };
        rows.sort_by_key(of);
        rows
    }

    fn name(&self, probe: &Probe) -> String {
        format!("{}/{}", self.protocol.tasks[probe.task].name, probe.seed)
    }

    fn lesson<'s>(&'s self, task: usize, prepared: &'s Prepared) -> Lesson<'s> {
        Lesson {
            suite: &self.plan.task.dataset,
            task: &self.protocol.tasks[task],
            stage: &self.protocol.observation,
            training: &self.protocol.training,
            inputs: &prepared.inputs,
            device: &self.host.device,
        }
    }

    /// Animations of a few last rollouts; a picture that cannot be written ends nothing.
    fn pictures(&self, made: &[Made]) {
        let side = self.protocol.simulator.render.side;
        let episodes: Vec<Episode<'_>> = made
            .iter()
            .map(|one| Episode { row: &one.row, size: (side, side), frames: &one.frames })
            .collect();
        if let Err(error) = picture::rollout::write(self.dir.folder(), &episodes) {
            self.host.reporter.warn(format!("no pictures of rollouts: {error}"));
        }
    }

    /// The last epoch's policies, for whoever wants to act with them.
    fn keep_last(&self, probes: &[Probe], names: &[String]) -> Result<(), RunError> {
        let mut all = BTreeMap::new();
        for (probe, name) in probes.iter().zip(names) {
            for (key, tensor) in probe.policy.tensors()? {
                all.insert(format!("{name}/{key}"), tensor);
            }
        }
        Ok(dense::write_head(&self.dir.folder().join("policies.safetensors"), &all)?)
    }
}

/// Whether a rollout is of its task's last evaluation, and that is the one with this index.
fn ends(tasks: &[PolicyTask], evaluation: usize, row: &EpisodeRow) -> bool {
    let task = tasks.iter().find(|task| task.name == row.task);
    task.is_some_and(|task| {
        task.evaluations.len() == evaluation + 1
            && task.evaluations.last() == Some(&(row.epoch as usize))
    })
}

fn same_episode(one: &EpisodeRow, other: &EpisodeRow) -> bool {
    let of = |row: &EpisodeRow| (row.seed, row.epoch, row.episode);
    one.task == other.task && of(one) == of(other)
}

/// As many batches as have `together` jobs at least, of sizes that differ by one at most.
fn even(jobs: Vec<Job>, together: usize) -> Vec<Vec<Job>> {
    let count = (jobs.len() / together.max(1)).max(1);
    let (size, more) = (jobs.len() / count, jobs.len() % count);
    let mut jobs = jobs.into_iter();
    let sizes = (0..count).map(|at| size + usize::from(at < more));
    sizes
        .map(|size| jobs.by_ref().take(size).collect())
        .filter(|b: &Vec<Job>| !b.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Rollouts of a task that has fewer evaluations are not made again when a later one is gone on with.
    #[test]
    fn only_tasks_that_end_now_are_pictured_again() {
        let suite = tasks::robot::suite("trifinger").unwrap();
        let tasks = suite.setup(tasks::robot::Variant::Published).tasks;
        let row = |task: &str, epoch| EpisodeRow {
            task: task.to_owned(),
            seed: 100,
            epoch,
            episode: 0,
            score: 0.0,
            reward: 0.0,
            success: None,
            steps: 5,
        };
        let (reach, moved) = (row("reach_cube", 100), row("move_cube", 1000));
        assert!(ends(&tasks, 19, &reach) && !ends(&tasks, 19, &row("reach_cube", 95)));
        assert!(!ends(&tasks, 20, &reach) && !ends(&tasks, 39, &reach));
        assert!(ends(&tasks, 39, &moved) && !ends(&tasks, 19, &row("move_cube", 500)));
    }

    proptest! {
        #[test]
        fn batches_are_even_and_large_enough(count in 0usize..200, together in 1usize..40) {
            let job = |episode| Job {
                probe: 0, episode, seed: 0, start: serde_json::Value::Null, goal: 0, pictured: false,
            };
            let batches = even((0..count).map(job).collect(), together);
            let order: Vec<usize> = batches.iter().flatten().map(|job| job.episode).collect();
            prop_assert_eq!(order, (0..count).collect::<Vec<_>>());
            for batch in &batches {
                prop_assert!(batch.len() >= together.min(count) && batch.len() < 2 * together.max(count.min(together)));
            }
        }
    }
}
