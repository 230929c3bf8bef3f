//! What a policy sees: vectors of the last frames, fused, the goal's and the robot's own.

use schema::ObservationStage;

/// The training samples of one task.
pub(super) struct Inputs {
    /// Vectors of every frame of every demonstration, `[F, width]`.
    pub(super) vectors: Vec<f32>,
    /// Width of a vector.
    pub(super) width: usize,
    /// The samples.
    pub(super) samples: Vec<Sample>,
    /// Proprioception of each sample, `[N, own]`; empty without.
    pub(super) proprio: Vec<f32>,
    /// Numbers of proprioception.
    pub(super) own: usize,
    /// Actions of each sample, `[N, actions]`.
    pub(super) actions: Vec<f32>,
    /// Numbers of an action.
    pub(super) action: usize,
}

/// Where a sample's frames are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    /// Its frame.
    pub(super) frame: usize,
    /// The first frame of its demonstration.
    pub(super) first: usize,
    /// The goal's frame, where the policy sees it.
    pub(super) goal: Option<usize>,
}

impl Inputs {
    /// Samples.
    pub(super) fn len(&self) -> usize {
        self.samples.len()
    }

    /// Width of the policy's input.
    pub(super) fn input(&self, stage: &ObservationStage, goal: bool) -> usize {
        (stage.frames + usize::from(goal)) * self.width + self.own
    }

    /// Inputs `[B, input]` and actions `[B, action]` of some samples.
    pub(super) fn batch(&self, stage: &ObservationStage, at: &[usize]) -> (Vec<f32>, Vec<f32>) {
        let (mut inputs, mut actions) = (Vec::new(), Vec::new());
        for &at in at {
            let Sample { frame, first, goal } = self.samples[at];
            let vector = |frame: usize| &self.vectors[frame * self.width..(frame + 1) * self.width];
            let history: Vec<&[f32]> = (0..stage.frames)
                .rev()
                .map(|back| vector(frame.saturating_sub(back).max(first)))
                .collect();
            heads::policy::fuse(&history, &mut inputs);
            if let Some(goal) = goal {
                inputs.extend_from_slice(vector(goal));
            }
            inputs.extend_from_slice(&self.proprio[at * self.own..(at + 1) * self.own]);
            actions.extend_from_slice(&self.actions[at * self.action..(at + 1) * self.action]);
        }
        (inputs, actions)
    }
}

/// The vectors of an episode's last frames.
pub(super) struct History {
    frames: usize,
    seen: Vec<Vec<f32>>,
}

impl History {
    pub(super) fn new(frames: usize) -> Self {
        Self { frames, seen: Vec::new() }
    }

    /// The policy's input after one more frame.
    pub(super) fn input(&mut self, vector: &[f32], goal: &[f32], proprio: &[f64]) -> Vec<f32> {
        if self.seen.is_empty() {
            self.seen = vec![vector.to_vec(); self.frames];
        } else {
            self.seen.remove(0);
            self.seen.push(vector.to_vec());
        }
        let history: Vec<&[f32]> = self.seen.iter().map(Vec::as_slice).collect();
        let mut input = Vec::new();
        heads::policy::fuse(&history, &mut input);
        input.extend_from_slice(goal);
        input.extend(proprio.iter().map(|&x| x as f32));
        input
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schema::Source;

    use super::*;

    fn stage(frames: usize) -> ObservationStage {
        let source = Source::Images;
        ObservationStage { revision: 1, source, frames, proprioception: true }
    }

    proptest! {
        /// What a policy sees of a demonstration in training is what it sees of the same frames in a
        /// rollout.
        #[test]
        fn training_and_rollouts_see_the_same(
            lengths in proptest::collection::vec(1usize..6, 1..4), frames in 1usize..4, goal: bool,
        ) {
            let (width, own) = (3, 2);
            let total: usize = lengths.iter().sum();
            let vectors: Vec<f32> = (0..total * width).map(|i| (i as f32).sin()).collect();
            let proprio: Vec<f32> = (0..total * own).map(|i| (i as f32).cos()).collect();
            let mut samples = Vec::new();
            let mut first = 0;
            for length in &lengths {
                let last = first + length - 1;
                samples.extend((first..=last).map(|frame| Sample {
                    frame, first, goal: goal.then_some(last),
                }));
                first += length;
            }
            let actions = vec![0.0; total];
            let inputs = Inputs { vectors, width, samples, proprio, own, actions, action: 1 };
            let stage = stage(frames);
            let all: Vec<usize> = (0..total).collect();
            let (batch, _) = inputs.batch(&stage, &all);
            let size = inputs.input(&stage, goal);
            prop_assert_eq!(batch.len(), total * size);
            let mut history = History::new(frames);
            for (at, row) in batch.chunks_exact(size).enumerate() {
                let Sample { frame, first, goal } = inputs.samples[at];
                if frame == first {
                    history = History::new(frames);
                }
                let vector = |f: usize| &inputs.vectors[f * width..(f + 1) * width];
                let goal = goal.map_or(&[][..], vector);
                let proprio: Vec<f64> =
                    inputs.proprio[at * own..(at + 1) * own].iter().map(|&x| f64::from(x)).collect();
                prop_assert_eq!(row, history.input(vector(frame), goal, &proprio));
            }
        }
    }
}
