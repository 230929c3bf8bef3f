//! Depth and segmentation heads on frozen patch features, and their training (PROTOCOL sections 3 to
//! 5).
//!
//! A [`Probe`] is a head with its optimiser and schedule. It is given features of its taps, made by
//! [`assemble`], and [`Targets`]:
//!
//! ```no_run
//! # use candle_core::{DType, Device, Tensor};
//! # use pixio_eval_heads::dense::*;
//! # fn example(patches: Tensor, summary: Tensor, depth: Tensor, training: schema::TrainingStage,
//! #     uniform: fn(usize, usize) -> f64) -> Result<(), Box<dyn std::error::Error>> {
//! let config = HeadConfig { architecture: Architecture::Linear, width: 2 * 768, outputs: 1 };
//! let mut draw = |tensor, element| uniform(tensor, element); // by counter, in [0, 1)
//! let head = initialise(&config, DType::F32, &Device::Cpu, &mut draw)?;
//! let objective = schema::Objective::Depth { min: 0.001, max: 10.0 };
//! let mut probe = Probe::new(head, objective, &training, 60 * 757)?;
//!
//! let taps = [assemble(&patches, Some(&summary), (16, 16))?];
//! let report = probe.train_step(&taps, &Targets::depth(depth))?;
//! println!("loss {:?} at rate {}", report.loss, report.rate);
//! let metres = probe.predict(&taps, (256, 256))?;
//!
//! let checkpoint = encode(&probe.state()?)?; // everything that training changes
//! probe.load_state(decode(&checkpoint)?)?;
//! let head_file = encode(&probe.head().tensors()?)?; // what `load` reads
//! # Ok(())
//! # }
//! ```
//!
//! **Adding a head** is a module with a [`DenseHead`], an entry in [`Architecture`] and one in
//! [`HeadKind`].
//!
//! **Precision.** Parameters, moments, batch norm, resizes and losses are f32. Convolutions, ReLU and
//! residual adds are in the type the head was made with, as under PyTorch's autocast.
//!
//! **Determinism.** On the CPU a step's result depends neither on the number of threads nor on other
//! probes.

mod adamw;
mod dpt;
mod error;
mod file;
#[cfg(test)]
mod formats;
mod head;
mod input;
mod linear;
mod loss;
mod memory;
mod nll;
mod probe;
mod schedule;
mod storage;
mod weights;

pub use adamw::AdamW;
pub use error::{HeadError, LoadProblem};
pub use file::{decode, encode};
pub use head::{
    Architecture, DenseHead, Expected, Forward, HeadConfig, HeadKind, Made, from_tensors,
    initialise, load,
};
pub use input::{assemble, concatenate};
pub use loss::{Loss, Targets, loss, outputs, prediction};
pub use memory::TrainingMemory;
pub use probe::{Deferred, Probe, StepReport};
pub use schedule::Schedule;
pub(crate) use weights::{Builder, Initial, Source, check_shape};
pub use weights::{Draw, Variable};
