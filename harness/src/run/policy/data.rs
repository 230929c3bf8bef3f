//! Demonstrations of a suite's tasks: their frames as the images of a split, their samples.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use ndarray::Array3;
use schema::{ObservationStage, PolicyTask, Source};
use serde_json::Value;
use tasks::robot::{Demonstration, Demonstrations, Frames as Decoded, Origin, Suite};

use super::inputs::{Inputs, Sample};
use crate::run::RunError;
use crate::run::extract::Images;

/// Demonstrations whose frames are held at a time: a shard may begin in one and end in the next.
const HELD: usize = 2;

/// How an episode starts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Start {
    /// As the simulators' workers take it.
    pub(super) start: Value,
    /// Seed of the demonstration's own episode.
    pub(super) seed: Option<u64>,
}

/// One task of a suite.
pub(super) struct Lesson {
    pub(super) task: PolicyTask,
    pub(super) demonstrations: Demonstrations,
    /// How the episodes of an evaluation start; empty where the policies' seeds decide.
    pub(super) starts: Vec<Start>,
    /// Demonstrations whose last frames are the goals of those episodes.
    goals: Vec<usize>,
    /// Whether an action moves fingertips by centimetres, within the largest of the demonstrations.
    fingertips: bool,
}

impl Lesson {
    /// Of the first demonstrations, and where the suite evaluates on others, those for testing.
    pub(super) fn new(
        suite: &Suite,
        task: PolicyTask,
        demonstrations: Demonstrations,
    ) -> Result<Self, RunError> {
        let fingertips = suite.tests_on_demonstrations();
        let first = demonstrations.tests_from(task.episodes);
        let tested = if fingertips { first..first + task.episodes } else { 0..0 };
        let starts = tested
            .clone()
            .map(|at| {
                let Demonstration { start, seed, .. } = demonstrations.load(at)?;
                Ok(Start { start, seed })
            })
            .collect::<Result<_, RunError>>()?;
        let goals = if task.goal { tested.collect() } else { Vec::new() };
        Ok(Self { task, demonstrations, starts, goals, fingertips })
    }

    /// Demonstrations of which vectors are needed.
    pub(super) fn needed(&self) -> Vec<usize> {
        (0..self.task.demonstrations).chain(self.goals.iter().copied()).collect()
    }

    /// The first demonstration whose end is a goal; 0 without goals.
    pub(super) fn first_goal(&self) -> u64 {
        self.goals.first().map_or(0, |&at| at as u64)
    }

    /// Whether its demonstrations are generated.
    pub(super) fn is_made(&self) -> bool {
        matches!(self.demonstrations.origin(), Origin::Made(_))
    }

    pub(super) fn repeat(&self) -> usize {
        self.demonstrations.repeat()
    }

    /// The bound of a policy's actions, where the suite has one.
    pub(super) fn largest_action(&self, inputs: &Inputs) -> Option<f64> {
        let largest = || inputs.actions.iter().fold(0.0f64, |m, &x| m.max(f64::from(x).abs()));
        self.fingertips.then(largest)
    }

    /// The samples of the first demonstrations, with the vectors of all that are needed, and the
    /// episodes' goals.
    pub(super) fn inputs(
        &self,
        stage: &ObservationStage,
        vectors: Option<(Vec<f32>, usize)>,
    ) -> Result<(Inputs, Vec<Vec<f32>>), RunError> {
        let all: Vec<Demonstration> = self
            .needed()
            .into_iter()
            .map(|at| self.demonstrations.load(at))
            .collect::<Result<_, _>>()?;
        let (vectors, width) = match (vectors, stage.source) {
            (Some(vectors), Source::Images) => vectors,
            _ => self.states(&all)?,
        };
        let (mut samples, mut proprio, mut actions) = (Vec::new(), Vec::new(), Vec::new());
        let (mut first, mut ends) = (0, Vec::new());
        for (at, one) in all.iter().enumerate() {
            let steps = one.actions.nrows();
            ends.push(first + steps - 1);
            if at < self.task.demonstrations {
                // The published ones end with a frame that no action follows.
                let acted = if self.fingertips && !self.is_made() { steps - 1 } else { steps };
                let goal = self.task.goal.then_some(first + steps - 1);
                samples.extend((first..first + acted).map(|frame| Sample { frame, first, goal }));
                let rows = ndarray::s![..acted, ..];
                actions.extend(one.actions.slice(rows).iter());
                if stage.proprioception {
                    proprio.extend(one.proprio.slice(rows).iter());
                }
            }
            first += steps;
        }
        let width_of = |values: &[f32]| values.len() / samples.len().max(1);
        let (own, action) = (width_of(&proprio), width_of(&actions));
        let goals = ends[self.task.demonstrations..]
            .iter()
            .map(|&end| vectors[end * width..(end + 1) * width].to_vec())
            .collect();
        Ok((Inputs { vectors, width, samples, proprio, own, actions, action }, goals))
    }

    fn states(&self, all: &[Demonstration]) -> Result<(Vec<f32>, usize), RunError> {
        let mut vectors = Vec::new();
        let mut width = 0;
        for one in all {
            let Some(state) = &one.state else {
                return Err(RunError::NoState(format!("{}'s demonstrations", self.task.name)));
            };
            width = state.ncols();
            vectors.extend(state.iter());
        }
        Ok((vectors, width))
    }
}

/// Some demonstrations of a task, as images one after another.
pub(super) struct Frames<'a> {
    demonstrations: &'a Demonstrations,
    chosen: Vec<usize>,
    /// First frame of each, and the end.
    starts: Vec<usize>,
    held: Mutex<Vec<(usize, Arc<Decoded>)>>,
}

impl<'a> Frames<'a> {
    pub(super) fn new(demonstrations: &'a Demonstrations, chosen: Vec<usize>) -> Self {
        let mut starts = vec![0];
        for (place, &at) in chosen.iter().enumerate() {
            starts.push(starts[place] + demonstrations.frames(at));
        }
        Self { demonstrations, chosen, starts, held: Mutex::default() }
    }

    fn place(&self, at: usize) -> (usize, usize) {
        let place = self.starts.partition_point(|&start| start <= at) - 1;
        (self.chosen[place], at - self.starts[place])
    }

    fn of(&self, demonstration: usize) -> Result<Arc<Decoded>, RunError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, frames)) = held.iter().find(|(at, _)| *at == demonstration) {
            return Ok(Arc::clone(frames));
        }
        let frames = Arc::new(self.demonstrations.images(demonstration)?);
        if held.len() == HELD {
            held.remove(0);
        }
        held.push((demonstration, Arc::clone(&frames)));
        Ok(frames)
    }
}

impl Images for Frames<'_> {
    fn count(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    fn name(&self, at: usize) -> Cow<'_, str> {
        let (demonstration, frame) = self.place(at);
        format!("demonstration {demonstration}, frame {frame}").into()
    }

    fn image(&self, at: usize) -> Result<Array3<u8>, RunError> {
        let (demonstration, frame) = self.place(at);
        Ok(self.of(demonstration)?[frame].clone())
    }
}
