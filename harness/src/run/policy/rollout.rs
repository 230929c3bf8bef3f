//! Rollouts: environments act in lockstep, and the encoder sees their images as one batch.
//!
//! An episode's place in its batch, and the batch's size, are given by the plan alone: which other
//! episodes are over, how many workers there are and where a run was interrupted changes nothing.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use candle_core::{Device, Tensor};
use ndarray::ArrayView3;
use rayon::prelude::*;
use schema::{EpisodeRow, ObservationStage, PolicyTask, Source};
use serde_json::Value;

use super::inputs::History;
use super::train::Probe;
use crate::backbone::{Backbone, BackboneError};
use crate::interrupt;
use crate::run::RunError;
use crate::run::embed::Embedder;
use crate::simulators::{Ask, Environment, Observed, Pool, SimulatorError, Space, Spent};
use crate::upload::Pixels;

/// Frames of a pictured episode, at most.
const PICTURED: usize = 100;

/// One rollout to make.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Job {
    /// Index of the policy.
    pub(super) probe: usize,
    /// Number of the rollout.
    pub(super) episode: usize,
    /// Decides everything random in it.
    pub(super) seed: u64,
    pub(super) start: Value,
    /// Index of the goal's vector.
    pub(super) goal: usize,
    /// Whether its frames are kept.
    pub(super) pictured: bool,
}

/// A rollout that was made.
pub(super) struct Made {
    pub(super) row: EpisodeRow,
    /// Frames `[side, side, 3]`, evenly over the episode; empty unless pictured.
    pub(super) frames: Vec<Vec<u8>>,
}

/// What every rollout of a task has in common.
pub(super) struct Stage<'a> {
    pub(super) environment: Environment,
    pub(super) task: &'a PolicyTask,
    pub(super) observation: &'a ObservationStage,
    pub(super) embedder: &'a Embedder<'a>,
    /// None where policies see the true state.
    pub(super) backbone: Option<&'a dyn Backbone>,
    /// Vectors of goals.
    pub(super) goals: &'a [Vec<f32>],
    /// Largest size of an action's numbers, where the suite has one.
    pub(super) largest_action: Option<f64>,
    pub(super) device: &'a Device,
}

/// What rollouts took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Took {
    /// Seconds, by all workers together for physics and rendering.
    pub(super) seconds: [(&'static str, f64); 5],
    pub(super) images: u64,
    pub(super) steps: u64,
    pub(super) restarts: u64,
}

/// What was counted so far.
#[derive(Clone, Copy, Default)]
struct Count {
    spent: Spent,
    restarts: u64,
    encode: f64,
    /// Seconds altogether, since environments are open.
    rollout: f64,
    images: u64,
    steps: u64,
}

impl Count {
    fn since(&self, before: &Self) -> Took {
        let (now, then) = (self.spent, before.spent);
        Took {
            seconds: [
                ("physics", now.physics - then.physics),
                ("render", now.render - then.render),
                ("wait", now.waiting - then.waiting),
                ("encode", self.encode - before.encode),
                ("rollout", self.rollout - before.rollout),
            ],
            images: self.images - before.images,
            steps: self.steps - before.steps,
            restarts: self.restarts - before.restarts,
        }
    }
}

/// A batch of episodes under way.
struct Running<'j> {
    jobs: &'j [Job],
    /// First slot.
    offset: usize,
    histories: Vec<History>,
    rows: Vec<EpisodeRow>,
    frames: Vec<Vec<Vec<u8>>>,
    /// Whether the first images were seen.
    begun: bool,
}

