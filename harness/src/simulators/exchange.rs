//! What environments are asked and what they answer.

use schema::Render;
use serde::Deserialize;
use serde_json::Value;

/// Which environment.
#[derive(Clone, Debug, PartialEq)]
pub struct Environment {
    /// For example `metaworld`.
    pub suite: String,
    /// For example `drawer-open`.
    pub task: String,
    /// How its images are made.
    pub render: Render,
    /// Simulator steps of an action, where the suite lets that be chosen.
    pub repeat: usize,
}

/// What an environment takes and gives.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Space {
    /// Numbers of an action.
    pub actions: usize,
    /// Lower bounds of an action.
    pub low: Vec<f64>,
    /// Upper bounds.
    pub high: Vec<f64>,
    /// Numbers of proprioception.
    pub proprio: usize,
    /// Numbers of the true state.
    pub state: usize,
    /// Height, width, 3.
    pub image: [usize; 3],
    /// Steps of an episode.
    pub horizon: usize,
}

/// What to do with an environment.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// Begin an episode.
    Reset {
        /// Decides everything random in it.
        seed: u64,
        /// Where it starts, as the suite defines it; null for the seed's own start.
        start: Value,
    },
    /// Act.
    Step(Vec<f64>),
}

/// What was seen afterwards.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// `[H, W, 3]`; empty when no image was asked for.
    pub image: Vec<u8>,
    /// The robot's own joints or fingertips.
    pub proprio: Vec<f64>,
    /// The true state.
    pub state: Vec<f64>,
    /// Reward of the action.
    pub reward: f64,
    /// The episode's score so far, 0 to 100.
    pub score: f64,
    /// Whether the task is solved now, where the suite says so.
    pub success: Option<bool>,
    /// Whether the episode is over.
    pub done: bool,
}

/// Where time went.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spent {
    /// Seconds of physics, summed over workers.
    pub physics: f64,
    /// Seconds of rendering, summed over workers.
    pub render: f64,
    /// Seconds that this process waited for workers.
    pub waiting: f64,
}

#[derive(Deserialize)]
pub(super) struct Answer {
    pub(super) items: Vec<Step>,
    #[serde(default)]
    pub(super) seconds: Seconds,
}

#[derive(Deserialize, Default)]
pub(super) struct Seconds {
    #[serde(default)]
    pub(super) physics: f64,
    #[serde(default)]
    pub(super) render: f64,
}

#[derive(Deserialize)]
pub(super) struct Step {
    pub(super) reward: f64,
    pub(super) score: f64,
    pub(super) success: Option<bool>,
    pub(super) done: bool,
}
