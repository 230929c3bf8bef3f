use serde::{Deserialize, Serialize};

use crate::{FeatureStage, ImageStage};

/// Behaviour cloning of a policy on frozen features of demonstrations, then rollouts in the simulator
/// (CortexBench, arXiv 2303.18240).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyProtocol {
    /// From a camera's image to encoder input.
    pub image: ImageStage,
    /// From encoder input to one vector an image, which is not normalised.
    pub feature: FeatureStage,
    /// From vectors to the policy's input.
    pub observation: ObservationStage,
    /// The policy and its training.
    pub training: PolicyTraining,
    /// Rollouts.
    pub rollout: RolloutStage,
    /// What the rollouts run in.
    pub simulator: SimulatorStage,
    /// The tasks, in the suite's order.
    pub tasks: Vec<PolicyTask>,
    /// Seeds; each trains a policy a task.
    pub seeds: Vec<u64>,
}

/// What the policy sees instead of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Features of the camera's images.
    Images,
    /// The simulator's true state: a calibration of the cloning, not a backbone.
    State,
}

/// From vectors of frames to the policy's input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservationStage {
    /// Raised when a fix moves the input.
    pub revision: u32,
    /// What a frame's vector is.
    pub source: Source,
    /// Frames of history: 3 are fused as `[e1 - e0, e2 - e1, e2]`, the first one repeated at the start;
    /// 1 is the frame alone.
    pub frames: usize,
    /// Whether the robot's own joints or fingertips are appended.
    pub proprioception: bool,
}

/// The policy and its training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyTraining {
    /// Raised when a fix moves parameters.
    pub revision: u32,
    /// Widths of the hidden layers.
    pub hidden: Vec<usize>,
    /// What the input's batch norm begins with, as scale (its shift begins at 0); no norm when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_norm: Option<f32>,
    /// Learning rate, constant.
    pub rate: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Decay of the moments.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Frames of one step.
    pub batch: usize,
}

/// When and how a policy acts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutStage {
    /// Raised when a fix moves scores.
    pub revision: u32,
    /// Environments that act in lockstep, at least: the images of one encoder pass.
    pub together: usize,
}

/// What the rollouts run in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SimulatorStage {
    /// Libraries that decide physics and images, as `name version`, sorted.
    pub versions: Vec<String>,
    /// How a camera's image is made.
    pub render: Render,
}

/// How a camera's image is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Render {
    /// Height and width, in pixels.
    pub side: usize,
    /// Shadows.
    pub shadows: bool,
    /// Reflections.
    pub reflections: bool,
    /// Samples a pixel of the renderer's antialiasing; 0 for none.
    pub samples: usize,
}

/// One task of a suite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyTask {
    /// For example `drawer-open`.
    pub name: String,
    /// Demonstrations trained on.
    pub demonstrations: usize,
    /// Epochs of training.
    pub epochs: usize,
    /// Epochs trained so far at each evaluation, ascending; the last is `epochs`.
    pub evaluations: Vec<usize>,
    /// Rollouts of one evaluation.
    pub episodes: usize,
    /// Steps of a rollout, at most.
    pub horizon: usize,
    /// Whether the vector of the goal's image is appended.
    #[serde(default)]
    pub goal: bool,
}

/// One rollout of a policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpisodeRow {
    /// Task of the suite.
    pub task: String,
    /// Seed of the policy.
    pub seed: u64,
    /// Epochs that the policy was trained.
    pub epoch: u32,
    /// Number of the rollout, from 0.
    pub episode: u32,
    /// 0 to 100.
    pub score: f64,
    /// Sum of the rewards.
    pub reward: f64,
    /// Whether the task was solved, where the suite says so.
    pub success: Option<bool>,
    /// Steps taken.
    pub steps: u32,
}