impl Stage<'_> {
    /// Makes batches of rollouts, as many at once as there are lanes; `done` is given each batch's.
    pub(super) fn run(
        &self,
        pool: &mut Pool<'_>,
        lanes: usize,
        probes: &[Probe],
        batches: &[Vec<Job>],
        done: &mut dyn FnMut(Vec<Made>, Took) -> Result<(), RunError>,
    ) -> Result<(), RunError> {
        let widest = batches.iter().map(Vec::len).max().unwrap_or(0);
        let lanes = lanes.clamp(1, batches.len().max(1));
        let slots: Vec<usize> =
            (0..lanes).flat_map(|lane| (0..widest).map(move |slot| lane * widest + slot)).collect();
        if slots.is_empty() {
            return Ok(());
        }
        let mut count =
            Count { spent: pool.spent(), restarts: pool.restarts(), ..Count::default() };
        let mut told = count;
        let space = pool.open(&slots, &self.environment)?;
        let began = Instant::now();
        let mut waiting = batches.iter();
        let mut under_way = VecDeque::new();
        for (lane, jobs) in (0..lanes).zip(&mut waiting) {
            under_way.push_back(self.begin(pool, probes, jobs, lane * widest)?);
        }
        while let Some(mut running) = under_way.pop_front() {
            if interrupt::requested() {
                return Err(RunError::Interrupted);
            }
            let seen = pool.finish()?;
            let asks = self.act(probes, &mut running, seen, &space, &mut count)?;
            if !asks.is_empty() {
                pool.begin(asks)?;
                under_way.push_back(running);
                continue;
            }
            count.spent = pool.spent();
            count.rollout = began.elapsed().as_secs_f64();
            count.restarts = pool.restarts();
            let (offset, took) = (running.offset, count.since(&told));
            told = count;
            done(running.finish(), took)?;
            if let Some(jobs) = waiting.next() {
                under_way.push_back(self.begin(pool, probes, jobs, offset)?);
            }
        }
        Ok(())
    }

    fn begin<'j>(
        &self,
        pool: &mut Pool<'_>,
        probes: &[Probe],
        jobs: &'j [Job],
        offset: usize,
    ) -> Result<Running<'j>, RunError> {
        let resets = jobs.iter().enumerate().map(|(at, job)| {
            (offset + at, Ask::Reset { seed: job.seed, start: job.start.clone() })
        });
        pool.begin(resets.collect())?;
        let rows = jobs.iter().map(|job| EpisodeRow {
            task: self.task.name.clone(),
            seed: probes[job.probe].seed,
            epoch: probes[job.probe].epoch as u32,
            episode: job.episode as u32,
            score: 0.0,
            reward: 0.0,
            success: None,
            steps: 0,
        });
        Ok(Running {
            jobs,
            offset,
            histories: jobs.iter().map(|_| History::new(self.observation.frames)).collect(),
            rows: rows.collect(),
            frames: vec![Vec::new(); jobs.len()],
            begun: false,
        })
    }

    /// Takes in what was seen and decides the next actions; none when every episode is over.
    fn act(
        &self,
        probes: &[Probe],
        running: &mut Running<'_>,
        seen: Vec<(usize, Observed)>,
        space: &Space,
        count: &mut Count,
    ) -> Result<Vec<(usize, Ask)>, RunError> {
        let first = !std::mem::replace(&mut running.begun, true);
        let every = self.task.horizon.div_ceil(PICTURED).max(1);
        let mut acting = Vec::new();
        for (slot, seen) in seen {
            let at = slot - running.offset;
            running.take(at, &seen, first, every);
            let row = &running.rows[at];
            if !seen.done && (row.steps as usize) < self.task.horizon {
                acting.push((at, seen));
            }
        }
        if acting.is_empty() {
            return Ok(Vec::new());
        }
        let vectors = self.vectors(&acting, running.jobs.len(), space, count)?;
        // One product for all episodes of a policy: a row's result depends on no other row.
        let mut of: BTreeMap<usize, (Vec<usize>, Vec<f32>)> = BTreeMap::new();
        for ((at, seen), vector) in acting.iter().zip(vectors) {
            let job = &running.jobs[*at];
            let goal = self.goals.get(job.goal).map_or(&[][..], Vec::as_slice);
            let proprio = if self.observation.proprioception { &seen.proprio[..] } else { &[] };
            let (places, inputs) = of.entry(job.probe).or_default();
            places.push(*at);
            inputs.extend(running.histories[*at].input(&vector, goal, proprio));
        }
        let mut asks = Vec::with_capacity(acting.len());
        for (probe, (places, inputs)) in of {
            let candle = BackboneError::Candle;
            let shape = (places.len(), inputs.len() / places.len());
            let inputs = Tensor::from_vec(inputs, shape, self.device).map_err(candle)?;
            let actions = probes[probe].policy.act(&inputs)?.to_vec2::<f32>().map_err(candle)?;
            for (at, action) in places.into_iter().zip(actions) {
                let action = action.into_iter().map(|x| match self.largest_action {
                    Some(largest) => f64::from(x).clamp(-largest, largest),
                    None => f64::from(x),
                });
                asks.push((running.offset + at, Ask::Step(action.collect())));
            }
        }
        asks.sort_by_key(|(slot, _)| *slot);
        count.steps += asks.len() as u64;
        Ok(asks)
    }

    /// The vectors of what was seen: states as they are, images through the encoder in a batch of `batch`,
    /// each at its episode's place.
    fn vectors(
        &self,
        acting: &[(usize, Observed)],
        batch: usize,
        space: &Space,
        count: &mut Count,
    ) -> Result<Vec<Vec<f32>>, RunError> {
        let Some(backbone) = self.backbone.filter(|_| self.observation.source == Source::Images)
        else {
            let state =
                |(_, seen): &(usize, Observed)| seen.state.iter().map(|&x| x as f32).collect();
            return Ok(acting.iter().map(state).collect());
        };
        let began = Instant::now();
        let [height, width, _] = space.image;
        let prepared: Vec<(usize, Pixels)> = acting
            .par_iter()
            .map(|(at, seen)| {
                let view = ArrayView3::from_shape((height, width, 3), &seen.image);
                Ok((*at, self.embedder.pixels(view.map_err(|error| shape(&error))?)))
            })
            .collect::<Result<_, RunError>>()?;
        let mut pixels: Vec<Pixels> = (0..batch).map(|_| self.embedder.blank()).collect();
        for (at, one) in prepared {
            pixels[at] = one;
        }
        let all = self.embedder.embed(backbone, &pixels)?;
        count.images += acting.len() as u64;
        count.encode += began.elapsed().as_secs_f64();
        let row =
            |at: usize| all[at * self.embedder.width..(at + 1) * self.embedder.width].to_vec();
        Ok(acting.iter().map(|(at, _)| row(*at)).collect())
    }
}

fn shape(error: &ndarray::ShapeError) -> RunError {
    RunError::Simulator(SimulatorError::Answer {
        doing: "rendering".to_owned(),
        why: error.to_string(),
    })
}

impl Running<'_> {
    fn take(&mut self, at: usize, seen: &Observed, first: bool, every: usize) {
        let row = &mut self.rows[at];
        row.score = seen.score;
        row.success = seen.success;
        if !first {
            row.steps += 1;
            row.reward += seen.reward;
        }
        if self.jobs[at].pictured && (row.steps as usize).is_multiple_of(every) {
            self.frames[at].push(seen.image.clone());
        }
    }

    fn finish(self) -> Vec<Made> {
        self.rows.into_iter().zip(self.frames).map(|(row, frames)| Made { row, frames }).collect()
    }
}
