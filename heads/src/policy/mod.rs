//! Policies cloned from demonstrations on frozen features (CortexBench, arXiv 2303.18240).
//!
//! A [`Policy`] is a multilayer perceptron from an observation to an action, with its optimiser. The
//! observation is made of the features of the last frames by [`fuse`], with the robot's own joints
//! appended where the task has them:
//!
//! ```no_run
//! # use candle_core::{Device, Tensor};
//! # use pixio_eval_heads::{dense::{decode, encode}, policy::*};
//! # fn example(training: schema::PolicyTraining, frames: [&[f32]; 3], joints: &[f32],
//! #     inputs: Tensor, targets: Tensor) -> Result<(), Box<dyn std::error::Error>> {
//! let mut observation = Vec::new();
//! fuse(&frames, &mut observation);
//! observation.extend(joints);
//!
//! let config = PolicyConfig { inputs: observation.len(), actions: 4 };
//! let mut policy = Policy::new(config, &training, 100, &Device::Cpu)?;
//! let loss = policy.step(&inputs, &targets)?;
//! let inputs = Tensor::from_vec(observation, (1, config.inputs), &Device::Cpu)?;
//! let actions = policy.act(&inputs)?;
//!
//! let checkpoint = encode(&policy.state()?)?; // everything that training changes
//! policy.load_state(decode(&checkpoint)?)?;
//! let file = encode(&policy.tensors()?)?; // what `from_tensors` reads
//! # Ok(())
//! # }
//! ```
//!
//! **Determinism.** On the CPU a step depends neither on the number of threads nor on other policies,
//! and an action depends on its own row of the inputs alone.

mod error;
mod fuse;
mod later;
mod network;
mod norm;
mod rows;
mod training;

pub use error::PolicyError;
pub use fuse::fuse;
pub use training::{Policy, PolicyConfig};
